"""What a user can mend, each message one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class EvaluatorError(Exception):
    """Bad input: which file, what was found, what is allowed. Ends a tool with exit code 2."""


class ToolError(Exception):
    """A tool that cannot run here; its reason stands in the table, and the other tools still count."""


def nearest(name: str, found: Iterable[str]) -> str:
    """`; is it 'x'?` for the closest found name, else the empty string."""
    match = get_close_matches(name, list(found), n=1, cutoff=0.3)
    return f"; is it {match[0]!r}?" if match else ""
