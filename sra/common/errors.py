"""Exceptions for errors that a user can fix; every message is one line."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

BAD_INPUT = 2
"""Exit code after a `UserError`."""
STOPPED = 75
"""Exit code after a request to stop with the work saved (EX_TEMPFAIL); the same command continues."""


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


def disk_trouble(error: OSError, place: str) -> str | None:
    """One line for a full, read-only or otherwise unusable disk; None for any other error.

    Args:
        error: of the system call.
        place: the output, if the error names no file.
    """
    reasons = {
        errno.ENOSPC: "no space left on the disk",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "larger than the limit on a file's size",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission denied",
        errno.EEXIST: "expected a folder, got a file",
        errno.ENOTDIR: "expected a folder, got a file",
    }
    reason = reasons.get(error.errno or 0)
    return reason and f"{error.filename or place}: {reason}; nothing finished is lost, the same command continues"


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the process with one line on standard error and exit code 2 after a `UserError` or a full disk."""
    try:
        yield
    except (UserError, OSError) as error:
        message = str(error) if isinstance(error, UserError) else disk_trouble(error, "the output")
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)


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
