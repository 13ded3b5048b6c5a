"""Cache of features: computed once per image set and graph, stored in files of 256 images.

A file is named by the content of its images and of those before them: a stopped extraction continues where it was, and
a set whose pixels changed finds nothing from there on. Reading is by slices: memory stays bounded.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.images.image_set import Chunk, ImageSet
from sra.common.errors import EvaluatorError
from sra.common.npz import write_array

CHUNK = 256
"""Images of one file: four batches."""
SHOWN_EVERY = 2.0
"""Seconds between lines of progress."""
Array = np.ndarray[Any, Any]
Extract = Callable[[Array], Array]
"""(n, H, W, 3) uint8 to (n, width) float32."""


class Rows:
    """Some columns of cached features, (N, D) float32; a slice of rows reads what it needs."""

    def __init__(self, files: list[Path], count: int, columns: slice) -> None:
        self._files, self._columns = files, columns
        self.shape = (count, columns.stop - columns.start)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(len(self))
        parts = []
        for number in range(start // CHUNK, -(-stop // CHUNK)):
            begin = number * CHUNK
            part = slice(max(start - begin, 0), min(stop - begin, CHUNK))
            parts.append(np.load(self._files[number], mmap_mode="r")[part, self._columns])
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), np.float32)


@dataclass(frozen=True)
class Features:
    """Pooled features (N, D) and spatial ones (N, h * w * 7)."""

    pool: Rows
    spatial: Rows


class FeatureCache:
    """A folder of features of one graph by one tool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def features(self, images: ImageSet, extract: Extract, widths: tuple[int, int]) -> Features:
        """From the folder, or computed and put there.

        Args:
            images: what to look at; its pixels are read once.
            extract: pooled and spatial features of 64 images or fewer, side by side.
            widths: of the two.

        Raises:
            OSError: a file cannot be written; none is left half-written.
        """
        progress = Progress(images.path.name, images.count)
        files: list[Path] = []
        with ThreadPoolExecutor(1) as disk:
            written: list[Future[None]] = []
            for chunk in images.chunks(CHUNK):
                files.append(self.folder / f"{chunk.name}.npy")
                if _holds(files[-1], (chunk.count, sum(widths))):
                    progress.skip(chunk.count)
                    continue
                found = _compute(images, chunk, extract)
                _finish(written)
                written.append(disk.submit(write_array, files[-1], found))
                progress.update(chunk.count)
            _finish(written)
        pool, total = widths[0], sum(widths)
        return Features(Rows(files, images.count, slice(0, pool)), Rows(files, images.count, slice(pool, total)))


def _compute(images: ImageSet, chunk: Chunk, extract: Extract) -> Array:
    found = np.concatenate([extract(batch) for batch in chunk.batches])
    if not np.isfinite(found).all():
        raise EvaluatorError(f"{images.path}: expected finite features, got NaN or infinity from the graph")
    return found


def _finish(written: list[Future[None]]) -> None:
    """Wait for what is being written, and raise what it raises."""
    while written:
        written.pop().result()


def folder_name(tool: str, graph_sha256: str) -> str:
    """Of the features of a graph by a tool, in a cache."""
    return f"{tool}-{graph_sha256[:32]}"


@contextmanager
def feature_cache(folder: Path | None, name: str) -> Iterator[FeatureCache]:
    """The folder `name` of a cache; without one, a temporary folder for as long as the block lasts."""
    if folder is not None:
        yield FeatureCache(folder / name)
        return
    with tempfile.TemporaryDirectory(prefix="sra-bench-features-") as temporary:
        yield FeatureCache(Path(temporary))


def _holds(file: Path, shape: tuple[int, int]) -> bool:
    """Whether a file holds features of this shape; a damaged one is made again."""
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return bool(found.shape == shape and found.dtype == np.float32)


class Progress:
    """Lines with count, images a second and time left."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self.done = self.skipped = 0
        self.started = self.shown = time.monotonic()

    def skip(self, count: int) -> None:
        """Images whose features were there: they do not count for the rate."""
        self.done += count
        self.skipped += count

    def update(self, count: int) -> None:
        """Images whose features were computed."""
        self.done += count
        now = time.monotonic()
        if now - self.shown > SHOWN_EVERY:
            self.shown = now
            self._show(now - self.started)

    def _show(self, elapsed: float) -> None:
        from tqdm import tqdm  # half a second of imports that short sets need not pay

        meter = tqdm.format_meter(
            self.done, self.total, elapsed, initial=self.skipped, unit=" images", prefix=self.label, ncols=0
        )
        print(meter, flush=True)
