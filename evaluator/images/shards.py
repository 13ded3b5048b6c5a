"""Images in shards: tar files (WebDataset's layout) and parquet files (Hugging Face's), which are read in place."""

from __future__ import annotations

import io
import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from sra.common.archives import MAX_MEMBER_BYTES
from sra.common.errors import DataError
from sra.common.listing import check_parts, list_folder, list_names, natural, shards_of, suffix_of

NUMBERED = re.compile(r"(.*?)(\d+)(?:-of-(\d+))?")
"""Stem of a shard: 000123, train-000123 or train-00012-of-00034."""
HEADER_BYTES, END_BYTES = 1 << 16, 1 << 20
"""Of a tar: the longest header (of names) that is read, and of its padding at the end."""
CLASS = ".cls"
"""Suffix of the file with an image's class."""
Row = tuple[str, bytes]
"""Name and content of an image."""


class Shards(Protocol):
    """Encoded images of some files."""

    @property
    def notes(self) -> list[str]:
        """What was left out."""

    def rows(self) -> Iterator[Row]:
        """Every image, in order."""

    def labels(self) -> list[int] | None:
        """The class of every image, or None."""


def open_shards(path: Path) -> Shards | None:
    """The shards of a file or folder; None if it has none. A folder has shards only if no image lies in it.

    Raises:
        DataError: shards of several sets or with a gap, damaged ones, or parquet files without pyarrow.
    """
    if path.is_dir():
        # Listing a folder of a million images takes seconds: only if there are shards at all.
        names = shards_of(entry.name for entry in path.iterdir()) and shards_of(list_folder(path).names)
        _check_names(path, names)
        files = [path / name for name in names]
    else:
        files = [path] if path.is_file() and shards_of([path.name]) else []
    if not files:
        return None
    if files[0].suffix.lower() == ".tar":
        return Tars(path, files)
    try:
        from evaluator.images.parquet import Parquet  # pyarrow need not be installed
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: expected pyarrow, which reads parquet files: install sra-bench[parquet]") from error
    return Parquet(path, files)


def _check_names(folder: Path, names: Sequence[str]) -> None:
    """Refuse shards of several sets, and sets of which a shard is missing."""
    parts = [(NUMBERED.fullmatch(posixpath.splitext(name)[0]), suffix_of(name)) for name in names]
    sets = {(found[1], found[3], suffix) if found else name for name, (found, suffix) in zip(names, parts, strict=True)}
    if len(sets) > 1:
        raise DataError(f"{folder}: expected numbered shards of one set, got {names[0]} and {names[-1]}")
    numbers = {int(found[2]) for found, _ in parts if found}
    if numbers:
        total = next(found[3] for found, _ in parts if found)
        wanted = range(int(total)) if total else range(min(numbers), max(numbers))
        missing = next((number for number in wanted if number not in numbers), None)
        if missing is not None:
            raise DataError(f"{folder}: expected shards without a gap, got none with number {missing}")


class _Member(NamedTuple):
    file: Path
    offset: int
    size: int


class Tars:
    """Tar files; the images of each in natural order of their names."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.members: dict[str, _Member] = {}
        for file in files:
            self.members.update(_members(file))
        images = list_names(name for name in self.members if suffix_of(name) != CLASS)
        names, note = images.images(str(path))
        check_parts([name.partition("/")[2] for name in names], path, str(path), several=True)
        self.names, self.notes = sorted(names, key=natural), [note] if note else []

    def rows(self) -> Iterator[Row]:
        """Every image, in order."""
        return ((name, self._content(name)) for name in self.names)

    def labels(self) -> list[int] | None:
        """The numbers in the `.cls` files beside images; None if there are none.

        Raises:
            DataError: an image without one, or one that holds no number.
        """
        if not any(suffix_of(name) == CLASS for name in self.members):
            return None
        return [self._label(name) for name in self.names]

    def _label(self, name: str) -> int:
        # The name up to its first dot is that of the sample; what follows says what each of its files holds.
        folder, _, base = name.rpartition("/")
        place = f"{folder}/{base.partition('.')[0]}{CLASS}"
        content = self._content(place) if place in self.members else b"nothing"
        if not content.strip().isdigit():
            raise DataError(f"{place}: expected a class, a whole number of 0 or more, got {content[:20]!r}")
        return int(content)

    def _content(self, name: str) -> bytes:
        member = self.members[name]
        with member.file.open("rb") as handle:
            handle.seek(member.offset)
            return handle.read(member.size)


class _Headers(io.FileIO):
    """A file of which only headers are read: a hostile tar may say that a name has the length of all of it."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _members(file: Path) -> dict[str, _Member]:
    """Files of a tar by name, below that of the tar.

    Raises:
        DataError: damaged, cut off or compressed, links or devices, files of one name, or one too large for an image.
    """
    found: dict[str, _Member] = {}
    end = 0
    try:
        with _Headers(file) as handle, tarfile.open(fileobj=handle, mode="r:") as archive:
            while (info := archive.next()) is not None:
                size = 0 if info.isdir() else info.size
                end = info.offset_data + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if info.isdir():
                    continue
                name = posixpath.normpath(f"{file.name}/{info.name}")
                if not info.isreg() or info.issparse() or not 0 <= size <= MAX_MEMBER_BYTES or name in found:
                    raise tarfile.ReadError(f"{info.name}: a link, a device, a second one, or {info.size:,} bytes")
                found[name] = _Member(file, info.offset_data, size)
        _check_end(file, end)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{file}: expected a whole tar file without compression, got {error}") from error
    return found


def _check_end(file: Path, end: int) -> None:
    """Where the last member ends there are zeros and nothing else: `tarfile` takes a damaged header for the end."""
    with file.open("rb") as handle:
        handle.seek(end)
        rest = handle.read(END_BYTES)
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
        raise tarfile.ReadError(f"something else than its end at byte {end:,}")
