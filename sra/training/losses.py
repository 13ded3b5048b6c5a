"""Losses of one training step: the generation loss and, with an alignment, the alignment loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sra.alignment import build_alignment
from sra.alignment.base import Batch
from sra.config import AlignSettings, CodecConfig, ModelConfig, TrainConfig
from sra.model.transformer import DiffusionTransformer, build
from sra.objectives.base import Objective
from sra.objectives.ddpm import DiffusionObjective
from sra.objectives.flow import FlowObjective
from sra.runtime.random_streams import RandomSource


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """Losses of one batch."""

    total: Tensor
    """What is differentiated: mean(generation) + weight * mean(alignment)."""
    generation: Tensor
    """(N,) loss of the family's objective per sample."""
    alignment: Tensor | None
    """The distance as its paper or code reduces it; None without alignment."""
    weight: float
    """Weight of the alignment."""
    student_norm: Tensor | None = None
    """Mean over samples and tokens of the norm over channels of the student's aligned features."""
    teacher_norm: Tensor | None = None
    """The same of their target, where that is a block's output."""


def objective_of(model: ModelConfig, train: TrainConfig) -> Objective:
    """The objective of the settings."""
    return DiffusionObjective() if model.family == "dit" else FlowObjective(model.interpolant, train.times)


class TrainingModule(nn.Module):
    """The student: network and training head, with the losses as its forward pass (so that DDP sees one call)."""

    def __init__(self, model: ModelConfig, codec: CodecConfig, train: TrainConfig, align: AlignSettings | None) -> None:
        super().__init__()
        self.train_config = train
        self.objective = objective_of(model, train)
        self.network = build(model, codec)
        self.alignment = None if align is None else build_alignment(align, model.resolution)
        if self.alignment is not None:
            self.network.ap_head = self.alignment.head(self.network.shape)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        randoms: RandomSource,
        teacher: DiffusionTransformer | None,
        epoch: float = 0.0,
    ) -> StepLosses:
        """Losses of a batch of clean latents.

        Args:
            x: (N, C, H, W) clean latents, scaled.
            y: (N,) labels before dropout.
            randoms: source of t, noise and dropout; an alignment draws from streams of its own, so that runs with
                and without one see the same numbers.
            teacher: EMA copy, in eval mode; needed with an alignment that has a teacher.
            epoch: for scheduled weights.
        """
        batch = self._batch(x, y, randoms)
        if self.alignment is None:
            x_t = self.objective.corrupt(batch.x, batch.noise, batch.t)
            generation = self.objective.loss(self.network(x_t, batch.t, batch.y), batch.x, batch.noise, batch.t)
            return StepLosses(total=generation.mean(), generation=generation, alignment=None, weight=0.0)
        terms = self.alignment.step(self.network, teacher, batch)
        weight = self.alignment.weight(epoch)
        return StepLosses(
            total=terms.generation.mean() + weight * terms.alignment.mean(),
            generation=terms.generation,
            alignment=terms.alignment,
            weight=weight,
            student_norm=mean_norm(terms.student),
            teacher_norm=None if terms.teacher is None else mean_norm(terms.teacher),
        )

    def _batch(self, x: Tensor, labels: Tensor, randoms: RandomSource) -> Batch:
        dropped = randoms.uniform("dropout") < self.train_config.label_dropout
        return Batch(
            x=x,
            noise=randoms.normal("noise", tuple(x.shape[1:])),
            t=self.objective.draw(randoms),
            labels=labels,
            y=torch.where(dropped, self.network.null_label, labels),
            objective=self.objective,
            randoms=randoms,
        )


def mean_norm(features: Tensor) -> Tensor:
    """Mean over samples and tokens of the norm over channels of features (N, T, D); a scalar without gradient."""
    norms: Tensor = torch.linalg.vector_norm(features.detach(), dim=-1, dtype=torch.float32)
    return norms.mean()


def needs_teacher(align: AlignSettings | None) -> bool:
    """Whether training needs the EMA network's block outputs."""
    return align is not None and align.needs_teacher
