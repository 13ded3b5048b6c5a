"""Which files of a folder or zip are data, and which folders are classes: one rule for reading, scoring, and plans."""

from __future__ import annotations

import os
import posixpath
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from sra.common.errors import DataError

DATASET_JSON = "dataset.json"
"""Names and classes of a data set."""
JUNK_NAMES = (
    *("__MACOSX", "__pycache__", "Thumbs.db", "desktop.ini", "@eaDir", "lost+found"),
    *("$RECYCLE.BIN", "#recycle", "@Recycle", "System Volume Information"),
)
"""What operating systems and file servers leave beside files; names that begin with a dot are junk as well."""
KAGGLE_TRAIN = "ILSVRC/Data/CLS-LOC/train"
"""Where Kaggle's `imagenet-object-localization-challenge` keeps the training images."""
PARTS = re.compile(
    r"(.*[^a-z])?(train|training|val|valid|validation|test|testing|eval|dev|holdout|unlabell?ed)(set|[ab])?([^a-z].*)?",
    re.IGNORECASE,
)
"""Names of folders that are parts of a data set rather than classes, if all folders are named so."""
TRAINING = re.compile(r"train(ing)?([ _-]?(set|data|images))?", re.IGNORECASE)
EVALUATION = re.compile(r"(val|valid|validation|test|testing|eval)([ _-]?(set|data|images))?", re.IGNORECASE)
"""Of these, the names that are parts whatever is beside them, if both are there."""
IMAGE_FORMATS = {
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "PNG": (".apng", ".png"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "QOI": (".qoi",),
    "SGI": (".sgi",),
    "TIFF": (".tif", ".tiff"),
    "TGA": (".tga",),
}
"""Pillow's names of the formats that are read, and their suffixes. A file is opened as one of these, whatever its name:
Pillow knows more, some of which start other programs (EPS) or are no pictures."""
SHARDS = (".tar", ".parquet")
"""Suffixes of files that hold images."""
OTHER_IMAGES = (".heic", ".heif", ".jxl", ".exr", ".dng", ".arw", ".cr2", ".cr3", ".nef", ".orf", ".raf", ".rw2")
"""Suffixes of photographs that are not read: leaving them out would change labels and counts."""


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key: numbers inside a name by their value."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]


def suffix_of(name: str) -> str:
    """Suffix of a relative path in lower case, with its dot; `pathlib` takes eight times as long, for a million."""
    return posixpath.splitext(name)[1].lower()


def is_junk(name: str) -> bool:
    """Whether a relative path belongs to an operating system, file browser or editor instead of the data."""
    return any(part.startswith(".") or part in JUNK_NAMES for part in name.split("/"))


@dataclass(frozen=True)
class Listing:
    """Files of a data set by their relative POSIX path."""

    names: frozenset[str]
    junk: int
    """Number of files and folders that are not data."""

    folders: frozenset[str] = frozenset()
    """Folders, with a trailing slash, that are known even if they hold no file."""
    times: Mapping[str, list[int]] = field(default_factory=dict)
    """`times_of` each of these folders, before it was read."""

    def images(self, where: str) -> tuple[list[str], str | None]:
        """Sorted names of images, and one sentence on what else there is, if anything.

        Args:
            where: the data set, for messages.

        Raises:
            DataError: no images, or photographs in a format that is not read.
        """
        allowed = {suffix for suffixes in IMAGE_FORMATS.values() for suffix in suffixes}
        images, others = [], []
        for name in sorted(self.names):
            suffix = suffix_of(name)
            if suffix in allowed:
                images.append(name)
            elif suffix in OTHER_IMAGES:
                raise DataError(f"{where}: {name}: expected another format than {suffix}, which is not read")
            elif posixpath.basename(name) != DATASET_JSON:
                others.append(name)
        shown = ", ".join([*others[:3], *(["hidden files"] if self.junk else [])])
        if not images:
            raise DataError(
                f"{where}: expected images ({', '.join(sorted(allowed))}), found no images{shown and f', but {shown}'}"
            )
        count = len(others) + self.junk
        return images, f"{count} files or folders are not images and were left out: {shown}" if count else None


def shards_of(names: Iterable[str]) -> list[str]:
    """Those names that are shards, in natural order; none if an image or `.npz` is among the names, too."""
    suffixes = {name: suffix_of(name) for name in names}
    if any(suffix == ".npz" or any(suffix in one for one in IMAGE_FORMATS.values()) for suffix in suffixes.values()):
        return []
    return sorted((name for name, suffix in suffixes.items() if suffix in SHARDS and "/" not in name), key=natural)


def list_names(names: Iterable[str]) -> Listing:
    """A listing of files by name, such as the members of a zip."""
    found = list(names)
    data = frozenset(name for name in found if not is_junk(name))
    folders = frozenset(name for name in data if name.endswith("/"))
    return Listing(data - folders, sum(not name.endswith("/") for name in found) - len(data - folders), folders)


def times_of(status: os.stat_result) -> list[int]:
    """What changes when a name comes into a folder or leaves it, or when a file is replaced."""
    return [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def list_folder(folder: Path, start: str = "") -> Listing:
    """Files below a folder, through links.

    A real folder counts once, by its own place rather than by a link to it, so that links cannot repeat images. Files
    are not examined one by one: there may be a million.

    Args:
        folder: names are relative to it.
        start: subfolder to list, with a trailing slash; empty: everything.

    Raises:
        DataError: a link that leads nowhere.
    """
    names: list[str] = []
    visited: dict[str, list[int]] = {}
    seen: set[tuple[int, int]] = set()
    junk, folders, links = 0, deque([start]), deque[str]()
    while folders or links:
        prefix = (folders or links).popleft()
        status = (folder / prefix).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        visited[prefix] = times_of(status)
        with os.scandir(folder / prefix) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if is_junk(entry.name):
                    junk += 1
                elif entry.is_symlink() and not (link := Path(entry.path)).exists():
                    raise DataError(f"{link}: expected a file or folder, got a link to {link.readlink()}: not found")
                elif entry.is_dir():
                    (links if entry.is_symlink() else folders).append(f"{prefix}{entry.name}/")
                elif entry.is_file():
                    names.append(prefix + entry.name)
                else:  # a pipe, socket or device, which a reader might wait for
                    junk += 1
    return Listing(frozenset(names), junk, frozenset(visited), visited)


def data_root(place: Path) -> Path:
    """The folder of a data set that holds its classes: itself, or Kaggle's below it."""
    return place / KAGGLE_TRAIN if (place / KAGGLE_TRAIN).is_dir() else place


def check_parts(names: Sequence[str], place: Path, where: str, *, several: bool = False) -> None:
    """Refuse images in folders that are parts of a data set, such as train and val.

    Args:
        names: of the images, relative to the data set.
        place: of the data set.
        where: the same, for messages.
        several: a single folder is no mistake, whatever its name.

    Raises:
        DataError: with the likely folder.
    """
    folders = sorted({name.partition("/")[0] for name in names if "/" in name})
    training = [folder for folder in folders if TRAINING.fullmatch(folder)]
    whole = all(PARTS.fullmatch(folder) for folder in folders)
    both = training and any(EVALUATION.fullmatch(folder) for folder in folders)
    nested = training and len({"/".join(n.split("/")[1:-1]) for n in names if n.startswith(f"{training[0]}/")}) > 1
    if len(folders) > several and (whole or both or nested):
        likely = [*training, *(folder for folder in folders if "train" in folder.lower()), folders[0]]
        refuse_folders(folders, place, where, likely[0])


def refuse_folders(folders: Sequence[str], place: Path, where: str, likely: str) -> NoReturn:
    """Raise DataError for folders that are no classes, with the one that is likely meant."""
    found = ", ".join(folders[:5]) + (" ..." if len(folders) > 5 else "")
    raise DataError(f"{where}: expected one data set, got folders {found} (did you mean {place / likely}?)")


def order_note(folders: Sequence[str]) -> str | None:
    """One sentence if class folders that contain numbers are not in the order of the numbers.

    Args:
        folders: in the order of their labels, which is that of torchvision's `ImageFolder`.
    """
    by_number = sorted(folders, key=natural)
    for label, (folder, other) in enumerate(zip(folders, by_number, strict=True)):
        if folder != other:
            return (
                f"class folders are sorted as text, as torchvision's ImageFolder does, not by number: label {label} is "
                f"{folder!r}, not {other!r}"
            )
    return None
