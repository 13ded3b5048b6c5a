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

from sra.common.errors import ConfigError
from sra.common.files import write_bytes
from sra.training.losses import StepLosses

LOG_FILE = "log.jsonl"
PROJECT = "sra-bench"
NO_TENSORFLOW = "tensorboard.compat.notf"
SMOOTHING = 0.9
"""Decay of the average of the logged alignment loss."""
DIVERGING_RATIO = 1.5
"""Average alignment loss over its lowest value from which it counts as diverging."""
MIN_ROWS = 20
"""Log lines before divergence counts: the loss of an untrained head jumps."""
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


class LossWatch:
    """Warnings from rows of the log; they depend on the rows only, so that a continued run warns the same."""

    def __init__(self) -> None:
        self.rows = 0
        self.average: float | None = None
        self.lowest = math.inf
        self.diverging = self.collapsed = False

    def warnings(self, row: dict[str, Any]) -> list[str]:
        """Warnings about a new row, each once until its cause is over."""
        found = []
        alignment, scale = row.get("alignment"), row.get("loss_scale")
        if alignment is not None and math.isfinite(alignment) and self._begins_to_diverge(alignment):
            found.append(
                f"step {row['step']}: alignment loss {alignment:.4g} may be diverging: its average {self.average:.4g} "
                f"is at least {DIVERGING_RATIO} times its lowest {self.lowest:.4g}"
            )
        if scale is not None:
            if scale < MIN_LOSS_SCALE and not self.collapsed:
                found.append(f"step {row['step']}: the fp16 loss scale has collapsed to {scale:.4g}")
            self.collapsed = scale < MIN_LOSS_SCALE
        return found

    def _begins_to_diverge(self, alignment: float) -> bool:
        self.rows += 1
        before = alignment if self.average is None else self.average
        self.average = SMOOTHING * before + (1 - SMOOTHING) * alignment
        if self.rows >= MIN_ROWS:
            self.lowest = min(self.lowest, self.average)
        was, self.diverging = self.diverging, self.average >= DIVERGING_RATIO * self.lowest
        return self.diverging and not was


def _row(line: str) -> dict[str, Any] | None:
    """A line of the log; None for one that was cut short or damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return row if all(isinstance(row.get(name) or 0, (int, float)) for name in ("alignment", "loss_scale")) else None


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
