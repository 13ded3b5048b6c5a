"""Options of the tools, as their jobs take them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.plan.stages import EXTRACTOR_TOOLS, PROTOCOL_TOOLS


@dataclass(frozen=True, kw_only=True)
class ToolOptions:
    """How `sra-bench evaluate` is to score: what concerns all tools, and what concerns some."""

    cache: Path | None = None
    """Folder of cached features; None: they are not kept."""
    expect_images: int | None = None
    """Refuse samples of another number."""
    trust_statistics: bool = False
    """Score samples by the statistics that their file brings."""
    allow_other_size: bool = False
    """Score against a reference of another resolution."""
    intervals: bool = True
    """Estimate 95 % intervals."""

    extractor: str = "own"
    """Network of clean-fid and torch-fidelity: their `own`, or the `graph`'s, converted."""
    assets: Path | None = None
    """Folder of their own weights; default: $SRA_BENCH_ASSETS."""
    views: Path | None = None
    """Folder for class histograms and nearest references, in a folder of each tool's name."""

    def argv(self, tool: str) -> list[str]:
        """The part of a tool's command line."""
        command = [*self._shared(), *(["--extractor", self.extractor] if tool in EXTRACTOR_TOOLS else [])]
        if tool in EXTRACTOR_TOOLS and self.assets:
            command += ["--assets", str(self.assets)]
        if tool in PROTOCOL_TOOLS and self.views:
            command += ["--views", str(self.views / tool)]
        return command

    def _shared(self) -> list[str]:
        command = ["--cache", str(self.cache)] if self.cache else []
        command += ["--expect-images", str(self.expect_images)] if self.expect_images is not None else []
        command += ["--trust-statistics"] if self.trust_statistics else []
        command += ["--allow-other-size"] if self.allow_other_size else []
        return [*command, *([] if self.intervals else ["--no-intervals"])]
