"""The request of a command that takes a manifest: one object, built on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A manifest, and how to run it."""

    manifest: Path
    out: Path | None = None
    """Run directory; None: `runs/NAME`."""
    overrides: tuple[str, ...] = ()
    """`a.b=value` items."""
    variants: tuple[str, ...] = ()
    """Names of the variants to run; empty: all."""
    smoke: bool = False
    """Scale the manifest down to digits on a CPU."""
    processes: int | None = None
    """Processes of training and sampling; None: one per GPU, or 1."""
    until: str = "report"
    """Last kind of stage to run, or `report`."""
    accept_moved: bool = False
    """Take inputs of stages of version 0.1.0, known by place and time alone, for the same."""
    command: str = "sra-bench run"
    """Command line, for the report."""
