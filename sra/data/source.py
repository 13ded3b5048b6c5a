"""Image data sets: a folder or zip with class folders or `dataset.json`; ImageNet as Kaggle ships it."""

from __future__ import annotations

import functools
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sra import embedded
from sra.common.errors import DataError
from sra.common.listing import DATASET_JSON, Listing, list_folder, list_names
from sra.config import DataConfig
from sra.data.labels import check_names, check_split, parse_labels

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "Train", "Val", "Test"}
"""Folders of a data set's parts, which are not classes."""
KAGGLE_TRAIN = "ILSVRC/Data/CLS-LOC/train"
"""Where Kaggle's `imagenet-object-localization-challenge` keeps the training images."""
# Each format raises errors of its own for a damaged file.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Reader:
    """Reader of a folder's or zip's members; small enough to be sent to another process."""

    place: str
    """Folder, zip file or `embedded:digits`."""
    resolution: int
    """Edge of the embedded digits."""

    def image(self, name: str) -> Image.Image:
        """A whole image, in the mode it is stored in.

        Raises:
            DataError: not an image, or not all of it.
        """
        if self.place.startswith("embedded:"):
            return Image.fromarray(_digits(self.resolution)[0][int(name)])
        try:
            image = Image.open(io.BytesIO(self.content(name)))
            image.load()
        except UNREADABLE as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
            raise DataError(f"data.images {self.place}: {name}: expected a whole image, got {reason}") from error
        return image

    def content(self, name: str) -> bytes:
        """Bytes of a member."""
        path = Path(self.place)
        return _archive(self.place).read(name) if path.is_file() else (path / name).read_bytes()


@functools.cache
def _archive(place: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(place)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"data.images {place}: expected a folder or a zip file, got: {error}") from error


@functools.cache
def _digits(resolution: int) -> tuple[Any, list[int]]:
    pixels, classes = embedded.digits(resolution)
    return pixels, [int(c) for c in classes]


@dataclass(frozen=True)
class Source:
    """Images of a data set in a fixed order."""

    names: list[str]
    labels: list[int]
    reader: Reader
    note: str | None = None
    """What was left out, in one sentence."""


def open_source(data: DataConfig, resolution: int) -> Source:
    """The source that `data.images` names.

    Raises:
        DataError: missing, without labels, without images, or not the split it claims to be.
    """
    assert data.images is not None
    if data.images == "embedded:digits":
        _, classes = _digits(resolution)
        return Source([str(i) for i in range(len(classes))], classes, Reader(data.images, resolution))
    path = Path(data.images)
    if not path.exists():
        raise DataError(f"data.images {path}: expected a folder or a zip of images, got no such file")
    reader = Reader(str(path), resolution)
    listing, prefix = _members(path)
    names, note = listing.images(SUFFIXES)
    if not names:
        raise DataError(f"data.images {path}: expected images ({', '.join(SUFFIXES)}), got none")
    labels = _labels(data, reader, names, prefix, f"{prefix}{DATASET_JSON}" in listing.names)
    check_split(data.split, len(names), len(set(labels)), f"data.images {path}")
    return Source(names, labels, reader, note)


def _members(path: Path) -> tuple[Listing, str]:
    """Files below the data set's own folder, and that folder as a prefix (empty, or Kaggle's)."""
    kaggle = f"{KAGGLE_TRAIN}/"
    if not path.is_file():
        prefix = kaggle if (path / KAGGLE_TRAIN).is_dir() else ""
        return list_folder(path, prefix), prefix
    names = _archive(str(path)).namelist()
    prefix = kaggle if any(name.startswith(kaggle) for name in names) else ""
    return list_names(name for name in names if name.startswith(prefix)), prefix


def _labels(data: DataConfig, reader: Reader, names: list[str], prefix: str, has_json: bool) -> list[int]:
    """Labels from `dataset.json`, or from the sorted names of the top folders."""
    where = f"data.images {reader.place}"
    own = [name.removeprefix(prefix) for name in names]
    if data.labels == "dataset.json" or (data.labels == "auto" and has_json):
        if not has_json:
            raise DataError(f"{where}: expected dataset.json (data.labels), got none")
        try:
            text = reader.content(f"{prefix}dataset.json")
        except UNREADABLE as error:
            raise DataError(f"{where}: dataset.json: cannot be read: {error}") from error
        table = parse_labels(text, f"{where}: dataset.json")
        check_names(table, own, where)
        return [table[name] for name in own]
    loose = [name for name in own if "/" not in name]
    if loose:
        raise DataError(f"{where}: expected dataset.json or class folders, got {loose[0]} outside of them")
    tops = [name.split("/")[0] for name in own]
    if set(tops) <= SPLIT_FOLDERS:
        likely = next((name for name in sorted(set(tops)) if name.lower() == "train"), tops[0])
        found = ", ".join(sorted(set(tops)))
        raise DataError(f"{where}: expected class folders, got {found} (did you mean {reader.place}/{likely}?)")
    classes = {c: i for i, c in enumerate(sorted(set(tops)))}
    return [classes[top] for top in tops]
