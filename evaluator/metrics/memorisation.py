"""Whether samples are copies of training images: exact distances to the nearest of them.

- authenticity (Alaa et al. 2022, arXiv 2102.08921): the share of samples that lie farther from their nearest training
  image than that lies from its own nearest other one.
- copying (Meehan et al. 2020, arXiv 2004.05675, its statistic without cells): the share of pairs of a sample and a
  validation image in which the sample lies nearer to the training images; ties count half.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluator.metrics.distances import TILE, Exact, Nearest, Points, nearest_in
from evaluator.metrics.intervals import Interval, precision_interval, share_interval
from evaluator.metrics.rows import Array, Rows

NEAREST = 3
"""Training images that are known of each sample."""


class Training:
    """Training images, and optionally validation images, to which sample sets are compared."""

    def __init__(self, training: Rows, validation: Rows | None = None) -> None:
        """Features (T, D), T >= 3, and (V, D)."""
        self.rows, self.validation = training, validation
        self._points, self._exact = Points(training), Exact(np.asarray(training[:TILE]).mean(axis=0))

    def _nearest(self, rows: Rows, k: int) -> Nearest:
        return nearest_in(Points(rows), self._points, self._exact, k)

    @cached_property
    def validation_distances(self) -> Array | None:
        """(V,) squared distances of the validation images."""
        return None if self.validation is None else self._nearest(self.validation, 1).values[:, 0]

    def copies(self, samples: Rows) -> Copies:
        """Samples (N, D) and the training images nearest to them."""
        found = self._nearest(samples, NEAREST)
        chosen, which = np.unique(found.places[:, 0], return_inverse=True)
        # The nearest image of a training image is itself, at distance zero.
        gaps = self._nearest(_Chosen(self.rows, chosen), 2).values[which, 1]
        return Copies(found.places, found.values, gaps, self.validation_distances)


@dataclass(frozen=True)
class Copies:
    """Squared distances of samples to training images."""

    places: Array
    """(N, 3) nearest training images, nearest first."""
    distances: Array
    """(N, 3) to them."""
    gaps: Array
    """(N,) of the nearest one to its nearest other training image."""
    validation: Array | None
    """(V,) of validation images to their nearest training image."""

    @property
    def ratios(self) -> Array:
        """(N,) distance of a sample to its nearest training image over that of this to its nearest other one."""
        nearest = self.distances[:, 0]
        ratios = np.divide(nearest, self.gaps, out=np.where(nearest > 0, np.inf, 0.0), where=self.gaps > 0)
        return np.asarray(np.sqrt(ratios))

    def authenticity(self) -> tuple[float, Interval]:
        """Share and interval; for fixed training images, samples are independent trials."""
        share = float((self.distances[:, 0] > self.gaps).mean())
        return share, precision_interval(share, len(self.gaps))

    def copying(self) -> tuple[float, Interval]:
        """Share of pairs and its interval over sets of samples and of validation images (DeLong et al. 1988)."""
        assert self.validation is not None
        samples, validation = self.distances[:, 0], self.validation
        farther, nearer = 1 - _ranks(samples, validation), _ranks(validation, samples)
        variance = farther.var(ddof=1) / len(farther) + nearer.var(ddof=1) / len(nearer)
        share = float(farther.mean())
        return share, share_interval(share, float(variance), min(len(farther), len(nearer)))


def _ranks(values: Array, among: Array) -> Array:
    """(n,) share of `among` that is smaller than each value; equal ones count half."""
    ordered = np.sort(among)
    below, not_above = np.searchsorted(ordered, values), np.searchsorted(ordered, values, "right")
    return np.asarray((below + not_above) / (2 * len(among)))


class _Chosen:
    """Some rows of a set of features, read when they are asked for."""

    def __init__(self, rows: Rows, places: Array) -> None:
        self._rows, self._places = rows, places
        self.shape = (len(places), rows.shape[1])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: slice) -> Array:
        return np.concatenate([self._rows[place : place + 1] for place in self._places[rows]])
