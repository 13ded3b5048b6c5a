"""Timing: several subjects measured in turn, and the parts of a round."""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import torch

from sra.runtime import job


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Seconds of named, possibly nested parts of a round; does nothing unless `on`."""

    now: ClassVar[Callable[[], float]] = time.perf_counter
    """Current time in seconds: wall clock, or `time.process_time` for the processor time of this process."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on = device, False
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def time_method(self, owner: object, method: str, part: str) -> None:
        """Count the calls of an object's method as a part."""
        function = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(part):
                return function(*args, **kwargs)

        setattr(owner, method, timed)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time a part without the parts inside it, waiting for the device at both ends."""
        if not self.on:
            yield
            return
        synchronize(self.device)
        started = Clock.now()
        self._inner.append(0.0)
        try:
            yield
        finally:
            synchronize(self.device)
            whole = Clock.now() - started
            self.seconds[part] += whole - self._inner.pop()
            self._inner[-1] += whole


class Subject(Protocol):
    """Something to be measured."""

    clock: Clock

    def run(self, rounds: int) -> None:
        """Do the work a number of times; may return before the device has finished."""


def time_rounds(run: Callable[[int], None], device: torch.device, rounds: int) -> float:
    """Mean seconds of a round, of work that is done a number of times."""
    synchronize(device)
    started = Clock.now()
    run(rounds)
    synchronize(device)
    return (Clock.now() - started) / rounds


def time_in_turn(subjects: Sequence[Subject], steps: int, rounds: int) -> list[list[float]]:
    """Seconds of a round of each subject, measured in turn so that other load on the machine meets all of them.

    Args:
        subjects: warmed up.
        steps: measurements of each.
        rounds: rounds per measurement.

    Raises:
        Stopped: on request.
    """
    seconds: list[list[float]] = [[] for _ in subjects]
    for number in range(steps):
        job.check_stop()
        order = range(len(subjects)) if number % 2 == 0 else reversed(range(len(subjects)))
        for index in order:
            subject = subjects[index]
            seconds[index].append(time_rounds(subject.run, subject.clock.device, rounds))
    return seconds


def time_parts(subject: Subject, steps: int) -> dict[str, float]:
    """Median milliseconds of each part of a round; `host` is the rest."""
    rows = []
    subject.clock.on = True
    for _ in range(steps):
        subject.clock.seconds.clear()
        whole = time_rounds(subject.run, subject.clock.device, 1)
        row = dict(subject.clock.seconds)
        rows.append({**row, "host": whole - sum(row.values())})
    subject.clock.on = False
    return {name: 1e3 * statistics.median(row.get(name, 0.0) for row in rows) for name in rows[0]}


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of a GPU since `free_memory`, of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(device: torch.device) -> None:
    """Free the memory of earlier subjects and restart the measurement of the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
