"""What must not spoil a run unseen: losses and gradients that are not finite, a collapsing scale, a diverging loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sra.common.errors import UserError
from sra.training.module import StepLosses

SMOOTHING = 0.9
"""Decay of the average of the logged alignment loss."""
RISE = 1.5
"""Alignment loss over its lowest average that counts as diverging."""
SETTLED = 20
"""Log lines before a rise counts: the loss of an untrained head jumps."""
LEAST_SCALE = 1.0
"""An fp16 loss scale below this no longer scales up: gradients underflow."""


class NonFiniteError(UserError):
    """A loss or gradient that is not a number: training stopped before the optimizer's step."""


def describe(parts: Sequence[StepLosses], norm: float, module: nn.Module) -> str:
    """Which part of a step is not finite, with its statistics.

    Args:
        parts: losses of the step's forward passes in this process.
        norm: of the gradient, over all processes.
        module: whose gradients they are.
    """
    generation = torch.cat([losses.generation.detach().flatten() for losses in parts])
    found = [losses.alignment.detach().flatten() for losses in parts if losses.alignment is not None]
    alignment = torch.cat(found) if found else None
    numbers = f"generation loss {_statistics(generation)}"
    if alignment is not None:
        numbers += f"; alignment loss {_statistics(alignment)}"
    if not bool(generation.isfinite().all()):
        part = "generation loss"
    elif alignment is not None and not bool(alignment.isfinite().all()):
        part = "alignment loss"
    else:
        part = "gradient"
    return f"{part} is not finite: {numbers}; gradient norm {norm:.4g}{_spoilt(module)}"


def _statistics(values: Tensor) -> str:
    finite = values[values.isfinite()].float()
    lost = len(values) - len(finite)
    if not len(finite):
        return f"of {lost} values, none finite"
    spoilt = f", {lost} of {len(values)} not finite" if lost else ""
    return f"{finite.mean():.4g} in [{finite.min():.4g}, {finite.max():.4g}]{spoilt}"


def _spoilt(module: nn.Module) -> str:
    """The first parameter whose gradient is not finite, and how many there are."""
    named = [(name, p.grad) for name, p in module.named_parameters() if p.grad is not None]
    bad = [name for name, gradient in named if not bool(gradient.isfinite().all())]
    return f", not finite in {len(bad)} of {len(named)} parameters, first {bad[0]}" if bad else ""


class Watch:
    """Warnings from the rows of the log: a function of the rows, so that a continued run warns the same."""

    def __init__(self) -> None:
        self.rows = 0
        self.average: float | None = None
        self.lowest = math.inf
        self.rising = self.collapsed = False

    def look(self, row: dict[str, Any]) -> list[str]:
        """Warnings that a new row gives rise to, each once until the trouble is over."""
        warnings = []
        alignment, scale = row.get("alignment"), row.get("loss_scale")
        if alignment is not None and math.isfinite(alignment) and self._diverges(alignment):
            warnings.append(
                f"step {row['step']}: alignment loss {alignment:.4g}, its average {self.average:.4g} is "
                f"{RISE} times its lowest {self.lowest:.4g} or more: it may be diverging"
            )
        if scale is not None:
            if scale < LEAST_SCALE and not self.collapsed:
                warnings.append(f"step {row['step']}: the fp16 loss scale has collapsed to {scale:.4g}")
            self.collapsed = scale < LEAST_SCALE
        return warnings

    def _diverges(self, alignment: float) -> bool:
        """Whether this value begins a rise."""
        self.rows += 1
        before = alignment if self.average is None else self.average
        self.average = SMOOTHING * before + (1 - SMOOTHING) * alignment
        if self.rows >= SETTLED:
            self.lowest = min(self.lowest, self.average)
        was, self.rising = self.rising, self.average >= RISE * self.lowest
        return self.rising and not was
