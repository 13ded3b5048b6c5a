"""Random numbers of each image, and the division of images into shards and processes.

`per-image`: label, noise and the noise of every step are functions of (seed, image index), whatever the number of
processes and the batch size. `public-code`: the authors' sampling script, whose images depend on both.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sra.common.npz import Array, read_images, read_labels
from sra.config import SampleJob
from sra.runtime.random_streams import Randoms, StepNoise
from sra.sampling.samplers import SamplerInputs


@dataclass(frozen=True)
class Shard:
    """Images that are sampled one after the other and stored in one file."""

    name: str
    count: int
    number: int
    """Index among the shards of its owner."""
    owner: int
    """Public code: rank that draws its random numbers; per image: `number`, any process may."""


def make_seeding(config: SampleJob, device: torch.device, processes: int) -> PerImage | PublicCode:
    """Make the seeding that the settings name.

    Args:
        config: seed, number of images, batch, shard, `sample.seeding` and `sample.ranks`.
        device: of the random numbers.
        processes: number of processes, the default of `sample.ranks`.
    """
    if config.sample.seeding == "public-code":
        return PublicCode(config, device, config.sample.ranks or processes)
    return PerImage(config, device)


def labels_of(config: SampleJob, indices: Tensor) -> Tensor:
    """Labels (N,) of image indices: random, or the same number of each class."""
    classes = config.model.classes
    if config.sample.labels == "balanced":
        return indices % classes
    uniform = Randoms(config.seed, indices).uniform("label")
    return (uniform * classes).long().clamp_max(classes - 1)


class PerImage:
    """Random numbers by image index; shards are ranges of indices."""

    def __init__(self, config: SampleJob, device: torch.device) -> None:
        self.config, self.device = config, device
        images, size = config.sample.images, config.sample.shard
        self.shards = [
            Shard(f"{start:08d}.npz", min(size, images - start), number, number)
            for number, start in enumerate(range(0, images, size))
        ]

    def mine(self, missing: list[Shard], process: int, processes: int) -> list[Shard]:
        """The missing shards that a process is to sample: every `processes`-th."""
        return missing[process::processes]

    def inputs(self, shard: Shard) -> Iterator[SamplerInputs]:
        """Labels and noise of the batches of a shard."""
        first = shard.number * self.config.sample.shard
        for start in range(first, first + shard.count, self.config.sample.batch):
            stop = min(start + self.config.sample.batch, first + shard.count)
            indices = torch.arange(start, stop, device=self.device)
            randoms = Randoms(self.config.seed, indices)
            shape = self.config.codec.latent_shape(self.config.model.resolution)
            noise = StepNoise(randoms, shape, self.config.sample.steps)
            yield SamplerInputs(labels_of(self.config, indices), randoms.normal("initial", shape), noise)

    def images(self, folder: Path) -> Iterator[Array]:
        """All images (H, W, 3) in their final order, from the shards in a folder."""
        return itertools.chain.from_iterable(read_images(folder / shard.name) for shard in self.shards)

    def labels(self, folder: Path) -> Array:
        """All labels (N,) in their final order, from the shards in a folder."""
        return np.concatenate([read_labels(folder / shard.name) for shard in self.shards])


class PublicCode:
    """The authors' generate.py: rank r of R has a generator seeded with seed * R + r.

    It draws a batch's noise, then its labels, then the noise of each step. With `total` images of all ranks before a
    batch, image i of the batch has the index i * R + r + total. Surplus images are sampled and dropped.
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
        """The missing shards that a process is to sample: all of a rank, whose generator is sequential."""
        return [shard for shard in missing if shard.owner % processes == process]

    def inputs(self, shard: Shard) -> Iterator[SamplerInputs]:
        """Labels and noise of the batches of a shard; the numbers of earlier shards are drawn again and skipped."""
        first = shard.number * self.per_shard
        for _ in range(self._iterations[shard.owner], first):
            self._batch(shard.owner)[1].skip_rest()
        for _ in range(shard.count // self.config.sample.batch):
            inputs, noise = self._batch(shard.owner)
            yield inputs
            noise.skip_rest()

    def _batch(self, rank: int) -> tuple[SamplerInputs, _PublicNoise]:
        sample, generator = self.config.sample, self._generators[rank]
        self._iterations[rank] += 1
        shape = (sample.batch, *self.config.codec.latent_shape(self.config.model.resolution))
        initial = torch.randn(shape, generator=generator, device=self.device)
        labels = torch.randint(0, self.config.model.classes, shape[:1], generator=generator, device=self.device)
        noise = _PublicNoise(self.config, generator, shape)
        return SamplerInputs(labels, initial, noise), noise

    def images(self, folder: Path) -> Iterator[Array]:
        """All images (H, W, 3) in their final order, from the shards in a folder."""
        return itertools.islice(self._images(folder), self.config.sample.images)

    def _images(self, folder: Path) -> Iterator[Array]:
        for shards in self._groups():
            for images in zip(*(read_images(folder / shard.name) for shard in shards), strict=True):
                yield from images

    def labels(self, folder: Path) -> Array:
        """All labels (N,) in their final order, from the shards in a folder."""
        groups = [np.stack([read_labels(folder / s.name) for s in shards], axis=1).ravel() for shards in self._groups()]
        return np.concatenate(groups)[: self.config.sample.images]

    def _groups(self) -> Iterator[list[Shard]]:
        """Shards of the same iterations, ordered by rank."""
        for start in range(0, len(self.shards), self.ranks):
            yield self.shards[start : start + self.ranks]


class _PublicNoise:
    """Noise of each step, drawn in order from a rank's generator."""

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
        """Noise of a step; steps are asked for in order, each once."""
        assert step == self.drawn < self.count, (step, self.drawn, self.count)
        return self._next()

    def _next(self) -> Tensor:
        self.drawn += 1
        shape = (self.copies * self.shape[0], *self.shape[1:])
        noise = torch.randn(shape, generator=self.generator, dtype=self.dtype, device=self.generator.device)
        return noise[: self.shape[0]]

    def skip_rest(self) -> None:
        """Draw the noise that the sampler did not ask for, so that the next batch's numbers follow."""
        while self.drawn < self.count:
            self._next()
