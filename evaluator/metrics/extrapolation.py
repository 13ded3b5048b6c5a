"""FID at another number of images, after Chong and Forsyth 2020 (arXiv 1911.07023): a prediction, not a measurement.

The expected FID of n images is a smooth function of u = 1 / n. They fit a line to FIDs of random subsets. Here the
slope at u comes from the distances without each image, which is far less noisy, and the curvature from the slopes of
both halves of the images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from evaluator.metrics.frechet import Gaussian, frechet_distance, gaussian
from evaluator.metrics.intervals import QUANTILE, Interval, distances_without_each, jackknife_error
from evaluator.metrics.rows import Array, Rows


@dataclass(frozen=True)
class Curve:
    """Expected FID near 1 / n, for n images."""

    count: int
    value: float
    slope: float
    curvature: float
    deviation: float
    """Standard deviation of `value` over sample sets."""
    slope_deviation: float
    """Of `slope`, from both halves."""

    def at(self, count: int | None) -> tuple[float, Interval]:
        """FID expected at this number of images (None: infinitely many), and its 95 % interval.

        The interval includes the sampling noise of value and slope, and as error of the extrapolation all that the
        curvature changes.
        """
        step = (1 / count if count else 0.0) - 1 / self.count
        bend = self.curvature * step**2 / 2
        value, noise = self.value + self.slope * step + bend, math.hypot(self.deviation, self.slope_deviation * step)
        room = math.hypot(QUANTILE * noise, bend)
        return max(value, 0.0), (max(value - room, 0.0), max(value + room, 0.0))


class _Half:
    """One of each two consecutive rows, drawn at random, or the other: files may be sorted by class."""

    def __init__(self, rows: Rows, second: Array) -> None:
        self.rows, self.second, self.shape = rows, second, (len(second), rows.shape[1])

    def __len__(self) -> int:
        return len(self.second)

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(len(self))
        pairs = np.asarray(self.rows[2 * start : 2 * stop])
        return np.asarray(pairs[2 * np.arange(stop - start) + self.second[start:stop]])


def fit(features: Rows, own: Gaussian, reference: Gaussian) -> Curve:
    """The curve of features (N, D) with their statistics, against those of a reference."""
    value, slope, deviation = _slope(features, own, reference)
    second = np.random.default_rng(0).integers(0, 2, len(features) // 2)
    halves = (_Half(features, part) for part in (second, 1 - second))
    first, last = (_slope(half, gaussian(half), reference)[1] for half in halves)
    curvature = ((first + last) / 2 - slope) * len(features)
    return Curve(len(features), value, slope, curvature, deviation, abs(first - last) / 2)


def _slope(features: Rows, own: Gaussian, reference: Gaussian) -> tuple[float, float, float]:
    """FID, its derivative with respect to 1 / n, and its standard deviation."""
    count, value = len(features), frechet_distance(own, reference)
    without = distances_without_each(features, own, reference)
    return value, count * (count - 1) * (float(without.mean()) - value), jackknife_error(without)
