"""What one training step computes: the generation loss, and the alignment loss where there is an alignment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sra.alignment.distances import DISTANCES
from sra.alignment.registry import AlignSettings
from sra.alignment.sra import Settings as SraSettings
from sra.alignment.sra import teacher_time, weight_at
from sra.config import CodecConfig, ModelConfig, TrainConfig
from sra.errors import ConfigError
from sra.flow import draw_times, interpolate
from sra.network import DiffusionTransformer, build
from sra.randoms import RandomSource


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """Losses of one batch."""

    total: Tensor
    """What is differentiated: mean(generation) + weight * mean(alignment)."""
    generation: Tensor
    """(N,) mean square per sample."""
    alignment: Tensor | None
    """The distance as its paper or code reduces it; None without alignment."""
    weight: float
    """Weight of the alignment."""


class TrainingModule(nn.Module):
    """The student: network and training head, with the losses as its forward pass (so that DDP sees one call)."""

    def __init__(self, model: ModelConfig, codec: CodecConfig, train: TrainConfig, align: AlignSettings | None) -> None:
        super().__init__()
        if model.family != "sit":
            raise ConfigError("model.family: training of 'dit' is not available in this version; allowed: sit")
        if align is not None and not isinstance(align, SraSettings):
            raise ConfigError(f"align.kind {align.kind!r}: not available in this version; allowed: sra")
        self.model, self.train_config, self.align = model, train, align
        self.network = build(model, codec, head=align is not None and align.head)

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
            teacher: EMA copy, in eval mode; needed with alignment.
            epoch: for scheduled weights.
        """
        dropped = randoms.uniform("dropout") < self.train_config.label_dropout
        y = torch.where(dropped, self.network.null_label, y)
        noise = randoms.normal("noise", tuple(x.shape[1:]))
        lognormal = self.train_config.times == "lognormal"
        normal = randoms.normal("t.normal") if lognormal else noise.new_empty(0)
        t = draw_times(self.train_config.times, self.model.interpolant, randoms.uniform("t"), normal)
        x_t, target = interpolate(self.model.interpolant, x, noise, t)
        if self.align is None:
            velocity = self.network(x_t, t, y)
            generation = _mean_square(velocity, target)
            return StepLosses(total=generation.mean(), generation=generation, alignment=None, weight=0.0)
        return self._aligned(x, y, noise, t, randoms, teacher, epoch)

    def _aligned(
        self,
        x: Tensor,
        y: Tensor,
        noise: Tensor,
        t: Tensor,
        randoms: RandomSource,
        teacher: DiffusionTransformer | None,
        epoch: float,
    ) -> StepLosses:
        """SRA: block m of the student, through the head, to block n of the teacher at a cleaner time."""
        align = self.align
        assert isinstance(align, SraSettings)
        assert align.blocks is not None
        assert teacher is not None
        m, n = align.blocks
        x_t, target = interpolate(self.model.interpolant, x, noise, t)
        velocity, hidden = self.network(x_t, t, y, tap=m)
        t_teacher = teacher_time(align, t, randoms.uniform("align.time"))
        with torch.no_grad(), torch.autocast(x.device.type, enabled=_autocast(align, x)):
            cleaner, _ = interpolate(self.model.interpolant, x, noise, t_teacher)
            wanted = teacher.hidden(cleaner, t_teacher, y, block=n)
        student = self.network.ap_head(hidden) if self.network.ap_head is not None else hidden
        alignment = DISTANCES[align.distance](student.float(), wanted.float())
        generation = _mean_square(velocity, target)
        weight = weight_at(align, epoch, self.model.resolution)
        total = generation.mean() + weight * alignment.mean()
        return StepLosses(total=total, generation=generation, alignment=alignment, weight=weight)


def _autocast(align: SraSettings, x: Tensor) -> bool:
    """The teacher runs as the student does, unless the public code's choice is asked for."""
    return align.teacher_precision == "autocast" and torch.is_autocast_enabled(x.device.type)


def _mean_square(a: Tensor, b: Tensor) -> Tensor:
    return (a.float() - b.float()).pow(2).flatten(1).mean(1)


def needs_teacher(align: AlignSettings | None) -> bool:
    """Whether training needs the EMA network's block outputs."""
    return isinstance(align, SraSettings)
