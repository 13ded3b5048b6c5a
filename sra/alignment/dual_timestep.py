"""Dual-timestep training: tokens in two groups with a time each. The loss of `self-flow` and `dts-as`.

Group 0 is exactly a quarter of the tokens, at positions drawn per sample, with a time of its own; the rest, group 1,
has the baseline's time. Noise and label dropout are the baseline's. Self-Flow: arXiv 2603.06507. Dual timesteps with
attention separated by group: arXiv 2607.02508.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sra.alignment.base import Alignment, Batch, Terms, project, teacher_context
from sra.alignment.distances import DISTANCES
from sra.config import GROUP_0_DIVISOR, DualTimestepSettings
from sra.model.token_groups import Groups
from sra.model.transformer import DiffusionTransformer, Head, Shape


class DualTimestep(Alignment):
    """The loss of dual-timestep training."""

    settings: DualTimestepSettings

    def head(self, shape: Shape) -> nn.Module | None:
        """SRA's projection, if the settings ask for it."""
        return Head(shape.width) if self.settings.head else None

    def step(self, student: DiffusionTransformer, teacher: DiffusionTransformer | None, batch: Batch) -> Terms:
        """The student sees both groups; the teacher gets the labels before dropout."""
        settings, objective = self.settings, batch.objective
        assert settings.blocks is not None
        assert teacher is not None
        m, n = settings.blocks
        groups = draw_groups(batch, student.tokens, separated=settings.separated)
        t = torch.stack([objective.draw(batch.randoms, "align.t"), batch.t])  # (2, N)
        cells = student.per_cell(groups.per_token(t))
        x_t = objective.corrupt(batch.x, batch.noise, cells)
        prediction, hidden = student(x_t, t, batch.y, taps=(m,), groups=groups)
        with teacher_context(settings.teacher_precision, batch.x.device.type):
            target = self._target(teacher, batch, t, groups, n)
        alignment = DISTANCES[settings.distance](project(student, hidden).float(), target.float())
        generation = objective.loss(prediction, batch.x, batch.noise, cells)
        return Terms(generation=generation, alignment=alignment, student=hidden, teacher=target)

    def _target(self, teacher: DiffusionTransformer, batch: Batch, t: Tensor, groups: Groups, block: int) -> Tensor:
        """The teacher's features (N, T, D); t is (2, N)."""
        objective, lowest = batch.objective, t.amin(0)
        if self.settings.teacher == "all-at-min":
            x_t = objective.corrupt(batch.x, batch.noise, lowest)
            return teacher.hidden(x_t, lowest, batch.labels, block=block)
        noised = conditioned = lowest.expand_as(t)
        if self.settings.teacher == "own-times":
            uniform = batch.randoms.uniform("align.time", (2,)).T
            noised = conditioned = objective.teacher_time(t, self.settings.interval, uniform)
        else:
            noised = torch.stack([lowest, torch.zeros_like(lowest)])
        x_t = objective.corrupt(batch.x, batch.noise, teacher.per_cell(groups.per_token(noised)))
        return teacher.hidden(x_t, conditioned, batch.labels, block=block, groups=groups)


def draw_groups(batch: Batch, tokens: int, *, separated: bool) -> Groups:
    """Positions of the two groups, uniform per sample; group 0 has exactly a quarter of the tokens."""
    order = batch.randoms.uniform("align.group", (tokens,)).argsort(dim=1, stable=True)
    group_0 = tokens // GROUP_0_DIVISOR
    return Groups(order, (group_0, tokens - group_0), separated=separated)
