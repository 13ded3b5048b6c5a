"""Readers of image sets: `.npz`, folders and zips of PNG or JPEG. Everything comes in batches of uint8 NHWC."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from evaluator.errors import EvaluatorError

BATCH = 64
"""The public evaluator's; features depend on it in the last bits."""
SUFFIXES = (".png", ".jpg", ".jpeg")
STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")
Array = np.ndarray[Any, Any]


class ImageSet:
    """Images of one file or folder, in a fixed order."""

    def __init__(self, path: Path, count: int, shape: tuple[int, int], read: Callable[[], Iterator[Array]]) -> None:
        self.path, self.count, self.shape = path, count, shape
        self._read = read
        self._digest: str | None = None
        self.duplicates = 0

    def batches(self) -> Iterator[Array]:
        """(n, H, W, 3) uint8, 64 at a time, the last one short."""
        return self._read()

    def examine(self) -> str:
        """SHA-256 of all pixels in order; counts repeated images on the way."""
        if self._digest is None:
            total = hashlib.sha256()
            seen: set[bytes] = set()
            for batch in self.batches():
                total.update(batch.tobytes())
                seen.update(hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in batch)
            self.duplicates = self.count - len(seen)
            self._digest = total.hexdigest()
        return self._digest

    def warnings(self) -> list[str]:
        """What is suspicious about the images."""
        self.examine()
        return [f"{self.duplicates} of {self.count} images are copies of others"] if self.duplicates else []

    def facts(self) -> dict[str, Any]:
        """Path, hash, count and shape, for the record."""
        shape = [*self.shape, 3]
        return {"path": str(self.path), "sha256": self.examine(), "count": self.count, "shape": shape}


def open_images(path: Path) -> ImageSet:
    """The images of a path.

    Raises:
        EvaluatorError: not there, of another format, or of another dtype or shape than uint8 RGB.
    """
    if path.is_dir() or path.suffix.lower() == ".zip":
        return _open_files(path)
    if not path.is_file():
        raise EvaluatorError(f"{path}: not found; a .npz file, a folder or a zip of images is needed")
    return _open_npz(path)


def statistics(path: Path) -> dict[str, Array] | None:
    """The stored `mu`, `sigma`, `mu_s`, `sigma_s` of a reference batch; None where there are none."""
    if not (path.is_file() and path.suffix == ".npz"):
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if "mu" not in arrays.files:
            return None
        missing = [name for name in STATISTICS if name not in arrays.files]
        if missing:
            raise EvaluatorError(f"{path}: has mu, but not {', '.join(missing)}")
        return {name: arrays[name] for name in STATISTICS}


def _open_npz(path: Path) -> ImageSet:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "arr_0.npy" not in names:
                raise EvaluatorError(f"{path}: no array 'arr_0'; found {', '.join(sorted(names)) or 'nothing'}")
            with archive.open("arr_0.npy") as member:
                shape, dtype = _header(member, path)
    except zipfile.BadZipFile as error:
        raise EvaluatorError(f"{path}: not a whole .npz file") from error
    if dtype != np.uint8:
        raise EvaluatorError(f"{path}: arr_0 is {dtype}, uint8 in [0, 255] is needed")
    if len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise EvaluatorError(f"{path}: arr_0 has shape {shape}, (N, H, W, 3) is needed")

    def read() -> Iterator[Array]:
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as member:
            _header(member, path)
            for start in range(0, shape[0], BATCH):
                count = min(BATCH, shape[0] - start)
                wanted = count * shape[1] * shape[2] * 3
                content = _read_exactly(member, wanted, path)
                yield np.frombuffer(content, np.uint8).reshape(count, *shape[1:])

    return ImageSet(path, shape[0], (shape[1], shape[2]), read)


def _read_exactly(member: IO[bytes], wanted: int, path: Path) -> bytes:
    try:
        content = member.read(wanted)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise EvaluatorError(f"{path}: arr_0 is damaged: {error}") from error
    if len(content) != wanted:
        raise EvaluatorError(f"{path}: arr_0 is truncated")
    return content


def _header(member: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(member)
    except (ValueError, KeyError) as error:
        raise EvaluatorError(f"{path}: arr_0 is not a numpy array: {error}") from error
    if fortran:
        raise EvaluatorError(f"{path}: arr_0 is in Fortran order, C order is needed")
    return shape, dtype


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key: numbers inside a name by their value."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p]


def _open_files(path: Path) -> ImageSet:
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        load: Callable[[str], bytes] = lambda name: (path / name).read_bytes()  # noqa: E731
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise EvaluatorError(f"{path}: not a whole zip file") from error
        names, load = archive.namelist(), archive.read
    names = sorted((n for n in names if n.lower().endswith(SUFFIXES)), key=natural)
    if not names:
        raise EvaluatorError(f"{path}: found no images ({', '.join(SUFFIXES)})")
    first = _decode(path, names[0], load)

    def read() -> Iterator[Array]:
        for start in range(0, len(names), BATCH):
            images = [_decode(path, name, load) for name in names[start : start + BATCH]]
            for name, image in zip(names[start:], images, strict=False):
                if image.shape != first.shape:
                    raise EvaluatorError(f"{path}: {name} is {image.shape[:2]}, the first image {first.shape[:2]}")
            yield np.stack(images)

    return ImageSet(path, len(names), (first.shape[0], first.shape[1]), read)


def _decode(path: Path, name: str, load: Callable[[str], bytes]) -> Array:
    try:
        image = Image.open(io.BytesIO(load(name)))
        image.load()
    except (UnidentifiedImageError, OSError) as error:
        raise EvaluatorError(f"{path}: {name}: not a whole image") from error
    if image.mode != "RGB":
        raise EvaluatorError(f"{path}: {name} is {image.mode}, RGB is needed")
    return np.asarray(image)
