"""`sra-bench evaluate`: score samples with each tool in a separate process."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.assets.catalogue import located, remedy
from benchmark.manifest.schema import TOOLS
from benchmark.plan.run_directory import read_json
from benchmark.plan.stages import EXTRACTOR_TOOLS, PROTOCOL_TOOLS
from benchmark.report.crosscheck import disagreements
from benchmark.run.executor import interpreter_of
from benchmark.run.process import run_job
from evaluator.tools import TOOL_MODULES, score_record
from sra.config import UserError


@dataclass(frozen=True, kw_only=True)
class ToolOptions:
    """Options of scoring jobs; each tool takes those that it has."""

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


def score_samples(
    samples: Path, reference: Path, graph: str, tools: list[str] | None, options: ToolOptions | None = None
) -> tuple[dict[str, Any], str]:
    """Scores of one sample set by each tool, and a table of them.

    Raises:
        UserError: a file is not there, or the tools refuse it.
    """
    for name, place in (("--samples", samples), ("--reference", reference)):
        if not place.exists():
            raise UserError(f"{name} {place}: not found; a .npz file, a folder or a zip of images is needed")
    where, own = _graph(graph), options or ToolOptions()
    records = {tool: _score(tool, samples, reference, where, own.argv(tool)) for tool in tools or TOOLS}
    warnings = disagreements({tool: score_record.parse(record, tool) for tool, record in records.items()})
    document = {
        "schema": 1,
        "metrics": {tool.replace("-", "_"): r["metrics"] for tool, r in records.items()},
        "intervals": {tool.replace("-", "_"): r.get("intervals", {}) for tool, r in records.items()},
        "errors": {tool.replace("-", "_"): r["error"] for tool, r in records.items() if r.get("error")},
        "cross_check": warnings,
        "records": records,
    }
    lines = [line for tool, record in records.items() for line in _lines(tool, record)]
    return document, "\n".join([*lines, *(f"warning: {text}" for text in warnings)])


def convert_inception(graph: str, out: Path) -> str:
    """Take the Inception network out of a frozen graph; returns what was written, in words.

    Raises:
        UserError: not such a graph, or a place that cannot be written.
    """
    command = [sys.executable, "-m", "evaluator.inception.convert", _graph(graph), str(out)]
    return run_job("convert-inception", command, capture=True).strip()


def _graph(name: str) -> str:
    where = located(name)
    if not where.startswith("embedded:") and not Path(where).is_file():
        raise UserError(f"--graph {name}: not found{_remedy(where)}")
    return where


def _remedy(place: str) -> str:
    how = remedy(place)
    return f": {how}" if how else "; a frozen .pb file, asset:inception-graph or embedded:digits is needed"


def _score(tool: str, samples: Path, reference: Path, graph: str, options: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "scores.json"
        command = [
            interpreter_of(TOOL_MODULES[tool]),
            "-m",
            TOOL_MODULES[tool],
            "--samples",
            str(samples),
            "--json",
            str(record),
        ]
        command += ["--reference", str(reference), "--graph", graph, *options]
        run_job(tool, command)
        found = read_json(record)
    assert found is not None, f"{tool} left no record"
    return found


def _lines(tool: str, record: dict[str, Any]) -> list[str]:
    if record.get("error"):
        return [f"{tool:16} could not run: {record['error']}"]
    intervals = record.get("intervals", {})
    lines = [
        f"{tool:16} {name:22} {value:.6g}{_interval(intervals.get(name))}"
        for name, value in record["metrics"].items()
        if value is not None
    ]
    lines += [f"{tool:16} warning: {text}" for text in record.get("warnings", [])]
    return lines + [f"{tool:16} {name:22} {why}" for name, why in record["settings"].get("reasons", {}).items()]


def _interval(ends: list[float] | None) -> str:
    return f"  [{ends[0]:.6g}, {ends[1]:.6g}]" if ends else ""
