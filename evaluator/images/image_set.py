"""Image sets: an `.npz` file, a folder or zip of images, shards of either. Batches of uint8 NHWC, in order."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image

from evaluator.images.inspection import Examination, Findings, prefetched
from evaluator.images.shards import Shards, open_shards
from sra.common.archives import open_zip
from sra.common.errors import DataError
from sra.common.files import sha256_file
from sra.common.listing import IMAGE_FORMATS, check_parts, is_junk, list_folder, list_names, natural
from sra.common.npz import ImageArray, open_npz
from sra.common.pixels import UNREADABLE, has_16_bits, orientation
from sra.common.processes import usable_cores

BATCH = 64
"""The public evaluator's; features depend on it in the last bits."""
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
        notes: Sequence[str] = (),
    ) -> None:
        """Args: `read` yields (n, H, W, 3) uint8, 64 at a time; `names` of the files; `notes`: for the user."""
        self.path, self.count, self.shape = path, count, shape
        self._read, self._names, self._notes = read, names, notes
        self._findings: Findings | None = None

    def name(self, number: int) -> str | None:
        """Name of an image's file; None: arrays have none."""
        return self._names[number] if self._names else None

    def first(self, count: int) -> ImageSet:
        """The first images alone.

        Raises:
            DataError: there are fewer.
        """
        if self.count < count:
            raise DataError(f"{self.path}: expected at least {count} images, got {self.count}")
        batches = -(-count // BATCH)

        def read() -> Iterator[Array]:
            for number, batch in enumerate(itertools.islice(self._read(), batches)):
                yield batch[: count - number * BATCH]

        return ImageSet(self.path, count, self.shape, read, self._names, self._notes)

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
        found, warnings = self.findings, list(self._notes)
        if found.duplicates:
            warnings.append(f"{found.duplicates} of {self.count} images are copies of others")
        if found.black:
            first = self.name(found.first_black) or f"number {found.first_black}"
            warnings.append(f"{found.black} of {self.count} images are all black; the first is {first}")
        return warnings


def open_images(path: Path) -> ImageSet:
    """The images of a path.

    Raises:
        DataError: not there, of another format, or of another dtype or shape than uint8 RGB.
    """
    if path.is_dir():
        arrays = sorted((p for p in path.glob("*.npz") if not is_junk(p.name)), key=lambda p: natural(p.name))
        if arrays:
            return _open_arrays(path, arrays)
    if packed := open_shards(path):
        return _open_packed(path, packed)
    if path.is_dir():
        return _open_files(path)
    if not path.exists():
        raise DataError(f"{path}: expected a .npz file, a folder or a zip of images: not found")
    if path.suffix.lower() == ".zip":
        return _open_files(path)
    found = open_npz(path)
    return ImageSet(path, found.count, found.shape, lambda: found.batches(BATCH))


def without_images(path: Path, shape: tuple[int, int]) -> ImageSet:
    """An empty set that stands for a file of statistics alone; its hash is that of the file."""
    found = ImageSet(path, 0, shape, lambda: iter(()))
    found._findings = Findings(sha256_file(path), duplicates=0, black=0, first_black=-1)
    return found


def _open_arrays(path: Path, files: list[Path]) -> ImageSet:
    """Files named by the number of their first image, without a gap."""
    unnumbered = [file.name for file in files if not file.stem.isdecimal()]
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


def _open_files(path: Path) -> ImageSet:
    """Image files of a folder or zip in natural order."""
    opened: Callable[[str], IO[bytes]]
    if path.is_dir():
        listing, opened = list_folder(path), lambda name: (path / name).open("rb")
    else:
        try:
            archive = open_zip(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: expected a whole zip file") from error
        listing, opened = list_names(archive.namelist()), archive.open
    names, note = listing.images(str(path))
    check_parts(names, path, str(path), several=True)
    names.sort(key=natural)
    parts = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
    return _of_encoded(path, lambda: ((part, opened) for part in parts), [note] if note else [])


def _open_packed(path: Path, shards: Shards) -> ImageSet:
    """Encoded images of tar or parquet files."""

    def parts() -> Iterator[_Part]:
        rows = shards.rows()
        while part := dict(itertools.islice(rows, BATCH)):
            yield list(part), lambda name, part=part: io.BytesIO(part[name])  # type: ignore[misc]

    return _of_encoded(path, parts, shards.notes)


_Part = tuple[list[str], Callable[[str], IO[bytes]]]
"""Names of 64 images, or of the last ones, and what opens them."""


def _of_encoded(path: Path, parts: Callable[[], Iterator[_Part]], notes: list[str]) -> ImageSet:
    """Encoded images; every header is read first."""
    names: list[str] = []
    headers: list[_Header] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for part, opened in parts():
            names += part
            headers += pool.map(partial(_header, path, opened), part)
    if not names:
        raise DataError(f"{path}: expected images, got none")
    height, width = _common_shape(path, names, headers)

    def read() -> Iterator[Array]:
        with ThreadPoolExecutor(usable_cores()) as pool:
            for part, opened in parts():
                yield np.stack(list(pool.map(partial(_decoded, path, opened), part)))

    turned = sum(header.is_turned for header in headers)
    turns = [f"{turned} of {len(names)} images have an EXIF orientation, which is not applied"] if turned else []
    return ImageSet(path, len(names), (height, width), read, names, [*notes, *turns])


class _Header(NamedTuple):
    mode: str
    shape: tuple[int, int]
    is_turned: bool


@contextmanager
def _image(path: Path, opened: Callable[[str], IO[bytes]], name: str) -> Iterator[Image.Image]:
    """An opened image; what is wrong with it becomes a DataError."""
    try:
        with opened(name) as file, Image.open(file, formats=list(IMAGE_FORMATS)) as image:
            yield image
    except UNREADABLE as error:
        raise DataError(f"{path}: {name}: expected a whole image, got {error or type(error).__name__}") from error


def _header(path: Path, opened: Callable[[str], IO[bytes]], name: str) -> _Header:
    """What an image's first bytes say."""
    with _image(path, opened, name) as image:
        mode = f"16-bit {image.mode}" if has_16_bits(image) else image.mode
        return _Header(mode, (image.height, image.width), orientation(image) != 1)


def _common_shape(path: Path, names: list[str], headers: list[_Header]) -> tuple[int, int]:
    """Height and width of all images.

    Raises:
        DataError: images that are not RGB of 8 bits, or of different sizes: the first, and how many.
    """
    common = Counter(header.shape for header in headers).most_common(1)[0][0]
    for what, wanted, found in (
        ("RGB", "RGB", [header.mode for header in headers]),
        (f"{common} as most images", common, [header.shape for header in headers]),
    ):
        odd = [place for place, value in enumerate(found) if value != wanted]
        if odd:
            first = f"{names[odd[0]]}: expected {what}, got {found[odd[0]]}"
            raise DataError(f"{path}: {first} ({len(odd)} of {len(names)} images differ)")
    return common


def _decoded(path: Path, opened: Callable[[str], IO[bytes]], name: str) -> Array:
    with _image(path, opened, name) as image:
        return np.asarray(image)
