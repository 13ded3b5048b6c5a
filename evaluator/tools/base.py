"""Shared by all tools: command line, input checks, one record per sample set, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluator.features import statistics
from evaluator.images.image_set import ImageSet, open_images, without_images
from evaluator.inception.graph import Graph, resolve
from evaluator.metrics.differences import difference, independent
from evaluator.metrics.memorisation import Copies, Training
from evaluator.metrics.rows import Array, Rows
from evaluator.tools import FURTHER_SETS, Tool, score_record
from evaluator.tools.score_record import (
    ClassScore,
    DifferenceRecord,
    ImageSetFacts,
    Interval,
    MetricDifference,
    NamedFile,
    NearestTraining,
    ScoreRecord,
    Settings,
    Views,
)
from sra.common.errors import EvaluatorError, ToolError, printable
from sra.common.files import check_place, write_json
from sra.common.npz import has_images
from sra.common.program import program

NO_IMAGES = "the reference has statistics and no images"
PICKLES = (".pt", ".pth", ".pkl", ".pickle")
"""Of statistics, as torch-fidelity caches them."""


@dataclass(frozen=True)
class Task:
    """What one process scores: several sample sets against one reference."""

    reference: ImageSet
    samples: list[ImageSet]
    graph: Graph
    cache: Path | None
    options: argparse.Namespace
    """All options, the tool's own among them."""
    training: ImageSet | None = None
    validation: ImageSet | None = None

    def require_images(self) -> None:
        """Refuse a reference of statistics alone.

        Raises:
            ToolError: this tool needs its images.
        """
        if not self.reference.count:
            raise ToolError(f"{self.reference.path}: expected images in the reference, got statistics alone")

    def require_more_images(self, than: int) -> None:
        """Refuse sets of few images; a reference may have statistics alone.

        Raises:
            EvaluatorError: the set, and how many it has.
        """
        for images in filter(None, (self.reference, *self.samples, self.training, self.validation)):
            if images.count <= than and not (images is self.reference and images.count == 0):
                raise EvaluatorError(f"{images.path}: expected more than {than} images, got {images.count}")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Metrics of one sample set, and how they were computed."""

    metrics: dict[str, float]
    settings: Settings | None
    absent: dict[str, str] = field(default_factory=dict)
    """Metrics that were not computed, and why."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    views: Views | None = None
    classes: tuple[ClassScore, ...] = ()
    copies: tuple[NearestTraining, ...] = ()
    warnings: tuple[str, ...] = ()
    contributions: dict[str, Array] = field(default_factory=dict)
    """(N,) of each image to a metric, where the tool is asked for them."""


def run(
    tool: Tool,
    version: str | None,
    score: Callable[[Task], list[Result]],
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Parse the command line, score every sample set, write a record for each.

    Args:
        tool: name in the records.
        version: of the package that computes the metrics.
        score: one result a sample set, in order.
        add_options: adds options of this tool.
    """
    with program():
        options = _parse(tool, add_options)
        places = [("--json", path) for path in options.json]
        places += [("--cache", options.cache / "x")] if options.cache else []
        places += [("--views", folder / "x") for folder in getattr(options, "views", None) or ()]
        places += [("--differences", options.differences)] if getattr(options, "differences", None) else []
        for option, path in places:
            check_place(path, option)
        _score(tool, version, score, options)


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard what C++ code writes to standard error, which Python's streams do not see."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def add_further_sets(parser: argparse.ArgumentParser) -> None:
    """Add options of image sets beside samples and reference."""
    parser.add_argument("--training", type=Path, help="images that the model was trained on")
    parser.add_argument("--validation", type=Path, help="images of the same kind that it was not trained on")


def training_of(task: Task, features: Callable[[ImageSet], Rows]) -> Training | None:
    """Training images, and validation images if there are some, to which samples are compared; None: not given."""
    if task.training is None:
        return None
    return Training(features(task.training), features(task.validation) if task.validation else None)


def warnings_of(copies: Copies) -> tuple[str, ...]:
    """Of validation images that are training images; features may depend on the batch, so that some are not seen."""
    distances = copies.validation
    if distances is None or distances.all():
        return ()
    same = f"{(distances == 0).sum()} of {len(distances)}"
    return (f"validation: at least {same} images have the features of a training image",)


def _parse(tool: Tool, add_options: Callable[[argparse.ArgumentParser], None] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Score samples with {tool}.")
    parser.add_argument("--samples", type=Path, nargs="+", required=True)
    parser.add_argument("--json", type=Path, nargs="+", required=True, help="one record a sample set")
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--cache", type=Path, help="folder of cached features")
    help_expect = "refuse sample sets of another number of images: one for all, or one each"
    parser.add_argument("--expect-images", type=int, nargs="+", help=help_expect)
    parser.add_argument("--first", type=int, help="score only so many first images of each sample set")
    parser.add_argument("--trust-statistics", action="store_true", help="use statistics stored in the samples' file")
    parser.add_argument("--allow-other-size", action="store_true", help="accept a reference of another resolution")
    parser.add_argument("--no-intervals", action="store_true", help="do not estimate intervals")
    if add_options:
        add_options(parser)
    options = parser.parse_args()
    sets, expected = len(options.samples), options.expect_images
    if sets != len(options.json):
        parser.error(f"--json: expected {sets} files (one a sample set), got {len(options.json)}")
    if expected and len(expected) not in (1, sets):
        parser.error(f"--expect-images: expected 1 or {sets} numbers, got {len(expected)}")
    return options


def _score(
    tool: Tool, version: str | None, score: Callable[[Task], Sequence[Result]], options: argparse.Namespace
) -> None:
    started = time.monotonic()
    graph = resolve(options.graph)
    samples = [open_images(path) for path in options.samples]
    samples = [images.first(options.first) for images in samples] if options.first else samples
    reference = _open_reference(options.reference, samples[0])
    training, validation = (
        open_images(path) if (path := getattr(options, name, None)) else None for name in FURTHER_SETS
    )
    named = (("reference", reference), ("training", training), ("validation", validation))
    others = {name: images for name, images in named if images}
    expected = options.expect_images or [None]
    for images, count in zip(samples, expected * (len(samples) // len(expected)), strict=True):
        _check(images, others, count, allow_other_size=options.allow_other_size)
    error: str | None = None
    results: Sequence[Result] = [Result(metrics={}, settings=None)] * len(samples)
    task = Task(reference, samples, graph, options.cache, options, training, validation)
    try:
        results = score(task)
    except ToolError as reason:
        error = str(reason)
        print(f"{tool} could not run: {error}", flush=True)
    seconds = (time.monotonic() - started) / len(samples)
    for images, result, path in zip(samples, results, options.json, strict=True):
        metrics = {name: value for name, value in result.metrics.items() if math.isfinite(value)}
        lost = {name: f"not finite: {value}" for name, value in result.metrics.items() if name not in metrics}
        record = ScoreRecord(
            tool=tool,
            version=version,
            metrics=metrics,
            absent=result.absent | lost,
            intervals={name: ends for name, ends in result.intervals.items() if all(map(math.isfinite, ends))},
            samples=_facts(images),
            reference=_facts(reference),
            training=_facts(training) if training else None,
            validation=_facts(validation) if validation else None,
            graph=NamedFile(name=graph.name, sha256=graph.sha256),
            warnings=(*_warnings(images, others), *result.warnings),
            settings=result.settings,
            views=result.views,
            classes=result.classes,
            copies=result.copies,
            seconds=round(seconds, 3),
            error=error,
        )
        _show(record)
        score_record.write(record, path)
    if place := getattr(options, "differences", None):
        write_json(place, _differences(task, results).model_dump(mode="json"))


def _differences(task: Task, results: Sequence[Result]) -> DifferenceRecord:
    """The second sample set against the first."""
    first, second = results
    found = {}
    for name in (name for name in first.metrics if name in second.metrics):
        values = first.metrics[name], second.metrics[name]
        sides = [one.contributions.get(name) for one in results]
        change, interval, p = values[1] - values[0], None, None
        if sides[0] is not None and sides[1] is not None:
            print(f"{name}: difference", flush=True)
            change, interval, p = difference(values, sides[0], sides[1])
        elif name in first.intervals and name in second.intervals:
            interval = independent(values, first.intervals[name], second.intervals[name])
        found[name] = MetricDifference(first=values[0], second=values[1], difference=change, interval=interval, p=p)
    a, b = task.samples
    return DifferenceRecord(
        samples=(_facts(a), _facts(b)),
        reference=_facts(task.reference),
        graph=NamedFile(name=task.graph.name, sha256=task.graph.sha256),
        paired=a.count == b.count,
        metrics=found,
    )


def _open_reference(path: Path, samples: ImageSet) -> ImageSet:
    """The images of a reference, or none if it has statistics instead."""
    if path.suffix in PICKLES and path.is_file():
        raise EvaluatorError(
            f"--reference {path}: expected an .npz file, got a pickle, which is not read: it could run anything (write "
            "its mu and sigma with np.savez)"
        )
    # Its statistics are read and checked where they are used; here, of a file without images alone.
    if zipfile.is_zipfile(path) and not has_images(path) and statistics.read(path) is not None:
        return without_images(path, samples.shape)
    return open_images(path)


def _facts(images: ImageSet) -> ImageSetFacts:
    return ImageSetFacts(
        path=printable(str(images.path)),
        sha256=images.sha256(),
        count=images.count,
        shape=(*images.shape, 3),
        duplicates=images.findings.duplicates,
    )


def _check(images: ImageSet, others: dict[str, ImageSet], expected: int | None, *, allow_other_size: bool) -> None:
    if expected not in (None, images.count):
        raise EvaluatorError(f"{images.path}: expected {expected} images (--expect-images), got {images.count}")
    for name, other in others.items():
        if images.shape != other.shape and not allow_other_size:
            raise EvaluatorError(
                f"--{name} {other.path}: expected images of the samples' size {_size(images)} "
                f"(or --allow-other-size), got {_size(other)}"
            )


def _size(images: ImageSet) -> str:
    """Height and width in pixels."""
    return " x ".join(map(str, images.shape))


def _warnings(images: ImageSet, others: dict[str, ImageSet]) -> list[str]:
    warnings = images.warnings()
    for name, other in others.items():
        warnings += [f"{name}: {warning}" for warning in other.warnings()]
        if images.shape != other.shape:
            warnings.append(f"samples are {_size(images)}, {name} images {_size(other)}: --allow-other-size")
    return list(map(printable, warnings))


def _show(record: ScoreRecord) -> None:
    place = Path(record.samples.path)
    shown = ", ".join(f"{name} {value:.6g}" for name, value in record.metrics.items())
    print(f"{place.absolute().parent.name}/{place.name}: {shown}", flush=True)
    for name, reason in record.absent.items():
        print(f"no {name}: {reason}", flush=True)
    for warning in record.warnings:
        print(f"warning: {place}: {warning}", flush=True)
