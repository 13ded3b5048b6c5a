"""Images in `.npz` files, as streams: memory use does not depend on their number; other arrays of `.npz` and `.npy`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sra.common.archives import DAMAGED, open_archive, open_member
from sra.common.errors import DataError, did_you_mean
from sra.common.files import replacing

Array = np.ndarray[Any, Any]
IMAGES, LABELS = "arr_0", "labels"
PEEK_BYTES = 1 << 20
"""Bytes of an array of another dtype that are read to say what it holds."""
MAX_ARRAY_BYTES = 8 << 30
"""Of an array that is read whole: pooled features of a million images."""


def write_array(path: Path, array: Array, *, durable: bool = True, checksum: bool = False) -> None:
    """Write a small array as `.npy`, atomically.

    Args:
        path: of the file.
        array: of numbers.
        durable: see `replacing`.
        checksum: append the SHA-256 of the file, which readers of `.npy` pass over.
    """
    # On a file, np.save uses ndarray.tofile, which does not say why a write failed.
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    if checksum:
        content.write(hashlib.sha256(content.getbuffer()).digest())
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(content.getbuffer())


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        yield archive


@contextlib.contextmanager
def _member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[IO[bytes]]:
    """An array inside an archive; without a time of its own, so that equal content makes equal files."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        yield member


def write_shard(path: Path, shape: tuple[int, ...], batches: Iterable[tuple[Array, Array]]) -> None:
    """A shard: `arr_0` of `shape` (N, H, W, 3) uint8, written as its batches come, and `labels` (N,) int64.

    Args:
        path: where it stands when it is whole.
        shape: of all images together.
        batches: (n, H, W, 3) images and (n,) labels.
    """
    labels = []
    with _archive(path) as archive:
        with _member(archive, IMAGES, shape, np.dtype(np.uint8)) as member:
            for images, classes in batches:
                assert images.shape == (len(classes), *shape[1:]), (images.shape, shape)
                member.write(np.ascontiguousarray(images).data)
                labels.append(classes)
        joined = np.concatenate(labels)
        assert len(joined) == shape[0], (len(joined), shape)
        with _member(archive, LABELS, joined.shape, joined.dtype) as member:
            member.write(joined.data)


def write_images(path: Path, shape: tuple[int, ...], images: Iterable[Array]) -> None:
    """One `.npz` with `arr_0` of `shape` (N, H, W, 3) uint8, from single images as they come."""
    count = 0
    with _archive(path) as archive, _member(archive, IMAGES, shape, np.dtype(np.uint8)) as member:
        for image in images:
            assert image.shape == shape[1:], (image.shape, shape)
            member.write(image.data)
            count += 1
        assert count == shape[0], (count, shape)


@dataclass(frozen=True)
class ImageArray:
    """Images of an `.npz` file: `arr_0` (N, H, W, 3) uint8."""

    path: Path
    count: int
    shape: tuple[int, int]

    def batches(self, size: int) -> Iterator[Array]:
        """(n, H, W, 3) uint8, streamed.

        Raises:
            DataError: the file ends early or fails its checksum.
        """
        where = f"{self.path}: {IMAGES}"
        with open_archive(self.path) as archive, _open(archive, IMAGES, where) as member:
            _header(member, where)
            for start in range(0, self.count, size):
                shape = (min(size, self.count - start), *self.shape, 3)
                yield np.frombuffer(_read_exactly(member, math.prod(shape), where), np.uint8).reshape(shape)


def open_npz(path: Path) -> ImageArray:
    """Open the images of an `.npz` file; reads the header only.

    Raises:
        DataError: not a whole `.npz`, no `arr_0`, or not uint8 (N, H, W, 3).
    """
    where = f"{path}: {IMAGES}"
    with open_archive(path) as archive:
        names = array_names(archive)
        if IMAGES not in names:
            found = ", ".join(names) or "nothing"
            raise DataError(f"{path}: expected an array {IMAGES!r}, got {found}{did_you_mean(IMAGES, names)}")
        with _open(archive, IMAGES, where) as member:
            shape, fortran, dtype = _header(member, where)
            if dtype != np.uint8:
                raise DataError(f"{where}: expected uint8 in [0, 255], got {_described(member, dtype)}")
    if fortran:
        raise DataError(f"{where}: expected C order, got Fortran order")
    if len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise DataError(f"{where}: expected shape (N, H, W, 3), got {shape}")
    return ImageArray(path, shape[0], (shape[1], shape[2]))


def has_images(path: Path) -> bool:
    """Whether an `.npz` file has an array `arr_0`.

    Raises:
        DataError: not a whole `.npz`.
    """
    with open_archive(path) as archive:
        return IMAGES in array_names(archive)


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """Arrays of an `.npz` file; some tools leave the `.npy` out."""
    return sorted({name.removesuffix(".npy") for name in archive.namelist()})


def _open(archive: zipfile.ZipFile, name: str, where: str) -> IO[bytes]:
    found = [member for member in (f"{name}.npy", name) if member in archive.namelist()]
    if len(found) > 1:
        raise DataError(f"{where}: expected one member of this name, got {' and '.join(found)}")
    return open_member(archive, found[0], where)


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, Array]:
    """Those of the named arrays that an `.npz` file has, in C order and this machine's byte order.

    Raises:
        DataError: not a whole `.npz`, or an array that is not of numbers, shorter than its header says, or too large.
    """
    with open_archive(path) as archive:
        present = array_names(archive)
        return {name: _read_array(archive, name, f"{path}: {name}") for name in names if name in present}


def _read_array(archive: zipfile.ZipFile, name: str, where: str) -> Array:
    with _open(archive, name, where) as member:
        shape, fortran, dtype = _header(member, where)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "fiu" or not 0 <= size <= MAX_ARRAY_BYTES:
            raise DataError(f"{where}: expected at most {MAX_ARRAY_BYTES:,} bytes of numbers, got {dtype} {shape}")
        content = np.frombuffer(_read_exactly(member, size, where), dtype)
    array = content.reshape(shape[::-1]).T if fortran else content.reshape(shape)
    return np.ascontiguousarray(array, dtype.newbyteorder("="))


def _described(member: IO[bytes], dtype: np.dtype[Any]) -> str:
    """Name of a dtype, with the range of the first values where that helps."""
    if dtype.kind not in "fiu":
        return str(dtype)
    content = member.read(PEEK_BYTES - PEEK_BYTES % dtype.itemsize)
    values = np.frombuffer(content[: len(content) - len(content) % dtype.itemsize], dtype)
    if not len(values):
        return str(dtype)
    if not np.isfinite(values).all():
        return f"{dtype} with NaN or infinity"
    low, high = float(values.min()), float(values.max())
    ranges = {(0, 1): "in [0, 1]", (-1, 1): "in [-1, 1]"}
    shown = next((text for (a, b), text in ranges.items() if a <= low and high <= b), f"from {low:g} to {high:g}")
    return f"{dtype} {shown}"


def _read_exactly(member: IO[bytes], wanted: int, where: str) -> bytes:
    try:
        content = member.read(wanted)
    except (*DAMAGED, OSError) as error:
        raise DataError(f"{where} is damaged: {error}") from error
    if len(content) != wanted:
        raise DataError(f"{where} is truncated")
    return content


def _header(member: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is Fortran's, and dtype."""
    try:
        version = np.lib.format.read_magic(member)
        first, second = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
        # Version 3 differs in the names of fields alone, which arrays of numbers do not have.
        return {(1, 0): first, (2, 0): second, (3, 0): second}[version](member)
    except (*DAMAGED, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise DataError(f"{where} is not a numpy array: {error}") from error


def read_images(path: Path) -> Iterator[Array]:
    """Images (H, W, 3) uint8 of an `.npz` file, one at a time; see `open_npz` for what it raises."""
    return (batch[0] for batch in open_npz(path).batches(1))


def read_labels(path: Path) -> Array:
    """`labels` (N,) of a shard; its images are not read."""
    found = read_arrays(path, [LABELS])
    if LABELS not in found:
        raise DataError(f"{path}: expected an array {LABELS!r}, got none")
    return found[LABELS]
