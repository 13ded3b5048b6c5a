"""k-nearest-neighbour precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991), k = 3, all images.

The ball of a point reaches to its third neighbour in its own set. Precision is the share of samples inside any ball of
a reference, recall the share of references inside any ball of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluator.metrics.distances import TILE, Distances, Exact, Nearest, Points, nearest
from evaluator.metrics.rows import Array, Rows

NEIGHBOURS = 3
REACH = 16
"""Nearest samples that are known of every sample, itself included: enough for its third among any 60 % of them."""
BALLS = 32
"""Balls that are known of every reference, those that hold it deepest."""


@dataclass(frozen=True)
class Coverage:
    """Balls of samples around each reference, from which the recall of any part of the samples follows."""

    nearest: Array
    """(N, REACH) places of the samples nearest to each sample, itself included."""
    balls: Array
    """(M, BALLS) samples whose balls hold a reference, or may for some part of the samples; -1: no more."""
    closer: Array
    """(M, BALLS) number of samples that lie closer to the centre of the ball than the reference does."""
    inside: Array
    """(N,) whether each sample is inside a ball of a reference: their share is the precision."""

    def recall(self, part: Array) -> float:
        """Recall of the samples where `part` (N,) is true: a ball reaches to the third other sample of the part."""
        among = np.zeros((len(self.nearest), REACH + 1), np.int16)
        np.cumsum(part[self.nearest], axis=1, out=among[:, 1:])
        holds = (self.balls >= 0) & part[self.balls] & (among[self.balls, self.closer] <= NEIGHBOURS)
        return float(holds.any(axis=1).mean())


def precision_recall(reference: Rows, samples: Rows, *, half: bool) -> tuple[float, float]:
    """Precision and recall.

    Args:
        reference: (M, D) features.
        samples: (N, D) features.
        half: all distances in float16, as the public protocol has them; else exact.
    """
    if not half:
        return exact_precision_recall(reference, samples)[:2]
    a, b = Points(reference), Points(samples)
    radii_a, radii_b = (nearest(points, None, NEIGHBOURS + 1).values[:, -1] for points in (a, b))
    in_reference, in_samples = np.zeros(len(samples), bool), np.zeros(len(reference), bool)
    for i, j, distance in Distances(a, b, None).pairs(radii_a, radii_b):
        in_reference[j[distance <= radii_a[i]]] = True
        in_samples[i[distance <= radii_b[j]]] = True
    return float(in_reference.mean()), float(in_samples.mean())


def exact_precision_recall(reference: Rows, samples: Rows) -> tuple[float, float, Coverage]:
    """Exact precision and recall of (M, D) and (N, D) features, and what the interval of the recall needs."""
    exact = Exact(np.asarray(reference[:TILE]).mean(axis=0))
    a, b = Points(reference), Points(samples)
    radii, near = nearest(a, exact, NEIGHBOURS + 1).values[:, -1], nearest(b, exact, REACH)
    in_reference, in_samples = np.zeros(len(samples), bool), np.zeros(len(reference), bool)
    deepest = Nearest(len(reference), BALLS)
    for i, j, distance in Distances(a, b, exact).pairs(radii, near.values[:, -1]):
        in_reference[j[distance <= radii[i]]] = True
        in_samples[i[distance <= near.values[j, NEIGHBOURS]]] = True
        closer = (near.values[j] < distance[:, None]).sum(axis=1)
        known = closer < REACH
        deepest.add(i[known], closer[known].astype(float), j[known])
    closer = np.where(deepest.places >= 0, deepest.values, 0).astype(np.int64)
    coverage = Coverage(near.places, deepest.places, closer, in_reference)
    return float(in_reference.mean()), float(in_samples.mean()), coverage
