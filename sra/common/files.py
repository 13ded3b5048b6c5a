"""Write files atomically: a file is either complete or absent. Torch-free."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sra.common.errors import DataError, UserError

MAX_DEPTH = 50
"""Levels of JSON documents that are read; those of this suite have ten."""
MAX_SHOWN = 40
"""Characters of a number that are shown in an error."""
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names of unfinished files, as `replacing` makes them."""
UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK, errno.EPERM)
"""Errors of a system call that a file system does not have."""


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it when the block succeeds, removed when it fails.

    A device or pipe is itself written to.

    Args:
        path: of the finished file.
        durable: whether to fsync; not needed for many small files that can be made again.
    """
    if _is_device(path):
        with naming(path):
            yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with naming(path, temporary):
            # Not by `tempfile`, whose files only their owner may read: this one gets the mode that the umask gives.
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            if temporary.stat().st_mode != mode:
                # safetensors, like `tempfile`, makes a file of its own.
                with without("chmod", path):
                    temporary.chmod(stat.S_IMODE(mode))
            if durable:
                sync(temporary)
            temporary.replace(path)
            if durable:
                sync(path.parent)
    except OSError:
        raise
    except Exception as error:
        # safetensors gives the system's error as text.
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left of a file, which may be many gigabytes; no other process may be writing it."""
    for unfinished in path.parent.glob(f".{path.name}.{'[0-9a-f]' * 8}"):
        unfinished.unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    """Whether a path is a device or pipe, such as /dev/stdout: to move a file there would destroy it."""
    return path.exists() and (path.parent == Path("/dev") or not (path.is_file() or path.is_dir()))


@contextmanager
def naming(place: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name the file in an error of the operating system that names none: of a failed write, or of an fsync.

    Args:
        place: the file.
        temporary: an unfinished file that stands for it.
    """
    try:
        yield
    except OSError as error:
        # An error without a number would lose its message for the name.
        if error.errno is not None and error.filename in (None, "", temporary and str(temporary)):
            error.filename = str(place)
        raise


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk: a file's own fsync does not cover its name."""
    with without("fsync", path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def without(what: str, path: Path) -> Iterator[None]:
    """Do without a system call that a file system does not have, with one warning.

    Args:
        what: its name, for the warning.
        path: where it is called.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _warn_once(what, str(path), os.strerror(error.errno).lower())


_warned: set[str] = set()


def _warn_once(what: str, place: str, reason: str) -> None:
    if what not in _warned:
        _warned.add(what)
        print(f"warning: {place}: this file system has no {what} ({reason}); done without", file=sys.stderr, flush=True)


@contextmanager
def named_in_utf8(path: Path) -> Iterator[Path]:
    """A name of a file that exists, for libraries that open none whose name is not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with path.open("rb") as handle:
            yield Path(f"/proc/self/fd/{handle.fileno()}")
    else:
        yield path


def make_executable(path: Path) -> None:
    """Let everybody run a file who may read it."""
    mode = path.stat().st_mode
    with without("chmod", path):
        path.chmod(mode | (mode & 0o444) >> 2)


def check_place(path: Path, option: str) -> None:
    """Refuse a file that could not be written, before the work whose result it gets; leaves nothing behind.

    Args:
        path: of the file.
        option: that names it, for the error.

    Raises:
        UserError: a folder is there.
        OSError: the folder cannot be written to.
    """
    if path.is_dir():
        raise UserError(f"{option} {path}: expected a file, got a folder")
    if _is_device(path):
        return
    folder = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = f"{option} {folder}"
        raise


def sweep(folder: Path) -> None:
    """Remove unfinished files of a killed process from a folder and its subfolders.

    Only for a folder that no process writes to: files of a running `replacing` are removed too.
    """
    for place in (folder, *(entry for entry in folder.iterdir() if entry.is_dir())):
        for path in place.glob(".*"):
            if path.is_file() and TEMPORARY.fullmatch(path.name):
                path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically; in ASCII, which any locale reads and any file name can be written in."""
    write_bytes(path, (json.dumps(document, indent=2) + "\n").encode())


def parse_json(content: bytes | str, where: str) -> Any:
    """A JSON document with finite numbers of at most 64 bits.

    Args:
        content: of the file.
        where: the file, for the error.

    Raises:
        DataError: not JSON in UTF-8, nested too deeply, or another number.
    """
    try:
        document = json.loads(content, parse_constant=_number, parse_float=_number, parse_int=_number)
    except (ValueError, RecursionError) as error:
        reason = "too many brackets" if isinstance(error, RecursionError) else error
        raise DataError(f"{where}: expected JSON, got {reason}") from error
    if not _is_flat(document, MAX_DEPTH):
        raise DataError(f"{where}: expected JSON with at most {MAX_DEPTH} levels, got more")
    return document


def _number(text: str) -> int | float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:MAX_SHOWN]}")
    if not text.lstrip("-").isdigit():
        return value
    if abs(value) >= 2**63:
        raise ValueError(f"the number {text[:MAX_SHOWN]}")
    return int(text)


def _is_flat(value: Any, levels: int) -> bool:
    """Whether lists and mappings are nested at most so deep."""
    if not isinstance(value, (dict, list)):
        return True
    parts = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(part, levels - 1) for part in parts)


def load_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none.

    Raises:
        DataError: there is something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return None
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    document = parse_json(content, str(path))
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document


def read_json(path: Path) -> dict[str, Any] | None:
    """`load_json`, and None for a damaged file: for what a run writes again by itself."""
    try:
        return load_json(path)
    except DataError:
        return None


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


EMBEDDED = "embedded:"
"""Before the name of data or a network that ships with the suite, in the place of a path."""


def is_embedded(place: str) -> bool:
    """Whether a place is data or a network that ships with the suite."""
    return place.startswith(EMBEDDED)


COST_TABLE = ("perf.json", "SRA_BENCH_PERF")
"""File name and environment variable of the speeds that `sra-bench perf` measures and `plan` uses."""


def cache_file(name: str, variable: str) -> Path:
    """Path of a user's cache file: $variable, else `sra-bench/NAME` in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return home_path(os.environ.get(variable) or cache / "sra-bench" / name)


def home_path(path: str | Path) -> Path:
    """A path in which `~` is the home folder; it stays if the system knows none."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser fails without a home
