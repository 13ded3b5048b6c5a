"""What a user can mend: one family of exceptions, each message one line."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input: which file and key, what was found, what is allowed. Ends a job with exit code 2."""


class ConfigError(UserError, ValueError):
    """A setting that does not exist or does not fit the others."""


class DataError(UserError):
    """A file that is missing, damaged or of another shape than the settings say."""


def disk_trouble(error: OSError, place: str) -> str | None:
    """One line for a disk that takes no more, or nothing at all; None for any other error.

    Args:
        error: what the system said.
        place: what was being written, where the error names no file.
    """
    reasons = {
        errno.ENOSPC: "no space left on the disk",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "larger than the limit on a file's size",
        errno.EROFS: "the file system is read-only",
    }
    reason = reasons.get(error.errno or 0)
    return reason and f"{error.filename or place}: {reason}; nothing finished is lost, the same command continues"


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest allowed name, else the empty string."""
    match = get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
