"""Exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sra.config import EmaConfig


def decay_at(config: EmaConfig, step: int) -> float:
    """Decay of optimizer step `step`, counted from 0."""
    return config.decay if config.schedule == "constant" else min(config.decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(
    average: nn.Module,
    model: nn.Module,
    config: EmaConfig,
    step: int,
    *,
    loop: bool = False,
    hold: Tensor | None = None,
) -> None:
    """average = decay * average + (1 - decay) * model, over every parameter.

    Args:
        average: the same network as `model`.
        model: whose optimizer step `step` is done.
        config: decay and its schedule.
        step: counted from 0.
        loop: one parameter after the other in Python, not all in a few calls (equal to the bit).
        hold: a flag () on the device that keeps the average as it is, without asking the device now.
    """
    decay = decay_at(config, step)
    mine: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(model.parameters())
    if hold is not None:
        # A lerp by 0 changes no bit; it also reads and writes the average once, not twice.
        weight = torch.where(hold, 0.0, 1 - decay)
        torch._foreach_lerp_(mine, theirs, [weight] * len(mine))
    elif loop:
        for a, b in zip(mine, theirs, strict=True):
            a.mul_(decay).add_(b, alpha=1 - decay)
    else:
        torch._foreach_mul_(mine, decay)
        torch._foreach_add_(mine, theirs, alpha=1 - decay)
