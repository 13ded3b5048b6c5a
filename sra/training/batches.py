"""Training batches: a function of (seed, step), for any number of processes and accumulation steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sra.common.errors import DataError
from sra.config import TrainJob
from sra.data.latents import sample_latent
from sra.data.prefetch import Prefetcher
from sra.runtime.random_streams import Randoms, Together
from sra.runtime.speed import Speed
from sra.training.step import Batch, Engine

Array = np.ndarray[Any, Any]


class LatentSource(Protocol):
    """Data set of latents."""

    count: int

    def batch(self, indices: Array, mirrored: Array | None = None) -> tuple[Tensor, Tensor]:
        """(N, 2C, h, w) float32 moments and (N,) labels of image indices (N,); `mirrored` (N,) selects flipped ones."""


class DataOrder:
    """Order of the images: one permutation per epoch, without the incomplete last batch."""

    def __init__(self, seed: int, count: int, batch: int) -> None:
        if count < batch:
            raise DataError(f"train.global_batch: expected at most the {count} images of the data set, got {batch}")
        self.seed, self.count, self.batch = seed, count, batch
        self.steps_per_epoch = count // batch
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def indices(self, step: int) -> Array:
        """Image indices (global_batch,) of an optimizer step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self._order[place * self.batch : (place + 1) * self.batch]


class Batches:
    """This process's parts of the global batches, read ahead by threads."""

    def __init__(self, job: TrainJob, latents: LatentSource, engine: Engine, speed: Speed) -> None:
        self.job, self.settings, self.engine = job, job.train, engine
        self.order = DataOrder(job.seed, latents.count, job.train.global_batch)
        self.latents, self.pinned = latents, speed.transfer == "pinned" and engine.device.type == "cuda"
        self._together = Together(compiled=speed.compile != "off")
        self._prefetcher = Prefetcher(self._choose, self._read, job.train.workers)

    def of_step(self, step: int) -> Iterator[Batch]:
        """The `accumulate` batches of an optimizer step, counted from 0."""
        for part in range(self.settings.accumulate):
            yield self.load(step * self.settings.accumulate + part)

    def load(self, number: int) -> Batch:
        """Latents sampled from their posterior, labels and random numbers of batch `number`."""
        moments, labels = self._prefetcher.get(number)
        device = self.engine.device
        first, size = self._range(number)
        randoms = Randoms(self.job.seed, torch.arange(first, first + size, device=device), self._together)
        moments, labels = (part.to(device, non_blocking=self.pinned) for part in (moments, labels))
        shape = (moments.shape[1] // 2, *moments.shape[2:])
        x = sample_latent(moments, randoms.normal("latent", shape), self.job.codec.scale)
        return x, labels, randoms

    def _range(self, number: int) -> tuple[int, int]:
        """First position of batch `number` in the training order, and its size."""
        step, part = divmod(number, self.settings.accumulate)
        processes, rank = self.engine.num_processes, self.engine.process_index
        size = self.settings.global_batch // (processes * self.settings.accumulate)
        return step * self.settings.global_batch + (part * processes + rank) * size, size

    def _read(self, indices: Array, mirrored: Array | None) -> tuple[Tensor, Tensor]:
        """Moments and labels; a copy to the device from pinned memory does not block the host."""
        moments, labels = self.latents.batch(indices, mirrored)
        return (moments.pin_memory(), labels.pin_memory()) if self.pinned else (moments, labels)

    def _choose(self, number: int) -> tuple[Array, Array | None]:
        """Image indices of batch `number`, and which of them are mirrored."""
        first, size = self._range(number)
        step, start = divmod(first, self.settings.global_batch)
        indices = self.order.indices(step)[start : start + size]
        if not self.settings.flip:
            return indices, None
        uniform = Randoms(self.job.seed, torch.arange(first, first + size)).uniform("flip")
        return indices, (uniform < 0.5).numpy()
