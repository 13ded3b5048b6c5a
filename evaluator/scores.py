"""The record that each tool writes for each sample set. Standard library only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Numbers of one tool on one sample set, or why there are none."""

    tool: str
    """`adm`, `clean_fid` or `torch_fidelity`."""
    version: str | None
    """Version of the package that computed them."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """Plain numbers."""
    intervals: dict[str, list[float]] = field(default_factory=dict)
    """[low, high] by metric, where estimated."""
    samples: dict[str, Any] = field(default_factory=dict)
    """Path, SHA-256, count, shape."""
    reference: dict[str, Any] = field(default_factory=dict)
    """Path, SHA-256, count."""
    graph: dict[str, Any] = field(default_factory=dict)
    """Name, SHA-256."""
    warnings: list[str] = field(default_factory=list)
    """What a reader must know."""
    settings: dict[str, Any] = field(default_factory=dict)
    """How the tool was set."""
    seconds: float = 0.0
    """Wall-clock time."""
    error: str | None = None
    """Why the tool could not run."""

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        document = {"schema": SCHEMA, **asdict(self)}
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
