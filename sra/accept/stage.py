"""What all stages share: the options, the file of findings, timing of single operations."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sra.accept.record import Finding
from sra.common.errors import UserError
from sra.perf.results import Result
from sra.perf.timing import time_rounds


class NotTested(UserError):  # noqa: N818 - a result, not an error
    """A stage cannot be tested here; the message says what it needs."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage in its process."""

    name: str
    device: torch.device
    model: str
    """SIZE/PATCH of the network that speeds are measured with."""
    resolution: int
    batches: tuple[int, ...]
    """Images per device in training, the usual one first."""
    golden: Path
    """Folder of golden numbers."""
    folder: Path
    """For temporary files; where runs will be written."""
    lines: Path
    """Findings so far."""

    @property
    def gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def _write(self, kind: str, value: Any) -> None:
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps([kind, value]) + "\n")

    def note(
        self, name: str, value: float | int | str | None, unit: str = "", ok: bool | None = None, note: str = ""
    ) -> None:
        """Record and print a finding."""
        finding = Finding(name=name, value=value, unit=unit, ok=ok, note=note)
        self._write("finding", dataclasses.asdict(finding))
        print(finding.text(), flush=True)

    def result(self, result: Result) -> None:
        """Record a measured speed."""
        self._write("result", dataclasses.asdict(result))

    def not_tested(self, reason: str) -> None:
        """Record why the stage cannot be tested."""
        self._write("not tested", reason)
        print(f"    not tested: {reason}", flush=True)

    def attempt(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        """Run a part; an error of it is a failed check, and the stage goes on."""
        try:
            work(*arguments)
        except (RuntimeError, UserError) as error:  # RuntimeError: whatever CUDA, cuDNN or a compiler reports
            lines = str(error).strip().splitlines()
            self.note(name, type(error).__name__, ok=False, note=lines[0][:200] if lines else "")


CALLS, REPEATS = 5, 7
"""Calls of a measurement, and measurements, of `milliseconds`."""


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Median milliseconds of one call, which is warmed up here."""

    def run(calls: int) -> None:
        for _ in range(calls):
            work()

    run(2)
    return 1e3 * statistics.median(time_rounds(run, device, CALLS) for _ in range(REPEATS))


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    a, b = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((a - b).norm() / b.norm())
