"""Write files atomically: a file is either complete or absent. Torch-free."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names of unfinished files, as `tempfile` makes them for `replacing`."""


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it when the block succeeds, removed when it fails.

    Args:
        path: of the finished file.
        durable: whether to fsync; not needed for many small files that can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        # A failed write or fsync names no file. An error without a number would lose its message for the name.
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk: a file's own fsync does not cover its name."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    """Write a JSON document atomically."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none or it is damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


COST_TABLE = ("perf.json", "SRA_BENCH_PERF")
"""File name and environment variable of the speeds that `sra-bench perf` measures and `plan` uses."""


def cache_file(name: str, variable: str) -> Path:
    """Path of a user's cache file: $variable, else `sra-bench/NAME` in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get(variable) or cache / "sra-bench" / name).expanduser()
