"""Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991): which points lie in a ball of the other set.

A ball reaches from a point to its third neighbour in its own set. Pairs of points that are both known to be covered can
tell nothing more. So pairs that are likely to be close, by their products in a few directions, are computed first: they
cover most of what is covered, and every pair of the rest decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from evaluator.metrics.arithmetic import GATHERED, Arithmetic, Block, Exact
from evaluator.metrics.neighbours import NEIGHBOURS, TILE, Distances, Points, Rows, Tile, nearest, order, rows_of
from evaluator.metrics.threads import side_by_side

Array = np.ndarray[Any, Any]
AXES, MORE = 32, 8
"""Directions in which pairs are looked for, and how many more are drawn to find them."""
SEEN = 1000
"""Rows from which the directions are found."""
ROWS = 250
"""Rows whose estimates are held at a time: they stay in the processor's cache."""
WORTH = 0.1
"""Share of pairs from which leaving them out makes up for copying the rest together."""
Found = tuple[Array, Array]
"""Places of what is covered in each of two sets."""


def precision_recall(reference: Rows, samples: Rows, *, half: bool) -> tuple[float, float]:
    """Share of samples inside any reference ball, and of references inside any sample ball; k = 3, all images.

    Args:
        reference: (M, D) features.
        samples: (N, D) features.
        half: the public protocol, all distances in float16; else exact.
    """
    a, b = Points(reference), Points(samples)
    exact = None if half else Exact(np.asarray(reference[:TILE]).mean(axis=0))
    near = nearest(*((Distances(points, points, exact), NEIGHBOURS + 1) for points in (a, b)))
    search = Search(Distances(a, b, exact), *(found.values[:, -1] for found in near))
    search.likely()
    search.everything()
    in_samples, in_reference = search.covered
    return float(in_reference.mean()), float(in_samples.mean())


class Search:
    """Which points of a set `a` lie in any ball of a set `b`, and the other way round, as far as is known."""

    def __init__(self, distances: Distances, radii_a: Array, radii_b: Array) -> None:
        self.distances, self.radii = distances, (radii_a, radii_b)
        self.covered = np.zeros(len(radii_a), bool), np.zeros(len(radii_b), bool)

    def likely(self) -> None:
        """Compute the likeliest pair of each point that is not covered, in one block of the other set after another."""
        a, b = self.distances.a, self.distances.b
        axes = _directions(self.distances.blocks(0, 0)[1].x[:SEEN])
        low_a = list(side_by_side(lambda i: self.distances.blocks(i, 0)[1].x @ axes, zip(a.blocks)))
        low_b = list(side_by_side(lambda j: self.distances.blocks(0, j)[2].x @ axes, zip(b.blocks)))
        open_parts = ((i, j, low_a[i], low_b[j], *self._open(i, j)) for i, j in order(a.blocks, b.blocks))
        self._add(side_by_side(self._closest, open_parts))

    def everything(self) -> None:
        """Compute every pair that can still tell something."""
        a, b = self.distances.a, self.distances.b
        parts = ((i, j, *part) for i, j in order(a.blocks, b.blocks) for part in self._rectangles(i, j))
        self._add(side_by_side(self._all, parts))

    def _add(self, some: Iterator[Found]) -> None:
        for found in some:
            for covered, places in zip(self.covered, found, strict=True):
                covered[places] = True

    def _closest(self, i: int, j: int, low_a: Array, low_b: Array, open_a: Array, open_b: Array) -> Found:
        arithmetic, a, b = self.distances.blocks(i, j)
        radius_a, radius_b = self._radii(i, j)
        x = np.concatenate([open_a, _closest(low_b[open_b], low_a, a.norm - radius_a)])
        y = np.concatenate([_closest(low_a[open_a], low_b, b.norm - radius_b), open_b])
        distance = _distances(arithmetic, a, b, x, y)
        return rows_of(i).start + x[distance <= radius_b[y]], rows_of(j).start + y[distance <= radius_a[x]]

    def _all(self, i: int, j: int, part_a: Array, part_b: Array) -> Found:
        arithmetic, a, b = self.distances.blocks(i, j)
        of_a, of_b = (radius[part] for radius, part in zip(self._radii(i, j), (part_a, part_b), strict=True))
        x, y, distance = Tile.of(arithmetic, a.part(part_a), b.part(part_b)).within(of_a, of_b)
        return rows_of(i).start + part_a[x[distance <= of_b[y]]], rows_of(j).start + part_b[y[distance <= of_a[x]]]

    def _radii(self, i: int, j: int) -> tuple[Array, Array]:
        return self.radii[0][rows_of(i)], self.radii[1][rows_of(j)]

    def _open(self, i: int, j: int) -> tuple[Array, Array]:
        """Places, in their blocks, of points that are not known to be covered."""
        return np.flatnonzero(~self.covered[0][rows_of(i)]), np.flatnonzero(~self.covered[1][rows_of(j)])

    def _rectangles(self, i: int, j: int) -> Iterator[tuple[Array, Array]]:
        """Rows and columns, once or twice, that hold each pair of which one is not known to be covered."""
        covered_a, covered_b = self.covered[0][rows_of(i)], self.covered[1][rows_of(j)]
        all_a, all_b = np.arange(len(covered_a)), np.arange(len(covered_b))
        if covered_a.mean() * covered_b.mean() < WORTH:
            yield all_a, all_b
            return
        for part_a, part_b in ((all_a[~covered_a], all_b), (all_a[covered_a], all_b[~covered_b])):
            if len(part_a) and len(part_b):
                yield part_a, part_b


def _directions(x: Array) -> Array:
    """About the (D, AXES) directions in which rows (n, D) are longest.

    Source: Halko, Martinsson and Tropp 2011 (arXiv 0909.4061), algorithm 4.3 with q = 1.
    """
    x = x / (np.abs(x).max() or 1)
    drawn = np.random.default_rng(0).standard_normal((x.shape[1], AXES + MORE), np.float32)
    basis = np.linalg.qr(x.T @ (x @ drawn))[0]
    return np.asarray(basis @ np.linalg.svd(x @ basis, full_matrices=False)[2][:AXES].T)


def _closest(a: Array, b: Array, offset: Array) -> Array:
    """(n,) for each of the rows a (n, AXES) the row of b with the smallest offset_j - 2 a_i.b_j."""
    found, offset = np.empty(len(a), np.intp), offset.astype(np.float32)
    for part in _parts(len(a), ROWS):
        found[part] = (offset - (2 * a[part]) @ b.T).argmin(axis=1)
    return found


def _distances(arithmetic: Arithmetic, a: Block, b: Block, i: Array, j: Array) -> Array:
    """Squared distances of some pairs, without the product of the blocks."""
    products = np.empty(len(i), np.float32)
    for part in _parts(len(i), GATHERED):
        products[part] = np.einsum("nd,nd->n", a.x[i[part]], b.x[j[part]])
    return arithmetic.distances(a, b, products, i, j)


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
