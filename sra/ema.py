"""Exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from sra.config import EmaConfig


def decay_at(config: EmaConfig, step: int) -> float:
    """Decay of optimizer step `step`, counted from 0."""
    return config.decay if config.schedule == "constant" else min(config.decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, config: EmaConfig, step: int) -> None:
    """average = decay * average + (1 - decay) * model, over every parameter (a few fused kernels, no loop)."""
    decay = decay_at(config, step)
    mine: list[torch.Tensor] = list(average.parameters())
    theirs: list[torch.Tensor] = list(model.parameters())
    torch._foreach_mul_(mine, decay)
    torch._foreach_add_(mine, theirs, alpha=1 - decay)
