"""Time: alternating rounds of several subjects, and the parts of one."""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Protocol

import torch

from sra.runtime import job


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Seconds of named parts of a step, which may lie in one another; silent until `on`."""

    now: ClassVar[Callable[[], float]] = time.perf_counter
    """Seconds since some moment; `time.process_time` counts what the processors did for this process alone."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on = device, False
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Measure a part without the parts inside it; the device is waited for at both ends."""
        if not self.on:
            yield
            return
        wait(self.device)
        started = Clock.now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            wait(self.device)
            whole = Clock.now() - started
            self.seconds[part] += whole - self._inner.pop()
            self._inner[-1] += whole

    def take(self) -> dict[str, float]:
        """The seconds so far, which then start again."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken


class Subject(Protocol):
    """Something whose speed is measured."""

    clock: Clock

    def run(self, rounds: int) -> None:
        """Do the work so many times; may return before the device is done."""


def timed(subject: Subject, rounds: int) -> float:
    """Seconds of one of so many rounds."""
    wait(subject.clock.device)
    started = Clock.now()
    subject.run(rounds)
    wait(subject.clock.device)
    return (Clock.now() - started) / rounds


def alternate(subjects: Sequence[Subject], steps: int, inner: int) -> list[list[float]]:
    """Seconds a round of each subject, `steps` times: in turn, so that what else happens meets all of them.

    Args:
        subjects: warm.
        steps: measurements of each.
        inner: rounds of a measurement.

    Raises:
        job.Stopped: on request.
    """
    seconds: list[list[float]] = [[] for _ in subjects]
    for number in range(steps):
        job.check_stop()
        order = range(len(subjects)) if number % 2 == 0 else reversed(range(len(subjects)))
        for index in order:
            seconds[index].append(timed(subjects[index], inner))
    return seconds


def parts_of(subject: Subject, steps: int) -> dict[str, float]:
    """Median milliseconds of each part of a round; `host` is what lies in no part."""
    rows = []
    subject.clock.on = True
    for _ in range(steps):
        subject.clock.take()
        whole = timed(subject, 1)
        row = subject.clock.take()
        rows.append({**row, "host": whole - sum(row.values())})
    subject.clock.on = False
    return {name: 1e3 * statistics.median(row.get(name, 0.0) for row in rows) for name in rows[0]}


def peak_memory(device: torch.device) -> int:
    """Bytes: peak of a device since `fresh`, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def fresh(device: torch.device) -> None:
    """Before subjects are made: those of before are gone, and the peak of memory is counted anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
