"""What a user can mend, each message one line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

BAD_INPUT = 2
"""Exit code of a refusal."""


class EvaluatorError(Exception):
    """Bad input: which file, what was found, what is allowed. Ends a tool with exit code 2."""


class ToolError(Exception):
    """A tool that cannot run here; its reason stands in the table, and the other tools still count."""


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """End the process with one line and exit code 2 where input is refused."""
    try:
        yield
    except EvaluatorError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)


def nearest(name: str, found: Iterable[str]) -> str:
    """`; is it 'x'?` for the closest found name, else the empty string."""
    match = get_close_matches(name, list(found), n=1, cutoff=0.3)
    return f"; is it {match[0]!r}?" if match else ""
