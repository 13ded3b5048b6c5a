"""What the three tools share: arguments, the record of each sample set, exit codes."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from evaluator.errors import EvaluatorError, ToolError
from evaluator.graphs import Graph, resolve
from evaluator.samples import ImageSet, open_images
from evaluator.scores import Scores

BAD_INPUT = 2
STOPPED = 75
"""Exit code after SIGTERM or SIGINT; the same command continues."""


@dataclass(frozen=True)
class Task:
    """Everything one process scores: several sample sets against one reference."""

    reference: ImageSet
    samples: list[ImageSet]
    graph: Graph
    cache: Path | None


Result = tuple[dict[str, float | None], dict[str, object]]
"""Metrics, and the settings they were computed with."""


def run(tool: str, version: str | None, score: Callable[[Task], list[Result]]) -> None:
    """Parse, score every sample set, write a record for each.

    Args:
        tool: name in the records.
        version: of the package.
        score: a result per sample set, in order.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    options = _parse(tool)
    try:
        _score(tool, version, score, options)
    except EvaluatorError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)


def _stop(_number: int, _frame: FrameType | None) -> None:
    print("stopped; the same command continues", flush=True)
    sys.exit(STOPPED)


def _parse(tool: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Score samples with {tool}.")
    parser.add_argument("--samples", type=Path, nargs="+", required=True)
    parser.add_argument("--json", type=Path, nargs="+", required=True, help="one record a sample set")
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--cache", type=Path, help="folder of cached features")
    parser.add_argument("--trust-statistics", action="store_true", help="accept samples that bring statistics")
    options = parser.parse_args()
    if len(options.samples) != len(options.json):
        parser.error(f"{len(options.samples)} sample sets, {len(options.json)} records: one each")
    return options


def _score(tool: str, version: str | None, score: Callable[[Task], list[Result]], options: argparse.Namespace) -> None:
    started = time.monotonic()
    graph = resolve(options.graph)
    samples = [open_images(path) for path in options.samples]
    reference = open_images(options.reference)
    task = Task(reference, samples, graph, options.cache)
    error: str | None = None
    results: list[Result] = [({}, {}) for _ in samples]
    try:
        results = score(task)
    except ToolError as reason:
        error = str(reason)
        print(f"{tool} could not run: {error}", flush=True)
    seconds = (time.monotonic() - started) / len(samples)
    for images, (metrics, settings), path in zip(samples, results, options.json, strict=True):
        Scores(
            tool=tool,
            version=version,
            metrics=metrics,
            samples=images.facts(),
            reference=reference.facts(),
            graph={"name": graph.name, "sha256": graph.sha256},
            warnings=images.warnings(),
            settings=settings,
            seconds=round(seconds, 3),
            error=error,
        ).write(path)
        shown = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items() if value is not None)
        print(f"{images.path.parent.name}: {shown}", flush=True)
