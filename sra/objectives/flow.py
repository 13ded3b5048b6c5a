"""SiT's objective: an interpolant between data (t = 0) and noise (t = 1), and its velocity (SiT paper, section 2)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from sra.runtime.random_streams import RandomSource

Path = Literal["linear", "cosine"]
Times = Literal["uniform", "lognormal"]


def coefficients(path: Path, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha_t, sigma_t and their derivatives in t, each of t's shape."""
    if path == "linear":
        one = torch.ones_like(t)
        return 1 - t, t, -one, one
    quarter = math.pi / 2
    cos, sin = torch.cos(quarter * t), torch.sin(quarter * t)
    return cos, sin, -quarter * sin, quarter * cos


def interpolate(path: Path, x: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t = alpha x + sigma n and the target velocity; x and noise are (N, C, H, W), t is (N,) or (N, 1, H, W)."""
    t = t.view(-1, 1, 1, 1) if t.ndim == 1 else t
    alpha, sigma, d_alpha, d_sigma = coefficients(path, t)
    return alpha * x + sigma * noise, d_alpha * x + d_sigma * noise


def score_from_velocity(path: Path, v: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The score of p_t from its velocity: ((alpha/alpha') v - x) / (sigma^2 - (alpha/alpha') sigma' sigma)."""
    alpha, sigma, d_alpha, d_sigma = coefficients(path, t)
    ratio = alpha / d_alpha
    return (ratio * v - x) / (sigma**2 - ratio * d_sigma * sigma)


def draw_times(kind: Times, path: Path, uniform: Tensor, normal: Tensor) -> Tensor:
    """Times (N,) from uniform or normal numbers (N,)."""
    if kind == "uniform":
        return uniform
    s = normal.exp()
    return s / (1 + s) if path == "linear" else 2 / math.pi * torch.atan(s)


class FlowObjective:
    """Velocity regression on one path; see `sra.objectives.base.Objective`."""

    def __init__(self, path: Path, times: Times) -> None:
        self.path, self.times = path, times

    def draw(self, randoms: RandomSource, stream: str = "t") -> Tensor:
        """Times (N,) in [0, 1]."""
        uniform = randoms.uniform(stream)
        normal = randoms.normal(f"{stream}.normal") if self.times == "lognormal" else uniform.new_empty(0)
        return draw_times(self.times, self.path, uniform, normal)

    def corrupt(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t (N, C, H, W); t is (N,) or, a time per cell, (N, 1, H, W)."""
        return interpolate(self.path, x, noise, t)[0]

    def loss(self, prediction: Tensor, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Mean square of predicted minus true velocity, per sample (N,)."""
        target = interpolate(self.path, x, noise, t)[1]
        return (prediction.float() - target.float()).pow(2).flatten(1).mean(1)

    def teacher_time(self, t: Tensor, span: float, uniform: Tensor | None) -> Tensor:
        """clamp(t - U span, 0, 1), or clamp(t - span, 0, 1) without random numbers; all of t's shape."""
        return (t - (span if uniform is None else uniform * span)).clamp(0, 1)
