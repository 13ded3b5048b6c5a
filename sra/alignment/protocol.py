"""What training asks of an alignment, and what it gives to one."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

from sra.model.transformer import DiffusionTransformer, Shape
from sra.runtime.random_streams import RandomSource

if TYPE_CHECKING:
    from sra.training.module import Objective


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step starts from: the same numbers whether there is an alignment or not."""

    x: Tensor
    """(N, C, H, W) clean latents, scaled."""
    noise: Tensor
    """(N, C, H, W) standard normal."""
    t: Tensor
    """(N,) times."""
    labels: Tensor
    """(N,) labels before dropout."""
    y: Tensor
    """(N,) labels after dropout."""
    objective: Objective
    """Of the family: corruption, loss, cleaner times."""
    randoms: RandomSource
    """Where more random numbers come from; names of streams start with `align.`."""


class Alignment(Protocol):
    """One way of aligning the student's features, as `AlignSettings.build` gives it."""

    def head(self, shape: Shape) -> nn.Module | None:
        """A module for training only, kept as `ap_head` of the network; None: no head."""

    def step(
        self, student: DiffusionTransformer, teacher: DiffusionTransformer | None, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Generation loss (N,) and alignment loss (any shape; its mean is weighted)."""

    def weight(self, epoch: float) -> float:
        """Weight of the alignment loss after `epoch` passes over the data."""


def teaching(precision: Literal["autocast", "fp32"], device: str) -> AbstractContextManager[object]:
    """No gradients; `fp32` leaves autocast too, as the public code's teacher does."""
    stack = ExitStack()
    stack.enter_context(torch.no_grad())
    if precision == "fp32":
        stack.enter_context(torch.autocast(device, enabled=False))
    return stack


def projected(student: DiffusionTransformer, hidden: Tensor) -> Tensor:
    """The student's features (N, T, D) through the head, where there is one."""
    out: Tensor = hidden if student.ap_head is None else student.ap_head(hidden)
    return out
