"""SRA: the student's block m, through a head, to the teacher's block n at a cleaner time (arXiv 2505.02831)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

from sra.alignment.registry import STRICT, AlignSettings, NetworkFacts, check_blocks, check_weight
from sra.common.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sra.alignment.protocol import Batch
    from sra.model.transformer import DiffusionTransformer, Shape

# Section 4 of the paper: student block, teacher block (counted from 1).
BLOCKS = {
    "sit": {"B": (3, 8), "L": (6, 16), "XL": (8, 20)},
    "dit": {"B": (3, 7), "L": (6, 14), "XL": (8, 16)},
}

Distance = Literal["smooth-l1", "l1", "l2", "cosine", "cosine-tokens"]
PUBLIC_DISTANCES: dict[str, Distance] = {"sml1": "smooth-l1", "l1": "l1", "l2": "l2", "cos": "cosine-tokens"}
"""By their names in the public code."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """How much cleaner the teacher's time is: exactly one of the two. DiT: the same part of its 1000 steps."""

    __pydantic_config__ = STRICT

    random: float | None = None
    """t' = t - U * random, U uniform per sample."""
    fixed: float | None = None
    """t' = t - fixed."""

    def __post_init__(self) -> None:
        if (self.random is None) == (self.fixed is None):
            raise ConfigError("interval needs exactly one of random and fixed")
        if not 0 <= self.span <= 1:
            raise ConfigError("interval must lie in [0, 1]")

    @property
    def span(self) -> float:
        """The given one of the two."""
        return self.random if self.random is not None else self.fixed or 0.0


@dataclass(frozen=True, kw_only=True)
class Settings(AlignSettings):
    """Settings of SRA; defaults are the paper's."""

    kind: Literal["sra"] = "sra"
    blocks: tuple[int, int] | None = None
    """[m, n]: the student's and the teacher's block, counted from 1, m <= n; default by model size."""
    interval: Interval = field(default_factory=lambda: Interval(random=0.2))
    """How much cleaner the teacher's time is (public DiT parser: random 0.1, its README: 0.2)."""
    distance: Distance = "smooth-l1"
    """smooth-L1 (beta 0.05) in the paper; `cosine-tokens` is the public code's cosine over the token axis."""
    weight: float = 0.2
    """Weight of the alignment loss (paper: 0.2; public code: DiT 0.04, SiT with its cosine 0.5)."""
    weight_schedule: Literal["constant", "public-code"] = "constant"
    """`public-code`: the decay in the authors' training loop, for SiT and DiT alike."""
    head: bool = True
    """Whether the student's output goes through Linear(D, 2D), SiLU, Linear(2D, D)."""
    teacher_precision: Literal["autocast", "fp32"] = "autocast"
    """`fp32`: the teacher runs outside autocast, as in the public code."""

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def resolved(self, network: NetworkFacts) -> Self:
        """See the base class."""
        return replace(self, blocks=check_blocks(self.blocks or BLOCKS[network.family].get(network.size), network))

    def build(self, resolution: int) -> SelfRepresentation:
        """See the base class."""
        return SelfRepresentation(self, resolution)


def weight_at(settings: Settings, epoch: float, resolution: int) -> float:
    """The loss weight; `public-code` decays tenfold per 1000 epochs from 149 (256 px) or per 800 from 99 (512 px).

    Epochs are whole there: the weight changes between two passes over the data.
    """
    if settings.weight_schedule == "constant":
        return settings.weight
    start, span = (99, 800) if resolution >= 512 else (149, 1000)
    return settings.weight * math.pow(0.1, max(math.floor(epoch) - start, 0) / span)


class SelfRepresentation:
    """See the module; an `Alignment`."""

    def __init__(self, settings: Settings, resolution: int) -> None:
        self.settings, self.resolution = settings, resolution

    def head(self, shape: Shape) -> nn.Module | None:
        """SRA's projection, unless the settings say no."""
        from sra.model.transformer import Head

        return Head(shape.width) if self.settings.head else None

    def weight(self, epoch: float) -> float:
        """See `weight_at`."""
        return weight_at(self.settings, epoch, self.resolution)

    def step(
        self, student: DiffusionTransformer, teacher: DiffusionTransformer | None, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """The teacher sees the same x, noise and labels (after dropout) at a cleaner time."""
        from sra.alignment.distances import DISTANCES
        from sra.alignment.protocol import projected, teaching

        settings, objective = self.settings, batch.objective
        assert settings.blocks is not None
        assert teacher is not None
        m, n = settings.blocks
        prediction, hidden = student(objective.corrupt(batch.x, batch.noise, batch.t), batch.t, batch.y, tap=m)
        with teaching(settings.teacher_precision, batch.x.device.type):
            t = self._teacher_time(batch)
            wanted = teacher.hidden(objective.corrupt(batch.x, batch.noise, t), t, batch.y, block=n)
        alignment = DISTANCES[settings.distance](projected(student, hidden).float(), wanted.float())
        return objective.loss(prediction, batch.x, batch.noise, batch.t), alignment

    def _teacher_time(self, batch: Batch) -> Tensor:
        interval = self.settings.interval
        uniform = None if interval.random is None else batch.randoms.uniform("align.time")
        return batch.objective.cleaner(batch.t, interval.span, uniform)
