"""The record that each tool writes for each sample set. Standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sra.common.files import replacing

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Numbers of one tool on one sample set, or why there are none."""

    tool: str
    """`adm`, `adm_torch`, `clean_fid` or `torch_fidelity`."""
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
    views: dict[str, Any] = field(default_factory=dict)
    """Pictures and counts beside the numbers: their files, and the samples that they show."""
    seconds: float = 0.0
    """Wall-clock time."""
    error: str | None = None
    """Why the tool could not run."""

    def write(self, path: Path) -> None:
        """Write as JSON, atomically.

        Raises:
            EvaluatorError: the place cannot be written.
        """
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, allow_nan=False)
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
