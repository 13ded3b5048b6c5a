"""Options of single tools, as their jobs take them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.plan import EXTRACTING, PROTOCOL_TOOLS


@dataclass(frozen=True, kw_only=True)
class ToolOptions:
    """What concerns some of the tools only."""

    extractor: str = "own"
    """Network of clean-fid and torch-fidelity: their `own`, or the `graph`'s, converted."""
    assets: Path | None = None
    """Folder of their own weights; default: $SRA_BENCH_ASSETS."""
    views: Path | None = None
    """Folder for class histograms and nearest references, in a folder of each tool's name."""

    def argv(self, tool: str) -> list[str]:
        """The part of a tool's command line."""
        command = ["--extractor", self.extractor] if tool in EXTRACTING else []
        if tool in EXTRACTING and self.assets:
            command += ["--assets", str(self.assets)]
        if tool in PROTOCOL_TOOLS and self.views:
            command += ["--views", str(self.views / tool)]
        return command
