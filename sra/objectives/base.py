"""The interface of a training objective."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sra.runtime.random_streams import RandomSource


class Objective(Protocol):
    """How a family noises latents, and what its network's prediction is compared with."""

    def draw(self, randoms: RandomSource, stream: str = "t") -> Tensor:
        """Times (N,) from a stream of random numbers."""

    def corrupt(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t (N, C, H, W) of clean latents and noise at times t (N,); SiT also takes a time per cell (N, 1, H, W)."""

    def loss(self, prediction: Tensor, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Loss per sample (N,) of the network's raw prediction at t."""

    def teacher_time(self, t: Tensor, span: float, uniform: Tensor | None) -> Tensor:
        """Teacher's times, of t's shape: t - U span, or t - span if `uniform` is None, inside the family's range."""
