"""Which files of a folder or zip are data: one rule for reading images, scoring, and the identity of inputs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sra.common.errors import DataError

DATASET_JSON = "dataset.json"
"""Names and classes of a data set."""
JUNK_NAMES = ("__MACOSX", "Thumbs.db", "desktop.ini")
"""What macOS and Windows leave beside files; names that begin with a dot are junk as well."""


def is_junk(name: str) -> bool:
    """Whether a relative path belongs to an operating system, file browser or editor instead of the data."""
    return any(part.startswith(".") or part in JUNK_NAMES for part in name.split("/"))


@dataclass(frozen=True)
class Listing:
    """Files of a data set by their relative POSIX path."""

    names: frozenset[str]
    junk: int
    """Number of files and folders that are not data."""

    def images(self, suffixes: Iterable[str]) -> tuple[list[str], str | None]:
        """Sorted names with one of these lower-case suffixes, and one sentence on what else there is, if anything."""
        allowed = tuple(suffixes)
        images = sorted(name for name in self.names if PurePosixPath(name).suffix.lower() in allowed)
        others = sorted(n for n in self.names.difference(images) if PurePosixPath(n).name != DATASET_JSON)
        count = len(others) + self.junk
        if not count:
            return images, None
        shown = ", ".join([*others[:3], *(["hidden files"] if self.junk else [])])
        return images, f"{count} files or folders are not images and were left out: {shown}"


def list_names(names: Iterable[str]) -> Listing:
    """A listing of the members of a zip."""
    files = [name for name in names if not name.endswith("/")]
    data = frozenset(name for name in files if not is_junk(name))
    return Listing(data, len(files) - len(data))


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
    seen: set[tuple[int, int]] = set()
    junk, folders, links = 0, deque([start]), deque[str]()
    while folders or links:
        prefix = (folders or links).popleft()
        status = (folder / prefix).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
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
    return Listing(frozenset(names), junk)
