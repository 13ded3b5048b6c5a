"""The interface between training and an alignment loss."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sra.config import AlignSettings
from sra.model.transformer import DiffusionTransformer, Shape
from sra.objectives.base import Objective
from sra.runtime.random_streams import RandomSource


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs of a training step, equal with and without an alignment."""

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
    """Of the family: noising, loss, teacher's times."""
    randoms: RandomSource
    """Source of further random numbers; an alignment's stream names start with `align.`."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What an alignment computes of a batch."""

    generation: Tensor
    """(N,) loss of the family's objective per sample."""
    alignment: Tensor
    """Of any shape; its mean is weighted."""
    student: Tensor
    """(N, T, D) the student's features, before a head; their norm is logged."""
    teacher: Tensor | None = None
    """(N, T, D) features that are their target; None: the target is no block's output, or there is none."""


class Alignment:
    """A loss that aligns the student's features with a target."""

    settings: Any
    """Of the method's class; resolved for the network."""

    def __init__(self, settings: AlignSettings, resolution: int) -> None:
        """Keep the settings, and the resolution in pixels (schedules of some public code depend on it)."""
        self.settings, self.resolution = settings, resolution

    def head(self, shape: Shape) -> nn.Module | None:  # noqa: ARG002 - for those that have one
        """A module for training only, saved as `ap_head` of the network; None: no head."""
        return None

    def step(self, student: DiffusionTransformer, teacher: DiffusionTransformer | None, batch: Batch) -> Terms:
        """Losses of one batch, and the features they compare."""
        raise NotImplementedError

    def weight(self, epoch: float) -> float:  # noqa: ARG002 - constant unless a method says otherwise
        """Weight of the alignment loss after `epoch` passes over the data."""
        return float(self.settings.weight)


def student_pass(student: DiffusionTransformer, batch: Batch, *taps: int) -> tuple[Tensor, ...]:
    """One forward pass at the batch's times: generation loss (N,), then the outputs (N, T, D) of blocks from 1 on."""
    x_t = batch.objective.corrupt(batch.x, batch.noise, batch.t)
    prediction, *hidden = student(x_t, batch.t, batch.y, taps=taps)
    return batch.objective.loss(prediction, batch.x, batch.noise, batch.t), *hidden


def teacher_context(precision: Literal["autocast", "fp32"], device: str) -> AbstractContextManager[object]:
    """Disable gradients; with `fp32` autocast too, as for the teacher in the public code."""
    stack = ExitStack()
    stack.enter_context(torch.no_grad())
    if precision == "fp32":
        stack.enter_context(torch.autocast(device, enabled=False))
    return stack


def project(student: DiffusionTransformer, hidden: Tensor) -> Tensor:
    """Pass the student's features (N, T, D) through the training head, if it has one."""
    out: Tensor = hidden if student.ap_head is None else student.ap_head(hidden)
    return out
