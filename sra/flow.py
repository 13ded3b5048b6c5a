"""SiT's objective: an interpolant between data (t = 0) and noise (t = 1), and its velocity (SiT paper, section 2)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Path = Literal["linear", "cosine"]


def coefficients(path: Path, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha_t, sigma_t and their derivatives in t, each of t's shape."""
    if path == "linear":
        one = torch.ones_like(t)
        return 1 - t, t, -one, one
    quarter = math.pi / 2
    cos, sin = torch.cos(quarter * t), torch.sin(quarter * t)
    return cos, sin, -quarter * sin, quarter * cos


def interpolate(path: Path, x: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t = alpha x + sigma n and the target velocity; x and noise are (N, C, H, W), t is (N,)."""
    alpha, sigma, d_alpha, d_sigma = (c.view(-1, 1, 1, 1) for c in coefficients(path, t))
    return alpha * x + sigma * noise, d_alpha * x + d_sigma * noise


def score_from_velocity(path: Path, v: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The score of p_t from its velocity: ((alpha/alpha') v - x) / (sigma^2 - (alpha/alpha') sigma' sigma)."""
    alpha, sigma, d_alpha, d_sigma = coefficients(path, t)
    ratio = alpha / d_alpha
    return (ratio * v - x) / (sigma**2 - ratio * d_sigma * sigma)


def draw_times(kind: Literal["uniform", "lognormal"], path: Path, uniform: Tensor, normal: Tensor) -> Tensor:
    """Times (N,) from uniform or normal numbers (N,)."""
    if kind == "uniform":
        return uniform
    s = normal.exp()
    return s / (1 + s) if path == "linear" else 2 / math.pi * torch.atan(s)
