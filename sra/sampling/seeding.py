"""Which random numbers make which image, and how images are spread over shards and processes.

`per-image`: label, noise and every step's noise are functions of (seed, image index). Any number of processes and any
batch draw the same. `public-code`: the authors' sampling script, whose images depend on both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sra.common.npz import Array, read_images, read_labels
from sra.config import SampleJob
from sra.runtime.random_streams import Randoms, StepNoise


@dataclass(frozen=True)
class Shard:
    """Images that are made one after the other and kept in one file."""

    name: str
    count: int
    number: int
    """Place among the shards of its owner."""
    owner: int
    """Whoever draws its random numbers: a rank of the public code; per image, anybody may."""


@dataclass(frozen=True)
class Draw:
    """What one batch begins with."""

    labels: Tensor
    """(N,) classes."""
    initial: Tensor
    """(N, C, H, W) standard normal."""
    step_noise: Callable[[int], Tensor]
    """Noise (N, C, H, W) of the k-th step."""


class Seeding(Protocol):
    """One way to seed."""

    shards: list[Shard]

    def mine(self, missing: list[Shard], process: int, processes: int) -> list[Shard]:
        """Which of the missing shards a process makes."""

    def draws(self, shard: Shard) -> Iterator[Draw]:
        """The batches of a shard."""

    def images(self, place: Callable[[Shard], Path]) -> Iterator[Array]:
        """All images (H, W, 3) in their final order, from the shards' files."""

    def labels(self, place: Callable[[Shard], Path]) -> Array:
        """All labels (N,) in their final order."""


def make_seeding(config: SampleJob, device: torch.device, processes: int) -> Seeding:
    """The seeding that the settings name; `processes` are those that run."""
    if config.sample.seeding == "public-code":
        return PublicCode(config, device, config.sample.ranks or processes)
    return PerImage(config, device)


def latent_shape(config: SampleJob) -> tuple[int, int, int]:
    """(C, h, w)."""
    side = config.model.resolution // config.codec.factor
    return config.codec.channels, side, side


def labels_of(config: SampleJob, indices: Tensor) -> Tensor:
    """Labels (N,) of image indices: drawn per image, or the same number of each class."""
    classes = config.model.classes
    if config.sample.labels == "balanced":
        return indices % classes
    uniform = Randoms(config.seed, indices).uniform("label")
    return (uniform * classes).long().clamp_max(classes - 1)


class PerImage:
    """Shards are ranges of image indices; every number belongs to an index."""

    def __init__(self, config: SampleJob, device: torch.device) -> None:
        self.config, self.device = config, device
        images, size = config.sample.images, config.sample.shard
        self.shards = [
            Shard(f"{start:08d}.npz", min(size, images - start), number, number)
            for number, start in enumerate(range(0, images, size))
        ]

    def mine(self, missing: list[Shard], process: int, processes: int) -> list[Shard]:
        """See Seeding: what is missing is shared out evenly."""
        return missing[process::processes]

    def draws(self, shard: Shard) -> Iterator[Draw]:
        """See Seeding."""
        first = shard.number * self.config.sample.shard
        for start in range(first, first + shard.count, self.config.sample.batch):
            stop = min(start + self.config.sample.batch, first + shard.count)
            indices = torch.arange(start, stop, device=self.device)
            randoms = Randoms(self.config.seed, indices)
            shape = latent_shape(self.config)
            noise = StepNoise(randoms, shape, self.config.sample.steps)
            yield Draw(labels_of(self.config, indices), randoms.normal("initial", shape), noise)

    def images(self, place: Callable[[Shard], Path]) -> Iterator[Array]:
        """See Seeding."""
        return itertools.chain.from_iterable(read_images(place(shard)) for shard in self.shards)

    def labels(self, place: Callable[[Shard], Path]) -> Array:
        """See Seeding."""
        return np.concatenate([read_labels(place(shard)) for shard in self.shards])


class PublicCode:
    """The authors' generate.py: rank r of R has a generator seeded with seed * R + r.

    It draws a batch's noise, then its labels, then the noise of each step; image i of the batch that follows `total`
    images of all ranks is number i * R + r + total. Images beyond the wanted number are made and dropped.
    """

    def __init__(self, config: SampleJob, device: torch.device, ranks: int) -> None:
        self.config, self.device, self.ranks = config, device, ranks
        sample = config.sample
        iterations = -(-sample.images // (sample.batch * ranks))
        self.per_shard = max(1, sample.shard // (sample.batch * ranks))
        starts = range(0, iterations, self.per_shard)
        self.shards = [
            Shard(
                f"rank-{rank:04d}-of-{ranks:04d}-{number:06d}.npz",
                min(self.per_shard, iterations - start) * sample.batch,
                number,
                rank,
            )
            for number, start in enumerate(starts)
            for rank in range(ranks)
        ]
        self._generators = {r: torch.Generator(device).manual_seed(config.seed * ranks + r) for r in range(ranks)}
        self._iterations = dict.fromkeys(range(ranks), 0)

    def mine(self, missing: list[Shard], process: int, processes: int) -> list[Shard]:
        """See Seeding: a rank's numbers follow from one another, so a rank belongs to one process."""
        return [shard for shard in missing if shard.owner % processes == process]

    def draws(self, shard: Shard) -> Iterator[Draw]:
        """See Seeding; what an earlier process has drawn for finished shards is drawn again."""
        first = shard.number * self.per_shard
        for _ in range(self._iterations[shard.owner], first):
            self._batch(shard.owner)[1].skip_rest()
        for _ in range(shard.count // self.config.sample.batch):
            draw, noise = self._batch(shard.owner)
            yield draw
            noise.skip_rest()

    def _batch(self, rank: int) -> tuple[Draw, _PublicNoise]:
        sample, generator = self.config.sample, self._generators[rank]
        self._iterations[rank] += 1
        shape = (sample.batch, *latent_shape(self.config))
        initial = torch.randn(shape, generator=generator, device=self.device)
        labels = torch.randint(0, self.config.model.classes, shape[:1], generator=generator, device=self.device)
        noise = _PublicNoise(self.config, generator, shape)
        return Draw(labels, initial, noise), noise

    def images(self, place: Callable[[Shard], Path]) -> Iterator[Array]:
        """See Seeding."""
        return itertools.islice(self._images(place), self.config.sample.images)

    def _images(self, place: Callable[[Shard], Path]) -> Iterator[Array]:
        for shards in self._groups():
            for images in zip(*(read_images(place(shard)) for shard in shards), strict=True):
                yield from images

    def labels(self, place: Callable[[Shard], Path]) -> Array:
        """See Seeding."""
        groups = [np.stack([read_labels(place(s)) for s in shards], axis=1).ravel() for shards in self._groups()]
        return np.concatenate(groups)[: self.config.sample.images]

    def _groups(self) -> Iterator[list[Shard]]:
        """Shards of the same iterations, by rank."""
        for start in range(0, len(self.shards), self.ranks):
            yield self.shards[start : start + self.ranks]


class _PublicNoise:
    """The noise of each step, drawn in order from a rank's generator."""

    def __init__(self, config: SampleJob, generator: torch.Generator, shape: tuple[int, ...]) -> None:
        self.generator, self.shape = generator, shape
        sample = config.sample
        # The SDE's state is float64, and its last step has no noise. DDPM draws for both halves of a guided batch, in
        # the last step too, which does not use it.
        self.count = {"euler-maruyama": sample.steps - 1, "ddpm": sample.steps}.get(sample.sampler, 0)
        self.dtype = torch.float32 if sample.sampler == "ddpm" else torch.float64
        self.copies = 2 if sample.sampler == "ddpm" and sample.cfg > 1 else 1
        self.drawn = 0

    def __call__(self, step: int) -> Tensor:
        """Noise of a step; steps come in order, each once."""
        assert step == self.drawn < self.count, (step, self.drawn, self.count)
        return self._next()

    def _next(self) -> Tensor:
        self.drawn += 1
        shape = (self.copies * self.shape[0], *self.shape[1:])
        noise = torch.randn(shape, generator=self.generator, dtype=self.dtype, device=self.generator.device)
        return noise[: self.shape[0]]

    def skip_rest(self) -> None:
        """Draw what the sampler did not ask for: the next batch's numbers come after it."""
        while self.drawn < self.count:
            self._next()
