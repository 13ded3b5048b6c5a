"""Exact precision and recall together with what their intervals need: which sample balls hold each reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluator.metrics.arithmetic import Exact
from evaluator.metrics.neighbours import NEIGHBOURS, TILE, Distances, Nearest, Points, Rows, close_pairs, nearest

Array = np.ndarray[Any, Any]
REACH = 16
"""Nearest samples that are known of every sample, itself included: enough for its third among any 60 % of them."""
KEPT = 32
"""Balls that are known of every reference, those that hold it deepest."""


@dataclass(frozen=True)
class Coverage:
    """Sample balls around references, for any part of the samples."""

    nearest: Array
    """(N, REACH) places of the samples nearest to each sample, itself included."""
    balls: Array
    """(M, KEPT) samples whose balls hold a reference or may; -1 where there are no more."""
    closer: Array
    """(M, KEPT) how many samples lie closer to the ball's centre than the reference does."""

    def recall(self, kept: Array) -> float:
        """Of the samples (N,) that are kept: a ball holds what lies no farther than the third other sample kept."""
        among = np.zeros((len(self.nearest), REACH + 1), np.int16)
        np.cumsum(kept[self.nearest], axis=1, out=among[:, 1:])
        holds = (self.balls >= 0) & kept[self.balls] & (among[self.balls, self.closer] <= NEIGHBOURS)
        return float(holds.any(axis=1).mean())


def exact(reference: Rows, samples: Rows) -> tuple[float, float, Coverage]:
    """Precision and recall of (M, D) and (N, D) features, exact, and the coverage behind the recall."""
    arithmetic = Exact(np.asarray(reference[:TILE]).mean(axis=0))
    a, b = Points(reference), Points(samples)
    around, near = nearest((Distances(a, a, arithmetic), NEIGHBOURS + 1), (Distances(b, b, arithmetic), REACH))
    radii = around.values[:, -1]
    in_reference, in_samples = np.zeros(len(samples), bool), np.zeros(len(reference), bool)
    deepest = Nearest(len(reference), KEPT)
    for i, j, distance in close_pairs(Distances(a, b, arithmetic), radii, near.values[:, -1]):
        in_reference[j[distance <= radii[i]]] = True
        in_samples[i[distance <= near.values[j, NEIGHBOURS]]] = True
        closer = (near.values[j] < distance[:, None]).sum(axis=1)
        known = closer < REACH
        deepest.add(i[known], closer[known].astype(float), j[known])
    closer = np.where(deepest.places >= 0, deepest.values, 0).astype(np.int64)
    coverage = Coverage(near.places, deepest.places, closer)
    return float(in_reference.mean()), float(in_samples.mean()), coverage
