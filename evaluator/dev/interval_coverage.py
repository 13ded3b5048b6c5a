"""Measure the coverage of the 95 % intervals: `python -m evaluator.dev.interval_coverage` prints a Markdown table.

Sample sets of known Gaussians are drawn again and again against one fixed reference. The truth is the mean of the
metric over all of them: the expectation at that number of images, with the error of a mean of so many.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluator.metrics import intervals
from evaluator.metrics.frechet import frechet_distance, gaussian
from evaluator.metrics.inception_score import score_of_pool
from evaluator.metrics.precision_recall import exact_precision_recall
from sra.common.program import program

Array = np.ndarray[Any, Any]
METRICS = ("fid", "is", "precision", "recall")
CLASSES = 20


@dataclass(frozen=True)
class Case:
    """Gaussians with variances 1, 1/2, 1/3, ...; the samples' are `scale`d and shifted by `shift` in each direction."""

    name: str
    width: int
    samples: int
    references: int
    scale: float
    shift: float


CASES = (
    Case("equal", 16, 500, 500, 1.0, 0.0),
    Case("equal, wide", 64, 500, 500, 1.0, 0.0),
    Case("a little off", 32, 1000, 1000, 1.05, 0.02),
    Case("narrow", 16, 1000, 500, 0.8, 0.1),
    Case("wide apart", 32, 500, 1000, 1.2, 0.2),
    Case("fewer images than features", 64, 60, 500, 1.0, 0.1),
    Case("few images", 8, 100, 100, 0.9, 0.1),
)


def repeat(case: Case, repetitions: int) -> dict[str, Array]:
    """(repetitions, 3) value, low end, high end of each metric."""
    generator = np.random.default_rng(0)
    deviations = np.arange(1, case.width + 1) ** -0.5
    weights = generator.normal(size=(case.width, CLASSES)).astype(np.float32)

    def draw(count: int, scale: float, shift: float) -> Array:
        return (scale * generator.normal(size=(count, case.width)) * deviations + shift).astype(np.float32)

    reference = draw(case.references, 1.0, 0.0)
    rows = [_measure(draw(case.samples, case.scale, case.shift), reference, weights) for _ in range(repetitions)]
    return {metric: np.array([row[number] for row in rows]) for number, metric in enumerate(METRICS)}


def _measure(samples: Array, reference: Array, weights: Array) -> list[list[float]]:
    own, other = gaussian(samples), gaussian(reference)
    fid = frechet_distance(own, other)
    score = score_of_pool(samples, weights)
    precision, recall, coverage = exact_precision_recall(reference, samples)
    return [
        [fid, *intervals.frechet_interval(fid, samples, own, other)],
        [score.value, *intervals.inception_interval(score)],
        [precision, *intervals.precision_interval(precision, len(samples))],
        [recall, *intervals.recall_interval(recall, coverage)],
    ]


def covered_share(found: Array) -> float:
    """Share of (repetitions, 3) rows whose interval holds the mean value."""
    truth = found[:, 0].mean()
    return float(np.mean((found[:, 1] <= truth) & (truth <= found[:, 2])))


def main() -> None:
    """Print a line for each case: mean value and coverage of each metric."""
    parser = argparse.ArgumentParser(prog="python -m evaluator.dev.interval_coverage", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=200)
    repetitions = parser.parse_args().repetitions
    print("| samples | features | images | references | " + " | ".join(METRICS) + " |")
    print("|---" * (4 + len(METRICS)) + "|")
    for case in CASES:
        found = repeat(case, repetitions)
        cells = [f"{found[m][:, 0].mean():.3g}: {100 * covered_share(found[m]):.1f} %" for m in METRICS]
        facts = [case.name, case.width, case.samples, case.references]
        print("| " + " | ".join([*map(str, facts), *cells]) + " |", flush=True)


if __name__ == "__main__":
    with program():
        main()
