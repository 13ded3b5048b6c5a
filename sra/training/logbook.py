"""The log of a training run: one JSON line a logged step, means over all processes, trackers, warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sra.common.files import write_bytes
from sra.runtime.job import say
from sra.training.loss_guard import Watch
from sra.training.module import StepLosses

NAME = "log.jsonl"


def watch_memory(device: torch.device) -> None:
    """Start `memory_of` anew: a process may train one run after another."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_of(device: torch.device) -> dict[str, int]:
    """`memory_bytes`: the most that tensors have taken up on this process's GPU.

    Nothing on a CPU: the peak of a process counts its libraries, its loader and every run before this one.
    """
    return {"memory_bytes": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}


class Tally:
    """Losses of the current step's forward passes; nothing is read from the device before the step is logged."""

    def __init__(self) -> None:
        self.step = -1
        self.parts: list[StepLosses] = []

    def add(self, step: int, losses: StepLosses) -> None:
        """Take the losses of one forward pass of a step."""
        if step != self.step:
            self.step, self.parts = step, []
        self.parts.append(losses)

    def means(self, accelerator: Accelerator) -> dict[str, float | None]:
        """Means over the global batch of the last step: called by all processes."""
        rows = [
            [p.total, p.generation.mean(), p.total if p.alignment is None else p.alignment.mean()] for p in self.parts
        ]
        mine = torch.stack([torch.stack([value.detach().float() for value in row]) for row in rows]).mean(0)
        loss, generation, alignment = accelerator.reduce(mine, "mean").tolist()
        aligned = self.parts[0].alignment is not None
        return {"loss": loss, "generation": generation, "alignment": alignment if aligned else None}


class LogBook:
    """Written by the first process only."""

    def __init__(self, out: Path, accelerator: Accelerator) -> None:
        self.path, self.accelerator = out / NAME, accelerator
        self.watch = Watch()

    def cut(self, step: int) -> None:
        """Drop the lines after a step: a continued run writes them again."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_bytes(self.path, "".join(f"{line}\n" for line in kept).encode())
        for line in kept:
            self.watch.look(json.loads(line))

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, hand it to the trackers, and say what is suspicious about it."""
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        numbers = {name: value for name, value in row.items() if value is not None and name != "step"}
        self.accelerator.log(numbers, step=row["step"])
        for warning in self.watch.look(row):
            say(f"warning: {warning}")
