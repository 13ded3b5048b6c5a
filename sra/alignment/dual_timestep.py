"""Dual-timestep training: tokens in two groups with a time each. What `self-flow` and `dts-as` share.

Group 0 is exactly a quarter of the tokens, at positions drawn per sample; the rest, group 1, keeps the time that the
baseline would have drawn, and group 0 draws one of its own. Noise and label dropout are the baseline's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from sra.alignment.registry import AlignSettings, NetworkFacts, check_blocks, check_weight
from sra.alignment.sra import BLOCKS, Distance
from sra.common.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sra.alignment.protocol import Batch
    from sra.model.token_groups import Groups
    from sra.model.transformer import DiffusionTransformer, Shape

PARTS = 4
"""One part of so many is group 0."""

Teacher = Literal["all-at-min", "own-times", "min-and-clean"]


@dataclass(frozen=True, kw_only=True)
class DualTimestepSettings(AlignSettings):
    """Settings of both; what differs are the defaults of `teacher` and `separated`."""

    blocks: tuple[int, int] | None = None
    """[m, n]: the student's and the teacher's block, counted from 1, m <= n; default by model size, as SRA's."""
    teacher: Teacher = "all-at-min"
    """`all-at-min`: all tokens at min(t), no groups. `own-times`: the grouping, each group at its own t - U * interval.
    `min-and-clean`: the grouping, group 0 at min(t), group 1 clean, both conditioned at min(t)."""
    separated: bool = False
    """Whether attention stays inside a group during training, for a teacher that keeps the grouping too."""
    interval: float = 0.2
    """Of `own-times`: largest difference of the teacher's time, drawn per group and sample."""
    distance: Distance = "cosine-tokens"
    """The public code's cosine over the token axis, which its rows used."""
    weight: float = 0.5
    """Weight of the alignment loss, constant."""
    head: bool = True
    """Whether the student's output goes through SRA's head."""
    teacher_precision: Literal["autocast", "fp32"] = "autocast"
    """`fp32`: the teacher runs outside autocast."""

    def __post_init__(self) -> None:
        if not 0 <= self.interval <= 1:
            raise ConfigError(f"interval must lie in [0, 1], found {self.interval}")
        check_weight(self.weight)

    def resolved(self, network: NetworkFacts) -> Self:
        """See the base class."""
        if network.family != "sit":
            raise ConfigError(f"align.kind {self.kind!r} is defined for family 'sit', found {network.family!r}")
        if network.tokens % PARTS:
            raise ConfigError(
                f"align.kind {self.kind!r} needs a quarter of the tokens to be a whole number, found {network.tokens}"
            )
        return replace(self, blocks=check_blocks(self.blocks or BLOCKS["sit"].get(network.size), network))

    def build(self, resolution: int) -> DualTimestep:  # noqa: ARG002 - the weight is constant
        """See the base class."""
        return DualTimestep(self)


class DualTimestep:
    """See the module; an `Alignment`."""

    def __init__(self, settings: DualTimestepSettings) -> None:
        self.settings = settings

    def head(self, shape: Shape) -> nn.Module | None:
        """SRA's projection, unless the settings say no."""
        from sra.model.transformer import Head

        return Head(shape.width) if self.settings.head else None

    def weight(self, epoch: float) -> float:  # noqa: ARG002 - constant in the public code
        """See the settings."""
        return self.settings.weight

    def step(
        self, student: DiffusionTransformer, teacher: DiffusionTransformer | None, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """The student sees both groups; the teacher gets the labels before dropout."""
        from sra.alignment.distances import DISTANCES
        from sra.alignment.protocol import projected, teaching

        settings, objective = self.settings, batch.objective
        assert settings.blocks is not None
        assert teacher is not None
        m, n = settings.blocks
        groups = draw_groups(batch, student.tokens, separated=settings.separated)
        t = both_times(batch)
        cells = student.per_cell(groups.per_token(t))
        x_t = objective.corrupt(batch.x, batch.noise, cells)
        prediction, hidden = student(x_t, t, batch.y, tap=m, groups=groups)
        with teaching(settings.teacher_precision, batch.x.device.type):
            wanted = self._taught(teacher, batch, t, groups, n)
        alignment = DISTANCES[settings.distance](projected(student, hidden).float(), wanted.float())
        return objective.loss(prediction, batch.x, batch.noise, cells), alignment

    def _taught(self, teacher: DiffusionTransformer, batch: Batch, t: Tensor, groups: Groups, block: int) -> Tensor:
        """The teacher's features (N, T, D); t is (2, N)."""
        objective, least = batch.objective, t.amin(0)
        if self.settings.teacher == "all-at-min":
            seen = objective.corrupt(batch.x, batch.noise, least)
            return teacher.hidden(seen, least, batch.labels, block=block)
        noised = conditioned = least.expand_as(t)
        if self.settings.teacher == "own-times":
            uniform = batch.randoms.uniform("align.time", (2,)).T
            noised = conditioned = objective.cleaner(t, self.settings.interval, uniform)
        else:
            noised = noised * noised.new_tensor([[1.0], [0.0]])
        seen = objective.corrupt(batch.x, batch.noise, teacher.per_cell(groups.per_token(noised)))
        return teacher.hidden(seen, conditioned, batch.labels, block=block, groups=groups)


def both_times(batch: Batch) -> Tensor:
    """(2, N): a time of its own for group 0; group 1, the larger, has the baseline's."""
    import torch

    return torch.stack([batch.objective.draw(batch.randoms, "align.t"), batch.t])


def draw_groups(batch: Batch, tokens: int, *, separated: bool) -> Groups:
    """Positions of the groups, uniform per sample; group 0 has exactly a quarter."""
    from sra.model.token_groups import Groups

    order = batch.randoms.uniform("align.group", (tokens,)).argsort(dim=1, stable=True)
    return Groups(order, (tokens // PARTS, tokens - tokens // PARTS), separated=separated)
