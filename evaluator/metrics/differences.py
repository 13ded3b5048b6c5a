"""Differences of metrics between two sample sets, from what each image contributes to them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from evaluator.metrics.inception_score import InceptionScore
from evaluator.metrics.intervals import Interval, around
from evaluator.metrics.rows import Array

PERMUTATIONS = 9999
BATCH_VALUES = 5_000_000
"""Numbers permuted at a time."""


class Difference(NamedTuple):
    """Second set minus first."""

    value: float
    interval: Interval
    """95 %."""
    p: float
    """Of the permutation test: how often sets with exchanged images differ as much; at least 1 / 10,000."""


def frechet_contributions(value: float, without: Array) -> Array:
    """(N,) contributions of images to a Frechet distance, from those without each: the jackknife's pseudo-values."""
    count = len(without)
    return count * value - (count - 1) * without


def inception_contributions(score: InceptionScore) -> Array:
    """(N,) contributions to an Inception score, to first order; their mean is the score."""
    parts = zip(score.splits, score.divergences, strict=True)
    images = sum(map(len, score.divergences)) / len(score.splits)
    return np.concatenate([split * images / len(part) * (1 + part - part.mean()) for split, part in parts])


def difference(values: tuple[float, float], first: Array, second: Array) -> Difference:
    """The difference of a metric between two sample sets, its interval and its test.

    Sets of equal size are paired by place: if image i of both has the same label or noise, what they share cancels; if
    not, pairing changes nothing in expectation.

    Args:
        values: of the metric.
        first: (N,) contributions of the images of the first set.
        second: (M,) of the second.
    """
    paired = len(first) == len(second)
    data = (second - first,) if paired else (second, first)
    error = math.sqrt(sum(float(part.var(ddof=1)) / len(part) for part in data))
    found = stats.permutation_test(
        data,
        _mean_difference,
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, BATCH_VALUES // sum(map(len, data))),
        rng=np.random.default_rng(0),
    )
    change = values[1] - values[0]
    return Difference(change, around(change, error), float(found.pvalue))


def independent(values: tuple[float, float], first: Interval, second: Interval) -> Interval:
    """95 % interval of a difference, second minus first, from the intervals of both as independent sets."""
    change = values[1] - values[0]
    below = math.hypot(values[1] - second[0], first[1] - values[0])
    return change - below, change + math.hypot(second[1] - values[1], values[0] - first[0])


def _mean_difference(first: Array, second: Array | None = None, axis: int = -1) -> Array:
    return np.asarray(first.mean(axis=axis) - (0 if second is None else second.mean(axis=axis)))
