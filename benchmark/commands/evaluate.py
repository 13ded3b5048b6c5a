"""`sra-bench evaluate`: score samples with each tool in a separate process."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.assets.catalogue import PREFIX, find, folder, located, remedy
from benchmark.manifest.schema import TOOLS
from benchmark.plan.stages import EXTRACTOR_TOOLS
from benchmark.report.crosscheck import disagreements
from benchmark.run.executor import interpreter_of
from benchmark.run.process import run_job
from evaluator.tools import (
    FURTHER_SETS,
    NETWORKS,
    OF_TRAINING,
    PROTOCOL_TOOLS,
    TOOL_MODULES,
    further_sets,
    optional_metric,
    score_record,
)
from evaluator.tools.score_record import CleanFidSettings, ScoreRecord
from sra.common.errors import one_of
from sra.common.files import is_embedded
from sra.common.tables import text_table
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
    metrics: tuple[str, ...] = ()
    """More than the protocol's."""
    training: Path | None = None
    """Images that the model was trained on."""
    validation: Path | None = None
    """Images of the same kind that it was not trained on."""
    extractor: str = "own"
    """Network of clean-fid and torch-fidelity: their `own`, or the `graph`'s, converted."""
    assets: Path | None = None
    """Folder of weights; default: $SRA_BENCH_ASSETS."""
    views: Path | None = None
    """Folder for class histograms and nearest references, in a folder of each tool's name."""

    def argv(self, tool: str) -> list[str]:
        """The part of a tool's command line."""
        command = [*self._shared(), *(["--extractor", self.extractor] if tool in EXTRACTOR_TOOLS else [])]
        if tool in EXTRACTOR_TOOLS and self.assets:
            command += ["--assets", str(self.assets)]
        if tool in PROTOCOL_TOOLS:
            command += ["--views", str(self.views / tool)] if self.views else []
            command += ["--metrics", *self.metrics] if self.metrics else []
        for name in further_sets(tool, self.metrics):
            command += [f"--{name}", str(place)] if (place := getattr(self, name)) else []
        return command

    def _shared(self) -> list[str]:
        command = ["--cache", str(self.cache)] if self.cache else []
        command += ["--expect-images", str(self.expect_images)] if self.expect_images is not None else []
        command += ["--trust-statistics"] if self.trust_statistics else []
        command += ["--allow-other-size"] if self.allow_other_size else []
        return [*command, *([] if self.intervals else ["--no-intervals"])]


def score_samples(
    samples: Path, references: list[Path], graph: str, tools: list[str] | None, options: ToolOptions | None = None
) -> tuple[list[dict[str, Any]], str]:
    """Scores of one sample set by each tool against each reference, and a table of them.

    Features that a tool caches are computed once for all references.

    Raises:
        UserError: a file is not there, or the tools refuse it.
    """
    check_images({"--samples": samples})
    for reference in references:
        check_images({"--reference": reference})
    own = options or ToolOptions()
    for tool in tools or ():
        if tool not in TOOL_MODULES:
            raise UserError(one_of("--tool", tool, TOOL_MODULES))
    for name in FURTHER_SETS:
        if place := getattr(own, name):
            check_images({f"--{name}": place})
            if not any(name in further_sets(tool, own.metrics) for tool in tools or TOOLS):
                users = f"--metrics {' or '.join(OF_TRAINING)} with adm, or --tool {', '.join(NETWORKS)}"
                raise UserError(f"--{name}: expected what uses it ({users}), got none")
    graphs = {tool: _weights(tool, own) if tool in NETWORKS else graph_file(graph) for tool in tools or TOOLS}
    try:
        list(map(optional_metric, own.metrics))
    except ValueError as error:
        raise UserError(f"--metrics: {error}") from error
    documents, texts = [], []
    with contextlib.ExitStack() as stack:
        if len(references) > 1 and not own.cache:
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="sra-bench-features-"))
            own = replace(own, cache=Path(temporary))
        for number, reference in enumerate(references, 1):
            views = own.views / f"reference-{number}" if own.views and len(references) > 1 else own.views
            argv = replace(own, views=views).argv
            records = {tool: _score(tool, samples, reference, where, argv(tool)) for tool, where in graphs.items()}
            documents.append(_document(records))
            texts += [f"reference: {reference}"] if len(references) > 1 else []
            texts.append(_text(records, documents[-1]["cross_check"]))
    return documents, "\n".join(texts)


def _document(records: dict[str, ScoreRecord]) -> dict[str, Any]:
    """What `--json` writes of one reference."""
    return {
        "schema": 2,
        "metrics": {tool.replace("-", "_"): r.metrics for tool, r in records.items()},
        "intervals": {tool.replace("-", "_"): r.intervals for tool, r in records.items()},
        "errors": {tool.replace("-", "_"): r.error for tool, r in records.items() if r.error},
        "cross_check": disagreements(records),
        "records": {tool: score_record.dump(r) for tool, r in records.items()},
    }


def _text(records: dict[str, ScoreRecord], warnings: list[str]) -> str:
    rows = [row for record in records.values() for row in _rows(record)]
    remarks = [remark for record in records.values() for remark in _remarks(record)]
    table = [text_table((), rows, left=(0, 1, 3))] if rows else []
    return "\n".join([*table, *remarks, *(f"warning: {text}" for text in warnings)])


def check_images(places: dict[str, Path]) -> None:
    """Refuse image sets that are not there.

    Args:
        places: by the option that names them.

    Raises:
        UserError: one is missing.
    """
    for name, place in places.items():
        if not place.exists():
            raise UserError(f"{name} {place}: expected a .npz file, a folder or a zip of images, got no such file")


def convert_inception(graph: str, out: Path) -> str:
    """Take the Inception network out of a frozen graph; returns what was written, in words.

    Raises:
        UserError: not such a graph, or a place that cannot be written.
    """
    command = [sys.executable, "-m", "evaluator.inception.convert", graph_file(graph), str(out)]
    return run_job("convert-inception", command, capture=True).strip()


def graph_file(name: str) -> str:
    """Path of a frozen graph, or `embedded:digits`.

    Raises:
        UserError: no such graph, with the remedy.
    """
    where = located(name)
    if not is_embedded(where) and not Path(where).is_file():
        how = remedy(where)
        allowed = "a frozen .pb file, asset:inception-graph or embedded:digits"
        raise UserError(f"--graph {name}: expected {allowed}, got no such file{f' ({how})' if how else ''}")
    return where


def _weights(tool: str, options: ToolOptions) -> str:
    """File of a network's weights.

    Raises:
        UserError: not there, with the remedy.
    """
    asset = find(NETWORKS[tool].removeprefix(PREFIX))
    place = asset.place(options.assets or folder())
    if not place.is_file():
        raise UserError(f"--tool {tool}: expected its weights, {place}: not found (`sra-bench fetch {asset.name}`)")
    return str(place)


def _score(tool: str, samples: Path, reference: Path, graph: str, options: list[str]) -> ScoreRecord:
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "scores.json"
        module = TOOL_MODULES[tool]
        command = [interpreter_of(module), "-m", module, "--samples", str(samples), "--json", str(record)]
        run_job(tool, [*command, "--reference", str(reference), "--graph", graph, *options])
        return score_record.read(record)


def _rows(record: ScoreRecord) -> list[tuple[str, str, str, str]]:
    """Tool, metric, value and interval of each metric."""
    rows = []
    for name, value in record.metrics.items():
        interval = record.intervals.get(name)
        ends = f"[{interval[0]:.6g}, {interval[1]:.6g}]" if interval else ""
        rows.append((str(record.tool), name, f"{value:.6g}", ends))
    return rows


def _remarks(record: ScoreRecord) -> list[str]:
    """Why the tool or one of its metrics could not run, and its warnings."""
    if record.error:
        return [f"{record.tool}: could not run: {record.error}"]
    reasons = record.settings.reasons if isinstance(record.settings, CleanFidSettings) else {}
    remarks = [f"{record.tool}: {name}: {reason}" for name, reason in reasons.items()]
    remarks += [f"{record.tool}: no {name}: {reason}" for name, reason in record.absent.items()]
    return [*remarks, *(f"{record.tool}: warning: {text}" for text in record.warnings)]
