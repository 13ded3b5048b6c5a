"""Measure the coverage of the 95 % intervals: `python -m evaluator.dev.interval_coverage` prints a Markdown table.

Sample sets of known distributions are drawn again and again against one fixed reference. The truth is the mean of the
metric over all of them: the expectation at that number of images, with the error of a mean of so many.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evaluator.metrics import extrapolation, intervals
from evaluator.metrics.frechet import Gaussian, frechet_distance, gaussian
from evaluator.metrics.inception_score import score_of_pool
from evaluator.metrics.precision_recall import exact_precision_recall
from sra.common.program import program

Array = np.ndarray[Any, Any]
Kind = Literal["normal", "pooled", "heavy", "inception"]
METRICS = ("fid", "is", "precision", "recall")
CLASSES = 20


MAX_SHARE_IMAGES = 10_000
"""Precision and recall of more images would take longer than all else."""
FACTORS, SIGMA, INCEPTION_SIGMA = 256, 0.7, 0.6
"""Of correlated features: their independent causes; standard deviation of the logarithms of `heavy` ones, and of
`inception` ones."""


@dataclass(frozen=True)
class Case:
    """A distribution of features and numbers of images; the samples are `scale`d and shifted by `shift` everywhere.

    `normal` features are independent, with variances 1, 1/2, 1/3, ... The others are correlated through common causes
    with such variances, never negative and skewed: `pooled` ones, like those of Inception, are squares of normal ones,
    `heavy` ones are log-normal, so that few images decide. `inception` ones are log-normal, too, of as many causes as
    features and of many sizes, so that the variances of their covariance fall as a power law to the last.
    """

    name: str
    width: int
    samples: int
    references: int
    scale: float
    shift: float
    kind: Kind = "normal"


CASES = (
    Case("equal", 16, 500, 500, 1.0, 0.0),
    Case("equal, wide", 64, 500, 500, 1.0, 0.0),
    Case("a little off", 32, 1000, 1000, 1.05, 0.02),
    Case("narrow", 16, 1000, 500, 0.8, 0.1),
    Case("wide apart", 32, 500, 1000, 1.2, 0.2),
    Case("fewer images than features", 64, 60, 500, 1.0, 0.1),
    Case("few images", 8, 100, 100, 0.9, 0.1),
)
LARGE_CASES = (
    Case("pooled, equal", 512, 2000, 2000, 1.0, 0.0, "pooled"),
    Case("pooled, apart", 512, 2000, 2000, 0.9, 0.05, "pooled"),
    Case("pooled, apart", 2048, 5000, 5000, 0.9, 0.05, "pooled"),
    Case("heavy, equal", 512, 2000, 2000, 1.0, 0.0, "heavy"),
    Case("heavy, apart", 512, 2000, 2000, 0.9, 0.05, "heavy"),
    Case("heavy, apart", 512, 50_000, 10_000, 0.9, 0.05, "heavy"),
    Case("heavy, equal", 2048, 5000, 5000, 1.0, 0.0, "heavy"),
    Case("heavy, apart", 2048, 5000, 5000, 0.9, 0.05, "heavy"),
    Case("heavy, apart", 2048, 50_000, 10_000, 0.9, 0.05, "heavy"),
)

SHIFTS: dict[Kind, float] = {"normal": 0.02, "pooled": 0.05, "heavy": 0.05, "inception": 0.03}
PREDICTED_CASES = tuple(
    Case(f"{kind}, apart", 512, samples, 2500, 1.1 if kind == "normal" else 0.9, shift, kind)
    for kind, shift in SHIFTS.items()
    for samples in (1250, 2500)
)
TRUTH_IMAGES_PER_FEATURE = 200
"""Images from which the FID of infinitely many is known."""

LOOKS_CASE = Case("inception, apart", 2048, 50_000, 10_000, 0.9, 0.03, "inception")
LOOKS, TRUTH_SETS = (5000, 10_000), 8
"""The first images of a set, from which the FID of all is predicted; whole sets, whose mean FID is the truth."""


def repeat(case: Case, repetitions: Iterable[int]) -> dict[str, Array]:
    """(repetitions, 3) value, low end, high end of each metric; each repetition has a generator of its own number."""
    reference, samples, weights = drawn(case, repetitions)
    other = gaussian(reference)
    rows = [_measure(x, reference, other, weights) for x in samples]
    return {metric: np.array([row[number] for row in rows]) for number, metric in enumerate(METRICS)}


def drawn(case: Case, repetitions: Iterable[int]) -> tuple[Array, Iterator[Array], Array]:
    """References, sample sets, and a classifier's weights."""
    fixed = np.random.default_rng(0)
    weights = fixed.normal(size=(case.width, CLASSES)).astype(np.float32)
    mixing = fixed.normal(size=(FACTORS, case.width)).astype(np.float32)
    if case.kind == "inception":
        levels = fixed.normal(size=case.width).astype(np.float32) / 2 - 1
        spread = 1 / np.sqrt(np.arange(1, case.width + 1))
        spread *= np.sqrt(case.width / (spread @ spread))
        turned = (spread[:, None] * np.linalg.qr(fixed.normal(size=(case.width, case.width)))[0]).astype(np.float32)

    def draw(generator: np.random.Generator, count: int, scale: float, shift: float) -> Array:
        if case.kind == "inception":
            causes = generator.standard_normal((count, case.width), np.float32) @ turned
            return np.asarray(scale * np.exp(INCEPTION_SIGMA * causes + levels) + shift, np.float32)
        variances = 1 / np.arange(1, (case.width if case.kind == "normal" else FACTORS) + 1)
        x = generator.normal(size=(count, len(variances))) * np.sqrt(variances)
        if case.kind != "normal":
            causes = x.astype(np.float32) @ (mixing * variances.sum() ** -0.5)
            own = generator.normal(size=causes.shape).astype(np.float32)
            x = 0.8 * causes + 0.6 * own
            x = x * x / 2 if case.kind == "pooled" else np.exp(SIGMA * x - 1)
        return (scale * x + shift).astype(np.float32)

    reference = draw(fixed, case.references, 1.0, 0.0)
    generators = (np.random.default_rng([1, number]) for number in repetitions)
    return reference, (draw(g, case.samples, case.scale, case.shift) for g in generators), weights


def _measure(samples: Array, reference: Array, other: Gaussian, weights: Array) -> list[list[float]]:
    own = gaussian(samples)
    fid = frechet_distance(own, other)
    score = score_of_pool(samples, weights)
    found = [
        [fid, *intervals.frechet_interval(fid, intervals.distances_without_each(samples, own, other))],
        [score.value, *intervals.inception_interval(score)],
    ]
    if len(samples) > MAX_SHARE_IMAGES:
        return [*found, [np.nan] * 3, [np.nan] * 3]
    precision, recall, coverage = exact_precision_recall(reference, samples)
    return [
        *found,
        [precision, *intervals.precision_interval(precision, len(samples))],
        [recall, *intervals.recall_interval(recall, coverage)],
    ]


def covered_share(found: Array) -> float:
    """Share of (repetitions, 3) rows whose interval holds the mean value."""
    truth = found[:, 0].mean()
    return float(np.mean((found[:, 1] <= truth) & (truth <= found[:, 2])))


def line(case: Case, found: dict[str, Array]) -> str:
    """A case as a line of the table: mean value and coverage of each metric."""
    cells = [f"{x[:, 0].mean():.3g}: {100 * covered_share(x):.1f} %" if x[0, 0] >= 0 else "-" for x in found.values()]
    facts = [case.name, case.width, case.samples, case.references, len(found[METRICS[0]])]
    return "| " + " | ".join([*map(str, facts), *cells]) + " |"


def predicted_line(case: Case, repetitions: int) -> str:
    """FID of infinitely many images, what is measured, and what is predicted: values and coverage."""
    reference, samples, _ = drawn(case, range(repetitions))
    other = gaussian(reference)
    many = replace(case, samples=TRUTH_IMAGES_PER_FEATURE * case.width)
    (large,) = drawn(many, [repetitions])[1]
    truth, _ = extrapolation.fit(large, gaussian(large), other).at(None)
    curves = [extrapolation.fit(x, gaussian(x), other) for x in samples]
    found = np.array([(curve.value, value, *ends) for curve in curves for value, ends in [curve.at(None)]])
    return _predicted_cells(case, truth, found)


def _predicted_cells(case: Case, truth: float, found: Array) -> str:
    """Rows (repetitions, 4) of measured and predicted FID with its interval, as a line of the table."""
    share = 100 * np.mean((found[:, 2] <= truth) & (truth <= found[:, 3]))
    half = (found[:, 3] - found[:, 2]).mean() / 2
    numbers = [f"{x:.3g}" for x in (truth, *found.mean(axis=0)[:2], found[:, 1].std(ddof=1), half)]
    facts = [case.name, case.width, case.samples, case.references, len(found), *numbers, f"{share:.0f} %"]
    return "| " + " | ".join(map(str, facts)) + " |"


def predicted_at(case: Case, repetitions: int, path: Path) -> Iterator[str]:
    """FID of all images of a set, predicted from the first ones: a line of a table for each of `LOOKS`.

    What was found is appended to a file, one JSON value a line, so that the same command continues after a stop.
    """
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    reference = drawn(case, [])[0]
    other = gaussian(reference)
    with path.open("a") as file:

        def add(value: float | list[list[float]]) -> None:
            found.append(value)
            file.write(json.dumps(value) + "\n")
            file.flush()

        for samples in drawn(case, range(len(found), TRUTH_SETS))[1]:
            add(frechet_distance(gaussian(samples), other))
        first = replace(case, samples=max(LOOKS))
        for samples in drawn(first, range(len(found), TRUTH_SETS + repetitions))[1]:
            curves = [extrapolation.fit(samples[:n], gaussian(samples[:n]), other) for n in LOOKS]
            add([[curve.value, value, *ends] for curve in curves for value, ends in [curve.at(case.samples)]])
    truth = float(np.mean(found[:TRUTH_SETS]))
    for number, count in enumerate(LOOKS):
        rows = np.array([looks[number] for looks in found[TRUTH_SETS:]])
        yield _predicted_cells(replace(case, samples=count), truth, rows)


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(prog="python -m evaluator.dev.interval_coverage", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--large", action="store_true", help="512 and 2,048 features, up to 50,000 images; takes hours")
    parser.add_argument("--predicted", action="store_true", help="FID predicted at infinitely many images instead")
    parser.add_argument(
        "--looks", type=Path, metavar="FILE", help="FID of 50,000 images predicted from the first; continues FILE"
    )
    options = parser.parse_args()
    if options.predicted or options.looks:
        numbers = "truth | measured | predicted | sd | half | coverage"
        print(f"| samples | features | images | references | repetitions | {numbers} |\n" + "|---" * 11 + "|")
        lines = (predicted_line(case, options.repetitions) for case in PREDICTED_CASES)
        for text in predicted_at(LOOKS_CASE, options.repetitions, options.looks) if options.looks else lines:
            print(text, flush=True)
        return
    print("| samples | features | images | references | repetitions | " + " | ".join(METRICS) + " |")
    print("|---" * (5 + len(METRICS)) + "|")
    for case in LARGE_CASES if options.large else CASES:
        print(line(case, repeat(case, range(options.repetitions))), flush=True)


if __name__ == "__main__":
    with program():
        main()
