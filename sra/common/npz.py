"""Images in `.npz` files, written and read as streams: memory does not grow with their number."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from sra.common.files import replacing

Array = np.ndarray[Any, Any]
IMAGES, LABELS = "arr_0", "labels"


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


def read_images(path: Path) -> Iterator[Array]:
    """The images (H, W, 3) uint8 of a shard, one at a time."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{IMAGES}.npy") as member:
        version = np.lib.format.read_magic(member)
        assert version == (1, 0), version
        (count, *shape), _, dtype = np.lib.format.read_array_header_1_0(member)
        size = int(np.prod(shape)) * dtype.itemsize
        for _ in range(count):
            yield np.frombuffer(member.read(size), dtype).reshape(shape)


def read_labels(path: Path) -> Array:
    """`labels` (N,) of a shard; its images are not read."""
    with np.load(path, allow_pickle=False) as arrays:
        labels: Array = arrays[LABELS]
    return labels
