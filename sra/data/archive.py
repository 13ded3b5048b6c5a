"""Members of a zip file by their place in it: the directory is read once, not by every process that reads images."""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sra.common import archives
from sra.common.errors import DataError

Array = np.ndarray[Any, Any]
_HEADER_BYTES = 30
"""Of a local header, before the name and the extra field."""


class Member(NamedTuple):
    """Where a member is."""

    offset: int
    """Of its local header."""
    stored: int
    """Bytes in the file."""
    size: int
    """Bytes of its content."""
    crc: int
    method: int
    """Of compression; -1: only `zipfile` can read it."""


def open_zip(place: str) -> zipfile.ZipFile:
    """A zip of images.

    Raises:
        DataError: not a zip file, or one whose content would be absurdly large.
    """
    try:
        return archives.open_zip(Path(place))
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"data.images {place}: expected a folder or a zip file, got: {error}") from error


def places(archive: zipfile.ZipFile, names: Sequence[str]) -> Array:
    """(N, 5) int64, the fields of `Member` for each name: 40 bytes a member, where `zipfile` keeps 700.

    Raises:
        DataError: a member that is too large for an image.
    """
    rows = np.empty((len(names), len(Member._fields)), np.int64)
    for row, info in zip(rows, map(archive.getinfo, names), strict=True):
        if (largest := max(info.compress_size, info.file_size)) > archives.MAX_MEMBER_BYTES:
            where = f"data.images {archive.filename}: {info.filename}"
            raise DataError(f"{where}: expected at most {archives.MAX_MEMBER_BYTES} bytes, got {largest}")
        plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & 1
        method = info.compress_type if plain else -1
        row[:] = (info.header_offset, info.compress_size, info.file_size, info.CRC, method)
    return rows


def read_member(place: str, member: Member) -> bytes:
    """Content of a member.

    Raises:
        zipfile.BadZipFile: not there, truncated or damaged.
    """
    file = _descriptor(place)
    header = os.pread(file, _HEADER_BYTES, member.offset)
    if len(header) < _HEADER_BYTES or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile("no local header where the directory says")
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    content = os.pread(file, member.stored, member.offset + _HEADER_BYTES + names)
    if member.method == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise zipfile.BadZipFile("truncated, or its checksum is wrong")
    return content


@functools.cache
def _descriptor(place: str) -> int:
    """The open file, for the life of this process."""
    return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
