"""Distances between two block outputs (N, T, D)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

BETA = 0.05
"""Of the smooth-L1 (SRA paper, section 4)."""


def smooth_l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean over everything: a scalar."""
    return F.smooth_l1_loss(a, b, beta=BETA)


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean of |a - b|: a scalar."""
    return (a - b).abs().mean()


def l2(a: Tensor, b: Tensor) -> Tensor:
    """Mean of (a - b)^2: a scalar."""
    return (a - b).pow(2).mean()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine over channels, (N, T)."""
    return 1 - F.cosine_similarity(a, b, dim=-1)


def cosine_tokens(a: Tensor, b: Tensor) -> Tensor:
    """1 - cosine over the token axis, (N, D), as the public code computes it."""
    return 1 - F.cosine_similarity(a, b, dim=1)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "smooth-l1": smooth_l1,
    "l1": l1,
    "l2": l2,
    "cosine": cosine,
    "cosine-tokens": cosine_tokens,
}
