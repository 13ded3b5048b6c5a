"""Which files of a folder or zip are data: one rule for reading images, scoring, and the identity of inputs."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sra.common.errors import DataError

DATASET_JSON = "dataset.json"
"""Names and classes of a data set."""
JUNK_NAMES = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "lost+found", "$RECYCLE.BIN")
"""What operating systems and file servers leave beside files; names that begin with a dot are junk as well."""
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
OTHER_IMAGES = (".heic", ".heif", ".jxl", ".exr", ".dng", ".arw", ".cr2", ".cr3", ".nef", ".orf", ".raf", ".rw2")
"""Suffixes of photographs that are not read: leaving them out would change labels and counts."""


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key: numbers inside a name by their value."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]


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
            suffix = PurePosixPath(name).suffix.lower()
            if suffix in allowed:
                images.append(name)
            elif suffix in OTHER_IMAGES:
                raise DataError(f"{where}: {name}: expected another format than {suffix}, which is not read")
            elif PurePosixPath(name).name != DATASET_JSON:
                others.append(name)
        shown = ", ".join([*others[:3], *(["hidden files"] if self.junk else [])])
        if not images:
            raise DataError(
                f"{where}: expected images ({', '.join(sorted(allowed))}), found no images{shown and f', but {shown}'}"
            )
        count = len(others) + self.junk
        return images, f"{count} files or folders are not images and were left out: {shown}" if count else None


def list_names(names: Iterable[str]) -> Listing:
    """A listing of the members of a zip."""
    found = list(names)
    data = frozenset(name for name in found if not is_junk(name))
    folders = frozenset(name for name in data if name.endswith("/"))
    return Listing(data - folders, sum(not name.endswith("/") for name in found) - len(data - folders), folders)


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
    visited: list[str] = []
    seen: set[tuple[int, int]] = set()
    junk, folders, links = 0, deque([start]), deque[str]()
    while folders or links:
        prefix = (folders or links).popleft()
        status = (folder / prefix).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        visited.append(prefix)
        with os.scandir(folder / prefix) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if is_junk(entry.name):
                    junk += 1
                elif entry.is_symlink() and not (link := Path(entry.path)).exists():
                    raise DataError(f"{link}: expected a file or folder, got a link to {link.readlink()}: not found")
                elif entry.is_dir():
                    (links if entry.is_symlink() else folders).append(f"{prefix}{entry.name}/")
                else:
                    names.append(prefix + entry.name)
    return Listing(frozenset(names), junk, frozenset(visited))
