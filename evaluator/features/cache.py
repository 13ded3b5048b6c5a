"""Cache of features: computed once per image set and graph, stored in files of 256 images.

A file is named by a hash of its images and of all before them: a stopped extraction continues where it was, and after
a changed image nothing is reused. Features are read in slices, so that memory use is bounded.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.features import CHUNK_IMAGES
from evaluator.images.image_set import ImageSet
from sra.common.errors import EvaluatorError
from sra.common.npz import write_array

PROGRESS_SECONDS = 2.0
"""Least time between two progress lines."""
Array = np.ndarray[Any, Any]
Extract = Callable[[Array], Array]
"""(n, H, W, 3) uint8 to (n, width) float32."""


class Rows:
    """Some columns of cached features, (N, D) float32; a slice reads only its rows."""

    def __init__(self, files: list[Path], count: int, columns: slice) -> None:
        self._files, self._columns = files, columns
        self.shape = (count, columns.stop - columns.start)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(len(self))
        parts = []
        for number in range(start // CHUNK_IMAGES, -(-stop // CHUNK_IMAGES)):
            begin = number * CHUNK_IMAGES
            part = slice(max(start - begin, 0), min(stop - begin, CHUNK_IMAGES))
            parts.append(np.load(self._files[number], mmap_mode="r")[part, self._columns])
        return np.concatenate(parts) if parts else np.empty((0, self.shape[1]), np.float32)


@dataclass(frozen=True)
class Features:
    """Pooled features (N, D) and spatial features (N, h * w * 7)."""

    pool: Rows
    spatial: Rows


class FeatureCache:
    """Cache folder of one tool's features of one graph."""

    def __init__(self, folder: Path, at_once: int = 1) -> None:
        """`at_once`: batches that an extractor computes at a time, of the four of a file."""
        self.folder, self.at_once = folder, at_once

    def features(self, images: ImageSet, extract: Extract, widths: tuple[int, int]) -> Features:
        """Read features from the cache, or compute and store them.

        Args:
            images: whose pixels are read once.
            extract: computes pooled and spatial features of up to 64 images, side by side.
            widths: of pooled and spatial features.

        Raises:
            OSError: a file cannot be written; no partial file is left.
        """
        progress = Progress(images.path.name, images.count)
        files: list[Path] = []
        with ThreadPoolExecutor(1) as disk, ThreadPoolExecutor(self.at_once) as threads:
            # One at a time stays in this thread, where a signal ends it at once.
            each = threads.map if self.at_once > 1 else map
            written: list[Future[None]] = []
            for chunk in images.chunks(CHUNK_IMAGES):
                files.append(self.folder / f"{chunk.name}.npy")
                if _holds(files[-1], (chunk.count, sum(widths))):
                    progress.skip(chunk.count)
                    continue
                if files[-1].exists():
                    print(f"{files[-1]}: cached features are damaged; they are computed again", flush=True)
                found = _finite(images, each(extract, chunk.batches))
                _finish(written)
                written.append(disk.submit(write_array, files[-1], found, checksum=True))
                progress.update(chunk.count)
            _finish(written)
        pool, total = widths[0], sum(widths)
        return Features(Rows(files, images.count, slice(0, pool)), Rows(files, images.count, slice(pool, total)))


def _finite(images: ImageSet, batches: Iterable[Array]) -> Array:
    found = np.concatenate(list(batches))
    if not np.isfinite(found).all():
        raise EvaluatorError(f"{images.path}: expected finite features, got NaN or infinity from the graph")
    return found


def _finish(written: list[Future[None]]) -> None:
    """Wait for files that are being written, and raise their errors."""
    while written:
        written.pop().result()


def folder_name(tool: str, graph_sha256: str) -> str:
    """Name of the cache folder of a tool and a graph."""
    return f"{tool}-{graph_sha256[:32]}"


@contextmanager
def feature_cache(folder: Path | None, name: str, at_once: int) -> Iterator[FeatureCache]:
    """The folder `name` of a cache folder; without one, a temporary folder that is removed after the block."""
    if folder is not None:
        yield FeatureCache(folder / name, at_once)
        return
    with tempfile.TemporaryDirectory(prefix="sra-bench-features-") as temporary:
        yield FeatureCache(Path(temporary), at_once)


def _holds(file: Path, shape: tuple[int, int]) -> bool:
    """Whether a file has undamaged features of this shape; those of version 0.1.0 have no checksum."""
    try:
        found = np.lib.format.open_memmap(file, mode="r")
        content = memoryview(file.read_bytes())
    except (OSError, ValueError, EOFError):
        return False
    end = found.offset + found.nbytes
    sound = len(content) == end or content[end:] == hashlib.sha256(content[:end]).digest()
    return sound and found.shape == shape and found.dtype == np.float32


class Progress:
    """Progress lines with count, images per second and time left."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self.done = self.skipped = 0
        self.started = self.printed = time.monotonic()

    def skip(self, count: int) -> None:
        """Add images whose features were cached, which do not count for the rate."""
        self.done += count
        self.skipped += count

    def update(self, count: int) -> None:
        """Add images whose features were computed."""
        self.done += count
        now = time.monotonic()
        if now - self.printed > PROGRESS_SECONDS:
            self.printed = now
            self._print(now - self.started)

    def _print(self, elapsed: float) -> None:
        from tqdm import tqdm  # takes half a second to import: not needed for small sets

        meter = tqdm.format_meter(
            self.done, self.total, elapsed, initial=self.skipped, unit=" images", prefix=self.label, ncols=0
        )
        print(meter, flush=True)
