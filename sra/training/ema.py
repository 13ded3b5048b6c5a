"""Exponential moving average (EMA) of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from sra.config import EmaConfig


def decay_at(config: EmaConfig, step: int) -> float:
    """Decay of optimizer step `step`, counted from 0."""
    return config.decay if config.schedule == "constant" else min(config.decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(
    ema: nn.Module, model: nn.Module, config: EmaConfig, step: int, *, loop: bool = False, hold: Tensor | None = None
) -> None:
    """Set ema = decay * ema + (1 - decay) * model for every parameter.

    Args:
        ema: the averaged network.
        model: the same network after optimizer step `step`.
        config: decay and its schedule.
        step: counted from 0.
        loop: update parameters one by one instead of with foreach kernels (equal to the bit).
        hold: flag () on the device that leaves the EMA unchanged, without the host waiting for it.
    """
    decay = decay_at(config, step)
    averages: list[Tensor] = list(ema.parameters())
    weights: list[Tensor] = list(model.parameters())
    if hold is not None:
        # ema + (1 - decay) (model - ema) is a step of gradient ascent; torch's fused optimizers skip a step on the
        # device (`found_inf`), and reach all parameters in a handful of kernels that read and write the EMA once.
        sgd(
            averages,
            weights,
            [None] * len(averages),
            fused=True,
            found_inf=hold.float(),
            lr=1 - decay,
            weight_decay=1.0,
            maximize=True,
            momentum=0.0,
            dampening=0.0,
            nesterov=False,
        )
    elif loop:
        for average, weight in zip(averages, weights, strict=True):
            average.mul_(decay).add_(weight, alpha=1 - decay)
    else:
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, weights, alpha=1 - decay)
