"""Precision and recall (Kynkaanniemi et al. 2019, arXiv 1904.06991): distances a tile at a time, in one place.

A tile is the product of two blocks of 2,000 rows. Thresholds on the product pick the few pairs that can matter; those
are computed in the protocol's arithmetic. A set's distances to itself take each tile once, for both of its sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from evaluator.arithmetic import Arithmetic, Block, Exact, Half, Single

Array = np.ndarray[Any, Any]
NEIGHBOURS = 3
TILE = 2000
GROUP = 5
"""Tiles of the blocks of 10,000 rows in which the public evaluator looks for overflow."""
HELD = 32
"""Prepared blocks that stay in memory: 32 x 16 MB at 2,048 features."""
WORTH = 0.1
"""Share of pairs from which leaving them out makes up for copying the rest together."""
HALF, SINGLE = Half(), Single()
ROOM = 2.0**-20
"""For the rounding of sums and differences of norms in float32."""
Pairs = tuple[Array, Array, Array]
"""Rows, columns and squared distances of some pairs."""


class Rows(Protocol):
    """Features (N, D) float32, in memory or not."""

    @property
    def shape(self) -> Any:
        """(N, D)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


class Points:
    """A set of features, prepared block by block."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.blocks = range(-(-len(rows) // TILE))
        self.prepared = lru_cache(maxsize=HELD)(self._prepared)

    def _prepared(self, arithmetic: Arithmetic, block: int) -> Block:
        return arithmetic.prepare(np.asarray(self.rows[block * TILE : (block + 1) * TILE]))


@dataclass(frozen=True)
class Tile:
    """Two blocks, their inner products and the arithmetic of their distances."""

    arithmetic: Arithmetic
    a: Block
    b: Block
    products: Array

    @classmethod
    def of(cls, arithmetic: Arithmetic, a: Block, b: Block) -> Tile:
        """Of two blocks."""
        return cls(arithmetic, a, b, a.x @ b.x.T)

    def transposed(self) -> Tile:
        """The same pairs from the other side; float16 distances are not symmetric."""
        return Tile(self.arithmetic, self.b, self.a, self.products.T)

    def within(self, rows: Array, columns: Array | None = None) -> Pairs:
        """Every pair whose distance is at most the threshold of its row (n,) or of its column (m,), and a few more."""
        chosen = _chosen(self.products, self.a, self.b, rows)
        if columns is not None:
            chosen |= _chosen(self.products.T, self.b, self.a, columns).T
        i, j = _places(chosen)
        return i, j, self.arithmetic.distances(self.a, self.b, self.products[i, j], i, j)

    def bound(self, k: int) -> Array:
        """(n,) distance that at least k columns do not exceed; infinite where there are fewer."""
        if len(self.b.x) < k:
            return np.full(len(self.a.x), np.inf)
        column = ((self.b.norm + self.b.slack) / 2).astype(np.float32)
        kth = np.partition(column - self.products, k - 1, axis=1)[:, k - 1].astype(np.float64)
        return np.asarray(2 * kth + self.a.norm + self.a.slack + ROOM * (self.a.norm + self.b.norm.max()))


def _chosen(products: Array, a: Block, b: Block, thresholds: Array) -> Array:
    """Where norm_i + norm_j - 2 p - slack_i - slack_j <= threshold_i, with room for the rounding of these lines."""
    column = ((b.norm - b.slack - ROOM * b.norm) / 2).astype(np.float32)
    row = (a.norm - a.slack - ROOM * a.norm - np.minimum(thresholds, np.finfo(np.float32).max / 4)) / 2
    return np.asarray(products - column >= np.nextafter(row.astype(np.float32), -np.inf)[:, None])


def _places(chosen: Array) -> tuple[Array, Array]:
    """Rows and columns of the true values, in the order of memory."""
    if chosen.flags.c_contiguous:
        rows, columns = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
    else:
        columns, rows = np.divmod(np.flatnonzero(chosen.T), chosen.shape[0])
    return rows, columns


class Distances:
    """Between two sets of features."""

    def __init__(self, a: Points, b: Points, exact: Exact | None) -> None:
        """Exact, or (None) as the public protocol has them."""
        self.a, self.b, self.exact = a, b, exact
        self._overflowing = lru_cache(maxsize=None)(self._overflows)

    def tile(self, i: int, j: int) -> Tile:
        """The tile of a block of `a` and one of `b`."""
        return Tile.of(*self.blocks(i, j))

    def blocks(self, i: int, j: int) -> tuple[Arithmetic, Block, Block]:
        """A block of `a` and one of `b`, prepared for the arithmetic of their distances."""
        arithmetic: Arithmetic | None = self.exact
        if arithmetic is None:
            arithmetic = SINGLE if self._overflowing(i // GROUP, j // GROUP) else HALF
        return arithmetic, self.a.prepared(arithmetic, i), self.b.prepared(arithmetic, j)

    def _overflows(self, group_a: int, group_b: int) -> bool:
        """Whether any distance between two blocks of 10,000 is not finite in float16."""
        sides = [
            [points.prepared(HALF, n) for n in points.blocks[group * GROUP : (group + 1) * GROUP]]
            for points, group in ((self.a, group_a), (self.b, group_b))
        ]
        return any(HALF.may_overflow(x, y) and HALF.overflows(x, y) for x in sides[0] for y in sides[1])


class Nearest:
    """The k smallest values seen for each of N rows, and where they were."""

    def __init__(self, count: int, k: int) -> None:
        self.values = np.full((count, k), np.inf)
        self.places = np.full((count, k), -1, np.int64)

    def add(self, rows: Array, values: Array, places: Array) -> None:
        """Some more values, of any rows in any order."""
        if not len(rows):
            return
        order = np.lexsort((values, rows))
        rows, values, places = rows[order], values[order], places[order]
        touched, first = np.unique(rows, return_index=True)
        rank = np.arange(len(rows)) - np.repeat(first, np.diff([*first, len(rows)]))
        kept = rank < self.values.shape[1]
        where = np.searchsorted(touched, rows[kept]), rank[kept]
        more_values = np.full((len(touched), self.values.shape[1]), np.inf)
        more_places = np.full(more_values.shape, -1, np.int64)
        more_values[where], more_places[where] = values[kept], places[kept]
        both = np.concatenate([self.values[touched], more_values], axis=1)
        best = np.argsort(both, axis=1, kind="stable")[:, : self.values.shape[1]]
        self.values[touched] = np.take_along_axis(both, best, axis=1)
        joined = np.concatenate([self.places[touched], more_places], axis=1)
        self.places[touched] = np.take_along_axis(joined, best, axis=1)


def nearest(distances: Distances, k: int) -> Nearest:
    """The k smallest distances of every point of a set to the set, itself included."""
    points = distances.a
    found = Nearest(len(points.rows), k)
    for i in points.blocks:
        tile = distances.tile(i, i)
        _collect(found, tile, i, i, tile.bound(k))
    for i, j in _order(points.blocks, points.blocks):
        if i < j:
            tile = distances.tile(i, j)
            _collect(found, tile, i, j)
            _collect(found, tile.transposed(), j, i)
    return found


def _order(a: range, b: range) -> Iterator[tuple[int, int]]:
    """All pairs of blocks, so that those of a while are few: they are prepared once for many tiles.

    Diagonals follow each other: every block soon has met some of the others.
    """
    step = HELD // 2
    for first_a in a[::step]:
        for first_b in b[::step]:
            some_a, some_b = a[first_a : first_a + step], b[first_b : first_b + step]
            yield from (
                (i, some_b[(n + turn) % len(some_b)]) for turn in range(len(some_b)) for n, i in enumerate(some_a)
            )


def _collect(found: Nearest, tile: Tile, i: int, j: int, thresholds: Array | None = None) -> None:
    if thresholds is None:
        thresholds = found.values[i * TILE : i * TILE + len(tile.a.x), -1]
    rows, columns, values = tile.within(thresholds)
    found.add(rows + i * TILE, values, columns + j * TILE)


def close_pairs(distances: Distances, radii_a: Array, radii_b: Array) -> Iterator[Pairs]:
    """Pairs (i, j, squared distance) among which are all with a distance of at most radii_a[i] or radii_b[j]."""
    for i, j in _order(distances.a.blocks, distances.b.blocks):
        rows, columns = i * TILE, j * TILE
        limits = radii_a[rows : rows + TILE], radii_b[columns : columns + TILE]
        found = distances.tile(i, j).within(*limits)
        yield found[0] + rows, found[1] + columns, found[2]


def precision_recall(reference: Rows, samples: Rows, *, half: bool) -> tuple[float, float]:
    """Share of samples inside any reference ball, and of references inside any sample ball; k = 3, all images.

    Args:
        reference: (M, D) features.
        samples: (N, D) features.
        half: the public protocol, all distances in float16; else exact.
    """
    a, b = Points(reference), Points(samples)
    exact = None if half else Exact(np.asarray(reference[:TILE]).mean(axis=0))
    radii = [nearest(Distances(points, points, exact), NEIGHBOURS + 1).values[:, -1] for points in (a, b)]
    in_samples, in_reference = _covered(Distances(a, b, exact), radii[0], radii[1])
    return float(in_reference.mean()), float(in_samples.mean())


def _covered(distances: Distances, radii_a: Array, radii_b: Array) -> tuple[Array, Array]:
    """Which points of `a` lie in any ball of `b`, and which of `b` in any ball of `a`.

    A pair of points that are both known to be covered can tell nothing more: it is left out.
    """
    covered_a, covered_b = np.zeros(len(radii_a), bool), np.zeros(len(radii_b), bool)
    for i, j in _order(distances.a.blocks, distances.b.blocks):
        arithmetic, a, b = distances.blocks(i, j)
        rows, columns = (slice(n * TILE, n * TILE + len(block.x)) for n, block in ((i, a), (j, b)))
        for part_a, part_b in _open(covered_a[rows], covered_b[columns]):
            of_a, of_b = radii_a[rows][part_a], radii_b[columns][part_b]
            tile = Tile.of(arithmetic, a.part(part_a), b.part(part_b))
            x, y, distance = tile.within(of_a, of_b)
            covered_b[columns.start + part_b[y[distance <= of_a[x]]]] = True
            covered_a[rows.start + part_a[x[distance <= of_b[y]]]] = True
    return covered_a, covered_b


def _open(covered_a: Array, covered_b: Array) -> Iterator[tuple[Array, Array]]:
    """Places of rows and of columns, in one or two rectangles, that hold each pair of which one is not covered."""
    all_a, all_b = np.arange(len(covered_a)), np.arange(len(covered_b))
    if covered_a.mean() * covered_b.mean() < WORTH:
        yield all_a, all_b
        return
    for part_a, part_b in ((all_a[~covered_a], all_b), (all_a[covered_a], all_b[~covered_b])):
        if len(part_a) and len(part_b):
            yield part_a, part_b
