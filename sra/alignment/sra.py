"""SRA: align the student's block m, through a head, with the teacher's block n at a less noisy time (2505.02831)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from sra.alignment.base import Alignment, Batch, Terms, project, student_pass, teacher_context
from sra.alignment.distances import DISTANCES
from sra.config import SraSettings
from sra.model.transformer import DiffusionTransformer, Head, Shape


class SelfRepresentation(Alignment):
    """The loss of SRA."""

    settings: SraSettings

    def head(self, shape: Shape) -> nn.Module | None:
        """SRA's projection, if the settings ask for it."""
        return Head(shape.width) if self.settings.head else None

    def weight(self, epoch: float) -> float:
        """The loss weight; `public-code` decays tenfold per 1000 epochs from 149 (256 px) or per 800 from 99 (512 px).

        Epochs are whole there: the weight changes between two passes over the data.
        """
        if self.settings.weight_schedule == "constant":
            return self.settings.weight
        start, span = (99, 800) if self.resolution >= 512 else (149, 1000)
        return self.settings.weight * math.pow(0.1, max(math.floor(epoch) - start, 0) / span)

    def step(self, student: DiffusionTransformer, teacher: DiffusionTransformer | None, batch: Batch) -> Terms:
        """The teacher sees the same x, noise and labels (after dropout) at a less noisy time."""
        settings, objective = self.settings, batch.objective
        assert settings.blocks is not None
        assert teacher is not None
        m, n = settings.blocks
        generation, hidden = student_pass(student, batch, m)
        with teacher_context(settings.teacher_precision, batch.x.device.type):
            t = self._teacher_time(batch)
            target = teacher.hidden(objective.corrupt(batch.x, batch.noise, t), t, batch.y, block=n)
        alignment = DISTANCES[settings.distance](project(student, hidden).float(), target.float())
        return Terms(generation=generation, alignment=alignment, student=hidden, teacher=target)

    def _teacher_time(self, batch: Batch) -> Tensor:
        interval = self.settings.interval
        uniform = None if interval.random is None else batch.randoms.uniform("align.time")
        return batch.objective.teacher_time(batch.t, interval.span, uniform)
