"""Settings of sampling."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

from sra.common.errors import ConfigError, expected
from sra.common.validation import STRICT
from sra.config.model import ModelConfig
from sra.config.training import MAX_COUNT, check_seeds

Sampler = Literal["euler", "heun", "dopri5", "euler-maruyama", "ddpm"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
ADAPTIVE_SAMPLERS = ("dopri5",)
"""Their steps depend on the whole batch, and so do the samples."""
MAX_STEPS = 100_000
"""Of the integration of one image; papers use 250."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Sampling: which integrator, how guided, how many images, with which random numbers."""

    __pydantic_config__ = STRICT

    sampler: Sampler = "euler-maruyama"
    """SiT: ODE `euler`, `heun` or the adaptive `dopri5`, SDE `euler-maruyama`. DiT: `ddpm`."""
    steps: int = 250
    """Integration steps (network evaluations, except for Heun); `dopri5` chooses its own."""
    last_step: float = 0.04
    """Size of the last, noise-free step of the SDE."""
    cfg: float = 1.0
    """Guidance scale w; no guidance when w <= 1."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """[low, high] of t, inclusive, in which guidance acts."""
    cfg_channels: Literal["all", 3] = "all"
    """Channels that guidance acts on; 3 is vanilla SiT's and DiT's historical choice."""
    images: int = 50_000
    """Number of images."""
    milestone_images: int | None = None
    """Number of images at milestones of training; default: `images`."""
    seed: int | None = None
    """Seed of labels and noise; default: the manifest's seed."""
    seeds: tuple[int, ...] | None = None
    """Several of them, one set of samples each from the same weights; exclude `seed`."""
    seeding: Literal["per-image", "public-code"] = "per-image"
    """`per-image`: independent of processes and batch. `public-code`: per rank and batch, as the authors' script."""
    labels: Literal["random", "balanced"] = "random"
    """Labels drawn at random, or the same number of each class."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "tf32"
    """Of the network; `fp32` forbids TF32 in the codec too."""
    weights: Literal["ema", "model"] = "ema"
    """Which weights are sampled."""
    batch: int = 64
    """Images per process at a time."""
    shard: int = 250
    """Images per resumable shard: what a kill loses, and small enough that processes end together."""
    png: bool = False
    """Also write one PNG an image, named as the public code does."""
    ranks: int | None = None
    """Processes that `seeding: public-code` draws for (the authors: 8); default: as many as run."""
    looks: tuple[int, ...] = ()
    """Numbers of first images that are scored before the others are sampled, such as [5000, 10000]."""
    on_lost: Literal["stop", "go-on"] | None = None
    """What follows when a look says that the published FID cannot be reproduced any more; default: `go-on`."""

    def __post_init__(self) -> None:
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(expected("guidance_interval", "[low, high] with 0 <= low <= high <= 1", [low, high]))
        for name in ("steps", "images", "milestone_images", "batch", "shard", "ranks"):
            value = getattr(self, name)
            most = MAX_STEPS if name == "steps" else MAX_COUNT
            if value is not None and not 1 <= value <= most:
                raise ConfigError(expected(name, f"a positive integer of at most {most}", value))
        if self.seeds is not None and self.seed is not None:
            raise ConfigError("seeds: expected seed or seeds, got both")
        check_seeds("seeds", self.seeds)
        check_seeds("seed", None if self.seed is None else (self.seed,))
        self._check_looks()
        if not 0 < self.last_step < 1:
            raise ConfigError(expected("last_step", "a number in (0, 1)", self.last_step))
        self._check_combinations()

    def _check_looks(self) -> None:
        if any(not a < b for a, b in itertools.pairwise((0, *self.looks, self.images))):
            raise ConfigError(expected("looks", f"increasing numbers below images = {self.images}", list(self.looks)))
        if self.looks and self.seeding == "public-code":
            raise ConfigError(
                "looks: expected none for seeding 'public-code', whose first images are spread over ranks"
            )
        if self.on_lost and not self.looks:
            raise ConfigError(expected("on_lost", "looks beside it", self.on_lost))

    def _check_combinations(self) -> None:
        if self.ranks is not None and self.seeding != "public-code":
            raise ConfigError(expected("ranks", f"none for seeding {self.seeding!r}", self.ranks))
        if self.labels != "random" and self.seeding == "public-code":
            raise ConfigError(expected("labels", "'random' for seeding 'public-code'", self.labels))
        if self.sampler == "ddpm" and not 2 <= self.steps <= 1000:
            raise ConfigError(expected("steps", "2 to 1000 for ddpm", self.steps))
        if self.sampler in ("ddpm", "dopri5") and self.guidance_interval != (0.0, 1.0):
            raise ConfigError(expected("guidance_interval", f"[0, 1] for {self.sampler}", list(self.guidance_interval)))


def check_sampler(sample: SampleConfig, model: ModelConfig) -> None:
    """Refuse a sampler that does not fit the network's family.

    Raises:
        ConfigError: it does not fit.
    """
    if (sample.sampler == "ddpm") != (model.family == "dit"):
        allowed = "ddpm" if model.family == "dit" else "euler, heun, dopri5 or euler-maruyama"
        raise ConfigError(expected("sample.sampler", f"{allowed} for family {model.family!r}", sample.sampler))
