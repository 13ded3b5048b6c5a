"""Exceptions for errors that a user can fix; every message is one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from sra.common.startup import STOPPED as STOPPED

FALLS_SHORT = 1
"""Exit code of a check that ran and does not hold."""
BAD_INPUT = 2
"""Exit code after a `UserError`."""


class Stopped(BaseException):
    """The program was asked to stop; everything finished is saved."""


class UserError(Exception):
    """Bad input: which file and key, what is expected, what was given. Ends a job with exit code 2."""


class ConfigError(UserError, ValueError):
    """An unknown setting, or one that does not fit the others."""


class DataError(UserError):
    """A file that is missing, damaged or does not match the settings."""


class EvaluatorError(UserError):
    """Samples, a reference or a graph that cannot be scored."""


class ToolError(Exception):
    """A scoring tool that cannot run here; the table shows the reason, and the other tools still count."""


REASONS = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "larger than the limit on a file's size",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the file server has lost the file",
}
"""Words for a disk that fails; nothing finished is lost."""
EXPECTED_FOLDER = (errno.EEXIST, errno.ENOTDIR)
WITHOUT_NAME = (*REASONS, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
"""Errors of the machine, also where the system call has no file name; others without a name are bugs."""


def system_trouble(error: OSError) -> str | None:
    """One line for what the operating system refused; None for an error that names neither file nor machine."""
    if error.errno == errno.ENOENT and error.filename is None:
        return _without_a_place(error)
    if error.errno is None or (error.filename is None and error.errno not in WITHOUT_NAME):
        return None
    place = "the output" if error.filename is None else os.fsdecode(error.filename)
    if error.errno in REASONS:
        return f"{place}: {REASONS[error.errno]}; nothing finished is lost, the same command continues"
    if error.errno in EXPECTED_FOLDER:
        return f"{place}: expected a folder, got a file"
    reason = (error.strerror or os.strerror(error.errno)).lower()
    return f"{place}: {reason}"


def _without_a_place(error: OSError) -> str | None:
    """One line if the current folder has been removed, or there is no folder for temporary files."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current folder has been removed; change to another one"
    return f"TMPDIR: {error.strerror}" if "temporary" in str(error.strerror) else None


def printable(text: str) -> str:
    """Text for people and records: bytes of a file name that are not UTF-8 as escapes."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def expected(where: str, what: str, got: object, near: Iterable[str] = ()) -> str:
    """One line of the form `<where>: expected X, got Y (did you mean Z?)`.

    Args:
        where: file, option or key, as the user wrote it.
        what: allowed values, in words.
        got: the given value; a string is quoted.
        near: allowed names, of which the closest to `got` is suggested.
    """
    return f"{where}: expected {what}, got {got!r}{did_you_mean(str(got), near)}"


def one_of(where: str, got: str, allowed: Iterable[str]) -> str:
    """`expected` for a name from a list.

    Args:
        where: file, option or key, as the user wrote it.
        got: the unknown name.
        allowed: all names that are allowed there.
    """
    names = list(allowed)
    return expected(where, f"one of {', '.join(names)}", got, names)


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest allowed name, else the empty string."""
    match = get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""
