"""FID at another number of images: a prediction, not a measurement.

The expected FID of n images is a smooth function of u = 1 / n. Chong and Forsyth 2020 (arXiv 1911.07023) fit a line to
FIDs of random subsets. Here its value and slope at u come from the distances without each image, which is far less
noisy, and how the slope changes from what is known of eigenvalues of sample covariances (Marchenko and Pastur 1967,
Silverstein 1995): `docs/intervals.md` derives it. The FIDs of both halves of the images check the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from evaluator.metrics.frechet import Gaussian, frechet_distance, gaussian
from evaluator.metrics.intervals import QUANTILE, STEP, Interval, Removals, jackknife_error, remove_each
from evaluator.metrics.rows import Array, Rows


@dataclass(frozen=True)
class Curve:
    """Expected FID as a function of the number of images, from `count` of them."""

    count: int
    removals: Removals
    missed: float = 0.0
    """FID of half of the images, minus what the curve says."""

    @property
    def value(self) -> float:
        """FID of all images at hand."""
        return self.removals.value

    @property
    def deviation(self) -> float:
        """Standard deviation of `value` over sample sets."""
        return jackknife_error(self.removals.distances)

    def at(self, count: int | None) -> tuple[float, Interval]:
        """FID expected at this number of images (None: infinitely many), and its 95 % interval.

        To second order, the curve is as wrong at infinity as at half of the images. Half of that is added, and as error
        of the extrapolation the interval includes as much, so that it holds both none and all of it.
        """
        more = 1 - (self.count / count if count else 0.0)
        correction = self.missed / 2 * more**2
        value, room = self.expected(count) + correction, math.hypot(QUANTILE * self._deviation(more), correction)
        return max(value, 0.0), (max(value - room, 0.0), max(value + room, 0.0))

    def expected(self, count: int | None) -> float:
        """FID at this number of images by the curve alone."""
        n, s = self.count, self.removals.nodes
        step, ratio = (1 / count if count else 0.0) - 1 / n, (n - 1) / (count - 1) if count else 0.0
        share, fall = self._share
        # Node s of n images is node `moved` of `count`; of fewer than features, only where it is positive.
        moved = s * np.sqrt(np.maximum(1 - ratio * share, 0) / (1 - share))
        slope = n * (n - 1) * (float(self.removals.distances.mean()) - self.value)
        bend = 2 * (n - 1) * (moved - s) @ fall - n**2 * step * s @ (np.log1p(-share) + share)
        return self.value + slope * step - 2 * STEP / math.pi * float(bend)

    def _deviation(self, more: float) -> float:
        """Standard deviation of `expected` over sample sets; `more` of the way to infinitely many images.

        There, an image counts as its share beside the other images, q / (1 - q), and the mean image as its share q.
        """
        s, logs = self.removals.nodes, self.removals.logs
        share, fall = self._share
        beside = np.exp(-logs) - 1
        rate = s / np.sqrt(1 - share) * (1 - fall / (1 - share) / 2)
        mean = np.maximum(beside.mean(axis=0), np.finfo(np.float64).eps)
        moved = beside @ (rate * share / mean) + logs @ s
        return jackknife_error(self.removals.distances + more * 2 * STEP / math.pi * moved)

    @property
    def _share(self) -> tuple[Array, Array]:
        """(K,) average share q of an image in log det(1 + S S_r / s^2), and how fast it falls with log s."""
        w, s = self.removals.values[:, None], self.removals.nodes
        part = w / (w + s**2)
        return part.sum(axis=0) / (self.count - 1), 2 * (part * (1 - part)).sum(axis=0) / (self.count - 1)


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
    curve = Curve(len(features), remove_each(features, own, reference))
    second = np.random.default_rng(0).integers(0, 2, len(features) // 2)
    halves = [frechet_distance(gaussian(_Half(features, part)), reference) for part in (second, 1 - second)]
    return replace(curve, missed=sum(halves) / 2 - curve.expected(len(second)))
