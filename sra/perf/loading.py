"""Loading of latents: one packed array, or a file per latent as in the public layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sra.common.files import write_json
from sra.data.latents import PackedLatents
from sra.data.public_layout import place_of
from sra.perf.cases import Mode
from sra.perf.clock import Clock

Array = np.ndarray[Any, Any]
CLASSES = 1000


class Source(Protocol):
    """Latents by their numbers."""

    count: int

    def batch(self, indices: Array) -> tuple[Tensor, Tensor]:
        """(N, 2C, h, w) float32 moments and (N,) labels."""


class FileEach:
    """A file per latent, read one after the other as a worker of the authors' loader does."""

    def __init__(self, folder: Path, labels: Array) -> None:
        self.folder, self.labels, self.count = folder, labels, len(labels)

    def place(self, index: int) -> Path:
        """File of a latent in the public layout."""
        return self.folder / place_of(index)

    def batch(self, indices: Array) -> tuple[Tensor, Tensor]:
        """See Source."""
        moments = np.stack([np.load(self.place(int(i)), allow_pickle=False) for i in indices])
        return torch.from_numpy(moments), torch.from_numpy(self.labels[indices])


def make_source(folder: Path, mode: Mode, shape: tuple[int, ...], count: int) -> Source:
    """Random latents of a shape (2C, h, w), made where they are not there yet."""
    labels = np.arange(count) % CLASSES
    place = folder / ("x".join(map(str, (count, *shape))) + ("-files" if mode.reference else "-packed"))
    complete = place.is_dir()
    if mode.reference:
        source = FileEach(place, labels)
        if not complete:
            _write_files(source, shape)
        return source
    if not complete:
        _write_packed(place, shape, labels)
    return PackedLatents(place)


def _random(shape: tuple[int, ...], index: int) -> Array:
    return np.random.default_rng(index).standard_normal(shape, dtype=np.float32)


def _write_files(source: FileEach, shape: tuple[int, ...]) -> None:
    for index in range(source.count):
        path = source.place(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, _random(shape, index))


def _write_packed(place: Path, shape: tuple[int, ...], labels: Array) -> None:
    place.mkdir(parents=True)
    array = np.lib.format.open_memmap(place / "moments.npy", "w+", np.float32, (len(labels), *shape))
    for index in range(len(labels)):
        array[index] = _random(shape, index)
    array.flush()
    np.save(place / "labels.npy", labels)
    write_json(place / "latents.json", {"count": len(labels), "classes": CLASSES})


class Loading:
    """Batches of latents at random places, one thread."""

    def __init__(self, mode: Mode, shape: tuple[int, ...], count: int, batch: int, folder: Path) -> None:
        self.clock, self.batch = Clock(torch.device("cpu")), batch
        self.source = make_source(folder, mode, shape, count)
        self.order = np.random.default_rng(0)

    def run(self, rounds: int) -> None:
        """So many batches."""
        for _ in range(rounds):
            with self.clock("read"):
                self.source.batch(self.order.integers(0, self.source.count, self.batch))
