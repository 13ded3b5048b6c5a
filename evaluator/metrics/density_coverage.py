"""Density and coverage (Naeem et al. 2020, arXiv 2002.09797), k = 5, all images, exact distances.

The ball of a reference reaches to its fifth neighbour among the references. Density counts the balls that hold a
sample, over k; coverage is the share of balls that hold any sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluator.metrics.distances import TILE, Distances, Exact, Points, nearest
from evaluator.metrics.rows import Array, Rows

NEIGHBOURS = 5


@dataclass(frozen=True)
class Balls:
    """Which balls of references hold samples."""

    densities: Array
    """(N,) balls that hold a sample, over k."""
    held: Array
    """(M,) samples in each ball."""
    alone: Array
    """(N,) balls that hold this sample and no other."""

    @property
    def density(self) -> float:
        """Mean over samples."""
        return float(self.densities.mean())

    @property
    def coverage(self) -> float:
        """Share of balls."""
        return float((self.held > 0).mean())

    @property
    def coverage_variance(self) -> float:
        """By the jackknife: leaving out a sample empties the balls that hold it alone."""
        return float((self.alone / len(self.held)).var()) * (len(self.alone) - 1)


def balls(reference: Rows, samples: Rows) -> Balls:
    """Balls of references (M, D), M > 5, and samples (N, D)."""
    exact = Exact(np.asarray(reference[:TILE]).mean(axis=0))
    a, b = Points(reference), Points(samples)
    radii = nearest(a, exact, NEIGHBOURS + 1).values[:, -1]
    inside, held, last = np.zeros(len(samples)), np.zeros(len(reference), np.int64), np.zeros(len(reference), np.int64)
    for i, j, distance in Distances(a, b, exact).pairs(radii, np.full(len(samples), -1.0)):
        within = distance < radii[i]
        inside += np.bincount(j[within], minlength=len(samples))
        held += np.bincount(i[within], minlength=len(reference))
        last[i[within]] = j[within]
    alone = np.bincount(last[held == 1], minlength=len(samples))
    return Balls(inside / NEIGHBOURS, held, alone)
