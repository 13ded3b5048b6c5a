"""Image sets: an `.npz` file, a folder or zip of PNG or JPEG, a folder of shards. Batches of uint8 NHWC, in order."""

from __future__ import annotations

import io
import itertools
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from evaluator.images.inspection import Examination, Findings, prefetched
from sra.common.errors import DataError
from sra.common.listing import is_junk, list_folder, list_names
from sra.common.npz import ImageArray, open_npz

BATCH = 64
"""The public evaluator's; features depend on it in the last bits."""
SUFFIXES = (".png", ".jpg", ".jpeg")
DECODERS = min(8, os.cpu_count() or 1)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Chunk:
    """Some consecutive images."""

    batches: list[Array]
    name: str
    """Of their content and all before: the digest of the pixels so far, height and width."""

    @property
    def count(self) -> int:
        """Images."""
        return sum(map(len, self.batches))


class ImageSet:
    """Images of one file or folder, in a fixed order."""

    def __init__(
        self,
        path: Path,
        count: int,
        shape: tuple[int, int],
        read: Callable[[], Iterator[Array]],
        names: list[str] | None = None,
        note: str | None = None,
    ) -> None:
        """Args: `read` yields (n, H, W, 3) uint8, 64 at a time; `names` of the files; `note`: what was left out."""
        self.path, self.count, self.shape = path, count, shape
        self._read, self._names, self._note = read, names, note
        self._findings: Findings | None = None

    def batches(self) -> Iterator[Array]:
        """(n, H, W, 3) uint8, 64 at a time, the last one short, read ahead; the first whole pass examines them too."""
        return prefetched(self._read() if self._findings else self._examined(Examination()), ahead=4)

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The same in chunks of `size` images, a multiple of 64, read and hashed ahead."""
        return prefetched(self._chunks(size), ahead=1)

    def _chunks(self, size: int) -> Iterator[Chunk]:
        examination = Examination()
        batches = self._examined(examination)
        while held := list(itertools.islice(batches, size // BATCH)):
            yield Chunk(held, f"{examination.digest()[:40]}-{self.shape[0]}x{self.shape[1]}")

    def _examined(self, examination: Examination) -> Iterator[Array]:
        for batch in self._read():
            examination.add(batch)
            yield batch
        self._findings = examination.result(self.path)

    @property
    def findings(self) -> Findings:
        """What the pixels are: reads them, unless a whole pass has."""
        if self._findings is None:
            for _ in self.batches():
                pass
        assert self._findings is not None
        return self._findings

    def sha256(self) -> str:
        """SHA-256 of all pixels in order."""
        return self.findings.sha256

    def warnings(self) -> list[str]:
        """What is suspicious about the images."""
        found, warnings = self.findings, [self._note] if self._note else []
        if found.duplicates:
            warnings.append(f"{found.duplicates} of {self.count} images are copies of others")
        if found.black:
            first = self._names[found.first_black] if self._names else f"number {found.first_black}"
            warnings.append(f"{found.black} of {self.count} images are all black; the first is {first}")
        return warnings


def open_images(path: Path) -> ImageSet:
    """The images of a path.

    Raises:
        DataError: not there, of another format, or of another dtype or shape than uint8 RGB.
    """
    if path.is_dir():
        arrays = sorted((p for p in path.glob("*.npz") if not is_junk(p.name)), key=lambda p: natural(p.name))
        return _open_shards(path, arrays) if arrays else _open_files(path)
    if not path.exists():
        raise DataError(f"{path}: expected a .npz file, a folder or a zip of images: not found")
    if path.suffix.lower() == ".zip":
        return _open_files(path)
    found = open_npz(path)
    return ImageSet(path, found.count, found.shape, lambda: found.batches(BATCH))


def _open_shards(path: Path, files: list[Path]) -> ImageSet:
    """Files named by the number of their first image, without a gap."""
    unnumbered = [file.name for file in files if not file.stem.isdigit()]
    if unnumbered:
        raise DataError(f"{path}: expected shards (<number of first image>.npz) or one file, got {unnumbered[0]}")
    shards, count = [open_npz(file) for file in files], 0
    for shard in shards:
        if int(shard.path.stem) != count:
            raise DataError(f"{path}: expected a shard that starts at image {count}, got {shard.path.name}")
        if shard.shape != shards[0].shape:
            raise DataError(
                f"{shard.path}: expected images of {shards[0].shape} as in {files[0].name}, got {shard.shape}"
            )
        count += shard.count
    return ImageSet(path, count, shards[0].shape, lambda: _joined(shards))


def _joined(shards: list[ImageArray]) -> Iterator[Array]:
    """Batches of 64 across the borders of shards."""
    held = np.empty((0, *shards[0].shape, 3), np.uint8)
    for shard in shards:
        for batch in shard.batches(BATCH):
            held = np.concatenate([held, batch])
            if len(held) >= BATCH:
                yield held[:BATCH]
                held = held[BATCH:]
    if len(held):
        yield held


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key: numbers inside a name by their value."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p]


def _open_files(path: Path) -> ImageSet:
    if path.is_dir():
        listing = list_folder(path)
        load: Callable[[str], bytes] = lambda name: (path / name).read_bytes()  # noqa: E731
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: expected a whole zip file") from error
        listing, load = list_names(archive.namelist()), archive.read
    names, note = listing.images(SUFFIXES)
    names.sort(key=natural)
    if not names:
        raise DataError(f"{path}: expected images ({', '.join(SUFFIXES)}), found no images")
    first = _decode(path, names[0], load)

    def read() -> Iterator[Array]:
        with ThreadPoolExecutor(DECODERS) as pool:
            for start in range(0, len(names), BATCH):
                part = names[start : start + BATCH]
                images = list(pool.map(lambda name: _decode(path, name, load), part))
                for name, image in zip(part, images, strict=True):
                    if image.shape != first.shape:
                        raise DataError(
                            f"{path}: {name}: expected {first.shape[:2]} as the first image, got {image.shape[:2]}"
                        )
                yield np.stack(images)

    return ImageSet(path, len(names), (first.shape[0], first.shape[1]), read, names, note)


def _decode(path: Path, name: str, load: Callable[[str], bytes]) -> Array:
    try:
        image = Image.open(io.BytesIO(load(name)))
        image.load()
    except (UnidentifiedImageError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {name}: expected a whole image") from error
    if image.mode != "RGB":
        raise DataError(f"{path}: {name}: expected RGB, got {image.mode}")
    return np.asarray(image)
