"""What the tools share: arguments, checks of their inputs, the record of each sample set, exit codes."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from evaluator.images.image_set import ImageSet, open_images
from evaluator.inception.graph import Graph, resolve
from evaluator.tools.score_record import Scores
from sra.common.errors import STOPPED, EvaluatorError, ToolError, exit_on_user_error


@dataclass(frozen=True)
class Task:
    """Everything one process scores: several sample sets against one reference."""

    reference: ImageSet
    samples: list[ImageSet]
    graph: Graph
    cache: Path | None
    options: argparse.Namespace
    """All options, the tool's own among them."""


Metrics = Mapping[str, float | None]
Settings = Mapping[str, object]
Intervals = Mapping[str, list[float]]
Result = tuple[Metrics, Settings, *tuple[Intervals, ...]]
"""Metrics, the settings they were computed with, and (by a tool that estimates them) 95 % intervals [low, high]."""


def run(
    tool: str,
    version: str | None,
    score: Callable[[Task], list[Result]],
    extend: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Parse, score every sample set, write a record for each.

    Args:
        tool: name in the records.
        version: of the package.
        score: a result per sample set, in order.
        extend: adds options of the tool's own.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    options = _parse(tool, extend)
    with exit_on_user_error():
        _score(tool, version, score, options)


def _stop(_number: int, _frame: FrameType | None) -> None:
    print("stopped; the same command continues", flush=True)
    sys.exit(STOPPED)


def _parse(tool: str, extend: Callable[[argparse.ArgumentParser], None] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Score samples with {tool}.")
    parser.add_argument("--samples", type=Path, nargs="+", required=True)
    parser.add_argument("--json", type=Path, nargs="+", required=True, help="one record a sample set")
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--cache", type=Path, help="folder of cached features")
    help_expect = "refuse sample sets of another number of images: one for all, or one each"
    parser.add_argument("--expect-images", type=int, nargs="+", help=help_expect)
    parser.add_argument("--trust-statistics", action="store_true", help="accept samples that bring statistics")
    parser.add_argument("--allow-other-size", action="store_true", help="accept a reference of another resolution")
    parser.add_argument("--no-intervals", action="store_true", help="do not estimate intervals")
    if extend:
        extend(parser)
    options = parser.parse_args()
    sets, expected = len(options.samples), options.expect_images
    if sets != len(options.json):
        parser.error(f"{sets} sample sets, {len(options.json)} records: one each")
    if expected and len(expected) not in (1, sets):
        parser.error(f"{sets} sample sets, {len(expected)} --expect-images: one for all, or one each")
    return options


def _score(tool: str, version: str | None, score: Callable[[Task], list[Result]], options: argparse.Namespace) -> None:
    started = time.monotonic()
    graph = resolve(options.graph)
    samples = [open_images(path) for path in options.samples]
    reference = open_images(options.reference)
    expected = options.expect_images or [None]
    for images, count in zip(samples, expected * (len(samples) // len(expected)), strict=True):
        _check(images, reference, count, options)
    task = Task(reference, samples, graph, options.cache, options)
    error: str | None = None
    results: list[Result] = [({}, {}) for _ in samples]
    try:
        results = score(task)
    except ToolError as reason:
        error = str(reason)
        print(f"{tool} could not run: {error}", flush=True)
    seconds = (time.monotonic() - started) / len(samples)
    for images, (metrics, settings, *intervals), path in zip(samples, results, options.json, strict=True):
        record = Scores(
            tool=tool,
            version=version,
            metrics=dict(metrics),
            intervals=dict(intervals[0]) if intervals else {},
            samples=images.facts(),
            reference=reference.facts(),
            graph={"name": graph.name, "sha256": graph.sha256},
            warnings=_warnings(images, reference),
            settings={name: value for name, value in settings.items() if name != "views"},
            views=_views(settings),
            seconds=round(seconds, 3),
            error=error,
        )
        record.write(path)
        _show(images, record)


def _views(settings: Settings) -> dict[str, Any]:
    found = settings.get("views")
    return found if isinstance(found, dict) else {}


def _check(images: ImageSet, reference: ImageSet, expected: int | None, options: argparse.Namespace) -> None:
    if expected not in (None, images.count):
        raise EvaluatorError(f"{images.path}: {images.count} images, --expect-images {expected}")
    if images.shape != reference.shape and not options.allow_other_size:
        raise EvaluatorError(
            f"--reference {reference.path}: images are {_size(reference)}, those of {images.path} {_size(images)}; "
            "a reference of the samples' size is needed, or --allow-other-size"
        )


def _size(images: ImageSet) -> str:
    """Height and width in pixels."""
    return " x ".join(map(str, images.shape))


def _warnings(images: ImageSet, reference: ImageSet) -> list[str]:
    warnings = [*images.warnings(), *(f"reference: {warning}" for warning in reference.warnings())]
    if images.shape != reference.shape:
        warnings.append(
            f"the samples are {_size(images)}, the reference {_size(reference)}: a mismatch that was allowed"
        )
    return warnings


def _show(images: ImageSet, record: Scores) -> None:
    shown = ", ".join(f"{name} {value:.6g}" for name, value in record.metrics.items() if value is not None)
    print(f"{images.path.absolute().parent.name}: {shown}", flush=True)
    for warning in record.warnings:
        print(f"warning: {images.path}: {warning}", flush=True)
