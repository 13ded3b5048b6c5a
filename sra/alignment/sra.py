"""SRA: the student's block m, through a head, to the teacher's block n at a cleaner time (arXiv 2505.02831)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

from sra.alignment.registry import STRICT, AlignSettings
from sra.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# Section 4 of the paper: student block, teacher block (counted from 1).
BLOCKS = {
    "sit": {"B": (3, 8), "L": (6, 16), "XL": (8, 20)},
    "dit": {"B": (3, 7), "L": (6, 14), "XL": (8, 16)},
}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """How much cleaner the teacher's time is: exactly one of the two."""

    __pydantic_config__ = STRICT

    random: float | None = None
    """t' = t - U * random, U uniform per sample."""
    fixed: float | None = None
    """t' = t - fixed."""

    def __post_init__(self) -> None:
        if (self.random is None) == (self.fixed is None):
            raise ConfigError("interval needs exactly one of random and fixed")
        if not 0 <= (self.random if self.random is not None else self.fixed or 0.0) <= 1:
            raise ConfigError("interval must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Settings(AlignSettings):
    """Settings of SRA; defaults are the paper's."""

    kind: Literal["sra"] = "sra"
    blocks: tuple[int, int] | None = None
    """[m, n]: the student's and the teacher's block, counted from 1, m <= n; default by model size."""
    interval: Interval = field(default_factory=lambda: Interval(random=0.2))
    """How much cleaner the teacher's time is."""
    distance: Literal["smooth-l1", "l1", "l2", "cosine", "cosine-tokens"] = "smooth-l1"
    """smooth-L1 (beta 0.05) in the paper; `cosine-tokens` is the public code's cosine over the token axis."""
    weight: float = 0.2
    """Weight of the alignment loss."""
    weight_schedule: Literal["constant", "public-code"] = "constant"
    """`public-code`: the decay in the authors' training loop."""
    head: bool = True
    """Whether the student's output goes through Linear(D, 2D), SiLU, Linear(2D, D)."""
    teacher_precision: Literal["autocast", "fp32"] = "autocast"
    """`fp32`: the teacher runs outside autocast, as in the public code."""

    def resolved(self, family: str, size: str, depth: int) -> Self:
        """See the base class."""
        blocks = self.blocks or BLOCKS[family].get(size)
        if blocks is None:
            raise ConfigError(f"align.blocks has no published default for size {size!r}: give [m, n]")
        m, n = blocks
        if not 1 <= m <= n <= depth:
            raise ConfigError(f"align.blocks must satisfy 1 <= m <= n <= {depth} (depth), found [{m}, {n}]")
        return replace(self, blocks=blocks)


def teacher_time(settings: Settings, t: Tensor, uniform: Tensor) -> Tensor:
    """SiT: t' = clamp(t - U * random, 0, 1), or t - fixed; all (N,)."""
    interval = settings.interval
    offset = uniform * interval.random if interval.random is not None else interval.fixed or 0.0
    return (t - offset).clamp(0, 1)


def weight_at(settings: Settings, epoch: float, resolution: int) -> float:
    """The loss weight; `public-code` decays tenfold per 1000 epochs from 149 (256 px) or per 800 from 99 (512 px)."""
    if settings.weight_schedule == "constant":
        return settings.weight
    start, span = (99, 800) if resolution >= 512 else (149, 1000)
    return settings.weight * (0.1 ** ((epoch - start) / span) if epoch > start else 1.0)
