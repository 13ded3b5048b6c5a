"""Zip archives of strangers: what cannot be read, or is too large to be, is one line. Torch-free."""

from __future__ import annotations

import contextlib
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sra.common.errors import DataError

METHODS = {
    zipfile.ZIP_STORED: "none",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    zipfile.ZIP_LZMA: "lzma",
}
"""Compressions that Python reads."""
OTHER_METHODS = {9: "deflate64", 20: "zstd", 93: "zstd", 95: "xz", 98: "ppmd"}
ENCRYPTED_OR_PATCHED = 0x1 | 0x20 | 0x40
"""Bits of a member's flags."""
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
"""What zipfile raises for archives that are not whole."""
MAX_MEMBER_BYTES = 1_000_000_000
"""Of an image: none is that large, but a damaged or hostile file may say so."""
MAX_RATIO, FREE_BYTES = 200, 1 << 28
"""Content larger than the second is refused if it is this many times as large as the archive. JSON shrinks 30 times."""


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive, or `.npz`.

    Raises:
        DataError: missing, damaged, of another format, or absurdly large; also if that shows when a member is read.
    """
    kind = path.suffix if path.suffix in (".npz", ".zip") else ".zip"
    try:
        with open_zip(path) as archive:
            yield archive
    except DAMAGED as error:
        problem = f"expected a whole {kind} file, got a damaged one or another format: {error}"
        raise DataError(f"{path}: {problem}") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: not found") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip archive, for callers with an error of their own.

    Raises:
        zipfile.BadZipFile: not a zip file, or a damaged one.
        DataError: absurdly large, or with two members of one name.
        OSError: it cannot be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise zipfile.BadZipFile("a pipe or device")  # To open it might wait for a writer.
    try:
        archive = zipfile.ZipFile(path)
    except (ValueError, NotImplementedError, struct.error) as error:  # names that are not UTF-8, offsets below zero
        raise zipfile.BadZipFile(str(error)) from error
    _check_size(archive, path)
    names = archive.namelist()
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{path}: expected each member once, got {twice} twice")
    return archive


def open_member(archive: zipfile.ZipFile, name: str, where: str) -> IO[bytes]:
    """A member of an archive, for reading.

    Args:
        archive: from `open_archive`.
        name: of the member.
        where: the member, for the error.

    Raises:
        DataError: encrypted, or compressed by a method that Python does not have.
    """
    info = archive.getinfo(name)
    if info.flag_bits & ENCRYPTED_OR_PATCHED:
        raise DataError(f"{where}: expected no encryption, got an encrypted member")
    if info.compress_type not in METHODS:
        got = OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise DataError(f"{where}: expected compression {' or '.join(METHODS.values())}, got {got}: pack it again")
    return archive.open(info)


def _check_size(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse an archive that would become absurdly large, before anything is unpacked.

    Raises:
        DataError: with both sizes.
    """
    size, packed = sum(info.file_size for info in archive.infolist()), path.stat().st_size
    if size > max(FREE_BYTES, MAX_RATIO * packed):
        raise DataError(
            f"{path}: expected content of at most {MAX_RATIO} times the archive's {packed:,} bytes, got {size:,}"
        )
