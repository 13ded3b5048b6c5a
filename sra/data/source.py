"""Image data sets: a folder or zip with class folders or `dataset.json`; ImageNet as Kaggle ships it."""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from sra import embedded
from sra.common.errors import DataError
from sra.common.files import is_embedded
from sra.common.listing import DATASET_JSON, KAGGLE_TRAIN, Listing, data_root, list_folder, list_names
from sra.common.pixels import UNREADABLE, decode
from sra.config import DataConfig
from sra.data.archive import Array, Member, open_zip, places, read_member
from sra.data.labels import check_names, check_split, folder_labels, folders_of_labels, parse_labels


@dataclass(frozen=True)
class Reader:
    """Reader of a folder's or zip's members; small enough to be sent to another process."""

    place: str
    """Folder, zip file or `embedded:digits`."""
    resolution: int
    """Edge of the embedded digits."""
    members: Mapping[str, Member] = field(default_factory=dict)
    """Places of the members of a zip."""

    def image(self, name: str) -> Image.Image:
        """A whole image, in the mode it is stored in.

        Raises:
            DataError: not an image, or not all of it.
        """
        if is_embedded(self.place):
            return Image.fromarray(_digits(self.resolution)[0][int(name)])
        try:
            return decode(self.content(name))
        except UNREADABLE as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
            raise DataError(f"data.images {self.place}: {name}: expected a whole image, got {reason}") from error

    def content(self, name: str) -> bytes:
        """Bytes of a member."""
        path = Path(self.place)
        member = self.members.get(name)
        if member is not None and member.method >= 0:
            return read_member(self.place, member)
        return _archive(self.place).read(name) if path.is_file() else (path / name).read_bytes()


_archive = functools.cache(open_zip)


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
    class_names: dict[int, str] = field(default_factory=dict)
    """Class folders by label; empty where labels have none."""
    note: str | None = None
    """What was left out, in one sentence."""
    places: Array | None = None
    """Places of the images in a zip, see `sra.data.archive.places`."""

    def part(self, start: int, stop: int) -> tuple[tuple[str, ...], Reader]:
        """Names of some consecutive images, and a reader that does not read a zip's directory to find them."""
        names = tuple(self.names[start:stop])
        if self.places is None:
            return names, self.reader
        rows = self.places[start:stop].tolist()
        return names, replace(self.reader, members={n: Member(*row) for n, row in zip(names, rows, strict=True)})


def open_source(data: DataConfig, resolution: int) -> Source:
    """The source that `data.images` names.

    Raises:
        DataError: missing, without labels, without images, or not the split it claims to be.
    """
    assert data.images is not None
    if data.images == "embedded:digits":
        _, classes = _digits(resolution)
        digits = {digit: str(digit) for digit in sorted(set(classes))}
        return Source([str(i) for i in range(len(classes))], classes, Reader(data.images, resolution), digits)
    path = Path(data.images)
    if not path.exists():
        raise DataError(f"data.images {path}: expected a folder or a zip of images, got no such file")
    where, rows = f"data.images {path}", None
    if path.is_file():
        with open_zip(str(path)) as archive:
            listing, prefix = _zipped(archive)
            names, note = listing.images(where)
            labels = _labels(data, path, names, prefix, listing, archive.read)
            rows = places(archive, names)
    else:
        prefix = "" if data_root(path) == path else f"{KAGGLE_TRAIN}/"
        listing = list_folder(path, prefix)
        names, note = listing.images(where)
        labels = _labels(data, path, names, prefix, listing, lambda name: (path / name).read_bytes())
    folders = folders_of_labels((name.removeprefix(prefix) for name in names), labels)
    check_split(data.split, len(names), len(set(labels)), where, folders.values(), note)
    return Source(names, labels, Reader(str(path), resolution), folders, note, rows)


def _zipped(archive: zipfile.ZipFile) -> tuple[Listing, str]:
    """Members below the data set's own folder, and that folder as a prefix (empty, or Kaggle's)."""
    names = archive.namelist()
    prefix = f"{KAGGLE_TRAIN}/" if any(name.startswith(f"{KAGGLE_TRAIN}/") for name in names) else ""
    return list_names(name for name in names if name.startswith(prefix)), prefix


def _labels(
    data: DataConfig, path: Path, names: list[str], prefix: str, listing: Listing, read: Callable[[str], bytes]
) -> list[int]:
    """Labels from `dataset.json`, or from the sorted names of the top folders."""
    where = f"data.images {path}"
    own = [name.removeprefix(prefix) for name in names]
    has_json = f"{prefix}{DATASET_JSON}" in listing.names
    if data.labels == "dataset.json" or (data.labels == "auto" and has_json):
        if not has_json:
            raise DataError(f"{where}: expected dataset.json (data.labels), got none")
        try:
            text = read(f"{prefix}{DATASET_JSON}")
        except UNREADABLE as error:
            raise DataError(f"{where}: dataset.json: cannot be read: {error}") from error
        table = parse_labels(text, f"{where}: dataset.json")
        check_names(table, own, where)
        return [table[name] for name in own]
    everything = (name.removeprefix(prefix) for name in listing.names | listing.folders)
    classes = folder_labels(own, {name.split("/")[0] for name in everything if "/" in name}, path)
    return [classes[name.split("/")[0]] for name in own]
