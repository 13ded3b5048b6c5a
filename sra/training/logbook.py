"""Log of a training run: one JSON line per logged step, TensorBoard and Weights & Biases, warnings."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator
from pynvml import NVMLError

from sra.common.errors import ConfigError
from sra.common.files import write_bytes
from sra.training.losses import StepLosses

LOG_FILE = "log.jsonl"
PROJECT = "sra-bench"
NO_TENSORFLOW = "tensorboard.compat.notf"
SMOOTHING = 0.9
"""Decay of the averages of logged numbers."""
LOSS_RATIO = 1.5
"""Average alignment loss over its lowest value from which it counts as diverging."""
NORM_RATIO = 3.0
"""Average norm of features over its value after half as many log lines from which it counts as diverging: more than
growth in proportion to the steps."""
MIN_ROWS = 20
"""Log lines before divergence counts: the loss of an untrained head jumps."""
WATCHED = {
    "alignment": "alignment loss",
    "student_norm": "norm of the student's features",
    "teacher_norm": "norm of the teacher's features",
}
"""Numbers of the log that must not run away."""
MIN_LOSS_SCALE = 1.0
"""fp16 loss scale below which gradients underflow."""


def reset_memory_peak(device: torch.device) -> None:
    """Restart the measurement of `memory_peak`: a process may train several runs."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)


def memory_peak(device: torch.device) -> dict[str, int]:
    """`memory_bytes`, the peak of tensor memory on this process's GPU; empty on a CPU.

    The peak of a CPU process would count its libraries, its loader and every run before this one.
    """
    return {"memory_bytes": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}


def power_draw(device: torch.device) -> dict[str, float]:
    """`watts` that this process's GPU draws; empty where none is reported, as on a CPU."""
    if device.type != "cuda":
        return {}
    try:
        return {"watts": torch.cuda.power_draw(device) / 1000}
    except (RuntimeError, NVMLError):
        return {}


def mean_losses(losses: list[StepLosses], accelerator: Accelerator) -> dict[str, float | None]:
    """Means over the global batch of a step; every process calls this."""
    rows = [
        {
            "loss": part.total,
            "generation": part.generation.mean(),
            "alignment": None if part.alignment is None else part.alignment.mean(),
            "student_norm": part.student_norm,
            "teacher_norm": part.teacher_norm,
        }
        for part in losses
    ]
    names = [name for name, value in rows[0].items() if value is not None]
    values = [[value.detach().float() for value in row.values() if value is not None] for row in rows]
    own = torch.stack([torch.stack(row) for row in values]).mean(0)
    # One wait for the device, however many there are.
    means = dict(zip(names, accelerator.reduce(own, "mean").tolist(), strict=True))
    return {**means, "alignment": means.get("alignment")}


class Trend:
    """A number of the log, smoothed."""

    def __init__(self) -> None:
        self.averages: list[float] = []
        self.lowest = math.inf

    def add(self, value: float) -> float:
        """Return the average after a new row."""
        before = self.averages[-1] if self.averages else value
        self.averages.append(SMOOTHING * before + (1 - SMOOTHING) * value)
        if len(self.averages) >= MIN_ROWS:
            self.lowest = min(self.lowest, self.averages[-1])
        return self.averages[-1]


class LossWatch:
    """Warnings from rows of the log; they depend on the rows only, so that a continued run warns the same."""

    def __init__(self) -> None:
        self.trends = {name: Trend() for name in WATCHED}
        self.diverging = self.collapsed = False

    def warnings(self, row: dict[str, Any]) -> list[str]:
        """Warnings about a new row, each once until its cause is over."""
        found, scale = [], row.get("loss_scale")
        values = {n: row[n] for n in WATCHED if row.get(n) is not None and math.isfinite(row[n])}
        causes = [cause for name, value in values.items() if (cause := self._cause(name, value))]
        if causes and not self.diverging:
            now = ", ".join(f"{WATCHED[name]} {value:.4g}" for name, value in values.items())
            found.append(f"step {row['step']}: training may be diverging: {'; '.join(causes)}; now: {now}")
        self.diverging = bool(causes)
        if scale is not None:
            if scale < MIN_LOSS_SCALE and not self.collapsed:
                found.append(f"step {row['step']}: the fp16 loss scale has collapsed to {scale:.4g}")
            self.collapsed = scale < MIN_LOSS_SCALE
        return found

    def _cause(self, name: str, value: float) -> str:
        """Why a number runs away, in words; empty if it does not. Losses that are never positive are bounded."""
        trend = self.trends[name]
        average = trend.add(value)
        ratio, before, when = LOSS_RATIO, trend.lowest, "its lowest"
        if name != "alignment":
            rows = len(trend.averages)
            ratio, when = NORM_RATIO, "that after half as many log lines,"
            before = trend.averages[rows // 2 - 1] if rows >= MIN_ROWS else math.inf
        if not average >= ratio * before > 0:
            return ""
        return f"average {WATCHED[name]} {average:.4g}, at least {ratio:g} times {when} {before:.4g}"


def _row(line: str) -> dict[str, Any] | None:
    """A line of the log; None for one that was cut short or damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return row if all(isinstance(row.get(name) or 0, (int, float)) for name in (*WATCHED, "loss_scale")) else None


class LogBook:
    """Log file of a run; only the main process writes it."""

    def __init__(self, out: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = out / LOG_FILE, accelerator
        self.watch = LossWatch()
        self.last = 0

    def truncate(self, step: int) -> None:
        """Drop the lines after a step, which a continued run writes again."""
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
        kept = [(line, row) for line in text.splitlines() if (row := _row(line)) is not None and row["step"] <= step]
        write_bytes(self.path, "".join(f"{line}\n" for line, _ in kept).encode())
        for _, row in kept:
            self.last = row["step"]
            self.watch.warnings(row)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, send it to the trackers, and print warnings about it; not of a step that is logged already."""
        if row["step"] <= self.last:
            return
        self.last = row["step"]
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        numbers = {name: value for name, value in row.items() if value is not None and name != "step"}
        self.accelerator.log(numbers, step=row["step"])
        for warning in self.watch.warnings(row):
            print(f"warning: {warning}", flush=True)


def check_trackers(names: tuple[str, ...]) -> None:
    """Check that the packages of the trackers are installed; the suite does not depend on them.

    Raises:
        ConfigError: the first that is missing.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"train.trackers: {name} needs the Python package {name!r}, which is not installed")


def start_trackers(accelerator: Accelerator, names: tuple[str, ...], out: Path) -> None:
    """Open the trackers of a run; a continued run appends to the same record.

    Args:
        accelerator: made with `log_with=names` and `project_dir=out`.
        names: trackers to open.
        out: stage folder, whose name becomes the name of the record.
    """
    if not names:
        return
    # TensorBoard imports TensorFlow if it is installed; with this module present it uses its own stand-in.
    sys.modules.setdefault(NO_TENSORFLOW, ModuleType(NO_TENSORFLOW))
    mode = os.environ.get("WANDB_MODE", "offline")
    wandb = {"id": out.name, "name": out.name, "resume": "allow", "dir": str(out), "mode": mode}
    accelerator.init_trackers(PROJECT, init_kwargs={"wandb": wandb} if "wandb" in names else {})


def finish_trackers(accelerator: Accelerator) -> None:
    """Close the open trackers."""
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []
