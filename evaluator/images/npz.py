"""`.npz` files read safely: images streamed from `arr_0`, and stored statistics."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from evaluator.errors import EvaluatorError, nearest

IMAGES = "arr_0"
STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")
PEEKED = 1 << 20
"""Bytes of a wrong array that are looked at to say what it holds."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Npz:
    """A file with images under `arr_0`."""

    path: Path
    count: int
    shape: tuple[int, int]

    def batches(self, size: int) -> Iterator[Array]:
        """(n, H, W, 3) uint8, streamed.

        Raises:
            EvaluatorError: the file ends early or fails its checksum.
        """
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{IMAGES}.npy") as member:
            _header(member, self.path)
            for start in range(0, self.count, size):
                shape = (min(size, self.count - start), *self.shape, 3)
                yield np.frombuffer(_read_exactly(member, math.prod(shape), self.path), np.uint8).reshape(shape)


def open_npz(path: Path) -> Npz:
    """Check the header of `arr_0`.

    Raises:
        EvaluatorError: not a whole `.npz`, no `arr_0`, or not uint8 (N, H, W, 3).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name.removesuffix(".npy") for name in archive.namelist())
            if IMAGES not in names:
                found = ", ".join(names) or "nothing"
                raise EvaluatorError(f"{path}: no array {IMAGES!r}; found {found}{nearest(IMAGES, names)}")
            with archive.open(f"{IMAGES}.npy") as member:
                shape, dtype = _header(member, path)
                if dtype != np.uint8:
                    raise EvaluatorError(
                        f"{path}: {IMAGES} is {_described(member, dtype)}, uint8 in [0, 255] is needed"
                    )
    except zipfile.BadZipFile as error:
        raise EvaluatorError(f"{path}: not a whole .npz file") from error
    except OSError as error:
        raise EvaluatorError(f"{path}: cannot be read: {error.strerror}") from error
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise EvaluatorError(f"{path}: {IMAGES} has shape {shape}, (N, H, W, 3) is needed")
    return Npz(path, shape[0], (shape[1], shape[2]))


def statistics(path: Path) -> dict[str, Array] | None:
    """The stored `mu` (D,), `sigma` (D, D), `mu_s` (S,), `sigma_s` (S, S) of a file; None where there are none.

    Raises:
        EvaluatorError: only some of them, of shapes that do not fit, or not finite.
    """
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in STATISTICS if name in arrays.files]
            if not names:
                return None
            missing = [name for name in STATISTICS if name not in names]
            if missing:
                raise EvaluatorError(f"{path}: has {', '.join(names)}, but not {', '.join(missing)}")
            found = {name: arrays[name] for name in STATISTICS}
    except (ValueError, zipfile.BadZipFile) as error:
        raise EvaluatorError(f"{path}: the stored statistics cannot be read: {error}") from error
    for mean, covariance in (STATISTICS[:2], STATISTICS[2:]):
        shapes = found[mean].shape, found[covariance].shape
        if shapes != (shapes[0][:1], shapes[0][:1] * 2):
            raise EvaluatorError(f"{path}: {mean} {shapes[0]} and {covariance} {shapes[1]}: (D,) and (D, D) are needed")
    for name, array in found.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise EvaluatorError(f"{path}: {name} holds values that are not finite numbers")
    return found


def _described(member: IO[bytes], dtype: np.dtype[Any]) -> str:
    """Name of a dtype, with the range of the first values where that helps."""
    if dtype.kind not in "fiu":
        return str(dtype)
    content = member.read(PEEKED - PEEKED % dtype.itemsize)
    values = np.frombuffer(content[: len(content) - len(content) % dtype.itemsize], dtype)
    if not len(values):
        return str(dtype)
    if not np.isfinite(values).all():
        return f"{dtype} with NaN or infinity"
    low, high = float(values.min()), float(values.max())
    ranges = {(0, 1): "in [0, 1]", (-1, 1): "in [-1, 1]"}
    shown = next((text for (a, b), text in ranges.items() if a <= low and high <= b), f"from {low:g} to {high:g}")
    return f"{dtype} {shown}"


def _read_exactly(member: IO[bytes], wanted: int, path: Path) -> bytes:
    try:
        content = member.read(wanted)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise EvaluatorError(f"{path}: {IMAGES} is damaged: {error}") from error
    if len(content) != wanted:
        raise EvaluatorError(f"{path}: {IMAGES} is truncated")
    return content


def _header(member: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(member)
    except (ValueError, KeyError) as error:
        raise EvaluatorError(f"{path}: {IMAGES} is not a numpy array: {error}") from error
    if fortran:
        raise EvaluatorError(f"{path}: {IMAGES} is in Fortran order, C order is needed")
    return shape, dtype
