"""Packed latents: one array of posterior moments per data set, memory-mapped, written resumably. Torch-free.

DIR/moments.npy    (N, 2C, h, w) float32 or float16: posterior mean, then standard deviation
DIR/flipped.npy    the same of the mirrored images, where training flips
DIR/labels.npy     (N,) int64
DIR/latents.json   count, shape, dtype, classes, hashes; written last
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, Self

import numpy as np

from sra.common.errors import DataError
from sra.common.files import load_json, sha256_file, without, write_json
from sra.common.npz import write_array

Array = np.ndarray[Any, Any]
FACTS, MOMENTS, FLIPPED, LABELS = "latents.json", "moments.npy", "flipped.npy", "labels.npy"
PROGRESS = "progress.json"
SAVE_SECONDS = 5.0
"""Seconds between saves of the progress: the most work that a kill loses."""


class PackedFolder:
    """A folder of packed latents, checked on opening."""

    def __init__(self, path: Path) -> None:
        """Open a folder.

        Raises:
            DataError: incomplete, truncated, or its files disagree.
        """
        self.path = path
        try:
            self.facts: dict[str, Any] = load_json(path / FACTS) or {}
            self.moments: Array = np.load(path / MOMENTS, mmap_mode="r", allow_pickle=False)
            self.labels: Array = np.load(path / LABELS, allow_pickle=False)
            mirrored = (path / FLIPPED).is_file()
            self.flipped: Array | None = (
                np.load(path / FLIPPED, mmap_mode="r", allow_pickle=False) if mirrored else None
            )
            count, classes = int(self.facts["count"]), int(self.facts["classes"])
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise DataError(f"{path}: expected a whole folder of packed latents, got: {error}") from error
        if not 0 < len(self.moments) == len(self.labels) == count:
            raise DataError(
                f"{path}: expected {count} latents and labels ({FACTS}), got {len(self.moments)} and {len(self.labels)}"
            )
        if self.flipped is not None and self.flipped.shape != self.moments.shape:
            raise DataError(
                f"{path}: {FLIPPED}: expected the shape {self.moments.shape} of {MOMENTS}, got {self.flipped.shape}"
            )
        if self.moments.ndim != 4 or self.labels.ndim != 1 or self.labels.dtype.kind != "i" or self.labels.min() < 0:
            raise DataError(f"{path}: expected {MOMENTS} of shape (N, 2C, h, w) and classes from 0 in {LABELS}")
        if self.labels.max() >= classes:
            raise DataError(f"{path}: {LABELS}: expected classes below {classes} ({FACTS}), got {self.labels.max()}")
        for name, array in ((MOMENTS, self.moments), (FLIPPED, self.flipped)):
            if array is not None and array.dtype not in (np.float32, np.float16):
                raise DataError(f"{path}: {name}: expected float32 or float16, got {array.dtype}")
        self.count, self.classes = count, classes
        self.shape = tuple(self.moments.shape[1:])

    def names(self) -> list[str]:
        """The files that make up the folder."""
        return [MOMENTS, LABELS, FACTS] + ([FLIPPED] if self.flipped is not None else [])


def is_packed(path: Path) -> bool:
    """Whether a folder holds packed latents."""
    return (path / FACTS).is_file()


def check_shape(found: tuple[int, ...], expected: tuple[int, ...], where: str) -> None:
    """Refuse latents of another codec or resolution.

    Raises:
        DataError: not the expected (2C, h, w).
    """
    if found != expected:
        raise DataError(f"{where}: expected latents of shape {expected} (2C, h, w), got {found}")


class PackedWriter:
    """Fills a folder of packed latents from front to back; a new writer continues where the last one stopped.

    A context manager; leaving it saves the progress, also after an exception.
    """

    def __init__(self, out: Path, shape: tuple[int, ...], dtype: str, *, flipped: bool = False) -> None:
        """Start, or continue an interrupted writer.

        Args:
            out: the folder.
            shape: (N, 2C, h, w).
            dtype: float32 or float16.
            flipped: whether there is a second array for the mirrored images.
        """
        self.out, self.shape, self.dtype = out, shape, dtype
        self._names = [MOMENTS, *([FLIPPED] if flipped else [])]
        self._plan = {"shape": list(shape), "dtype": dtype, "arrays": self._names}
        out.mkdir(parents=True, exist_ok=True)
        self.done = self._found()
        self._saved = time.monotonic()
        mode: Any = "r+" if self.done else "w+"
        self._arrays = [
            np.lib.format.open_memmap(out / name, mode=mode, dtype=np.dtype(dtype), shape=shape) for name in self._names
        ]
        for name in self._names:
            _reserve(out / name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._arrays:
            self._save()

    def _found(self) -> int:
        """Rows that an earlier writer with the same plan wrote."""
        with contextlib.suppress(DataError, ValueError, KeyError, TypeError):
            state = load_json(self.out / PROGRESS) or {}
            if state["plan"] == self._plan and all((self.out / name).is_file() for name in self._names):
                return int(state["done"])
        return 0

    def write(self, *rows: Array) -> None:
        """The next rows, (n, 2C, h, w) for each array."""
        stop = self.done + len(rows[0])
        for array, values in zip(self._arrays, rows, strict=True):
            array[self.done : stop] = values
        self.done = stop
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        """Note how far it came: from here the next writer continues."""
        for array in self._arrays:
            array.flush()
        self._saved = time.monotonic()
        write_json(self.out / PROGRESS, {"plan": self._plan, "done": self.done})

    def finish(self, labels: list[int], facts: dict[str, Any]) -> None:
        """Write the labels, then `latents.json`, which marks the folder as complete.

        Args:
            labels: classes of all rows.
            facts: more keys of `latents.json`.
        """
        assert self.done == self.shape[0] == len(labels), (self.done, self.shape, len(labels))
        for array in self._arrays:
            array.flush()
        self._arrays.clear()
        write_array(self.out / LABELS, np.array(labels, dtype=np.int64))
        write_facts(self.out, self.shape, self.dtype, max(labels) + 1, {**facts, **_hashes(self.out, self._names)})
        (self.out / PROGRESS).unlink(missing_ok=True)


def _reserve(path: Path) -> None:
    """Allocate the disk space of a sparse file: a full disk is an error now, and would be a SIGBUS later."""
    with without("fallocate", path), path.open("r+b") as handle:
        os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)


def _hashes(out: Path, names: list[str]) -> dict[str, str]:
    return {f"{Path(name).stem}_sha256": sha256_file(out / name) for name in names}


def write_facts(out: Path, shape: tuple[int, ...], dtype: str, classes: int, facts: dict[str, Any]) -> None:
    """Write `latents.json` of finished arrays."""
    count, channels, height, width = shape
    known = {"count": count, "channels": channels, "height": height, "width": width, "dtype": dtype}
    write_json(out / FACTS, {**known, "classes": classes, **facts, "complete": True})


def adopt(source: PackedFolder, out: Path, *, flipped: bool) -> None:
    """Link the latents of a folder into `out`, by hard links if the file system allows it.

    Raises:
        DataError: mirrored latents are asked for and missing.
    """
    if flipped and source.flipped is None:
        raise DataError(f"{source.path}: expected {FLIPPED} for train.flip, got none")
    out.mkdir(parents=True, exist_ok=True)
    for name in source.names():
        if name != FLIPPED or flipped:
            link(source.path / name, out / name)


def link(source: Path, target: Path) -> None:
    """Replace `target` by a hard link to `source`, or by a symbolic one across file systems."""
    target.unlink(missing_ok=True)
    place = source.resolve()
    try:
        os.link(place, target)
    except OSError:
        target.symlink_to(place)
