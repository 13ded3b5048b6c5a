"""Distances between sets of features, a tile at a time, in one place.

A tile is the product of two blocks of 2,000 rows. Thresholds on the product pick the few pairs that can matter; those
are computed in the protocol's arithmetic. A set's distances to itself take each tile once, for both of its sides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from evaluator.metrics.arithmetic import Arithmetic, Block, Exact, Half, Single
from evaluator.metrics.threads import side_by_side

Array = np.ndarray[Any, Any]
NEIGHBOURS = 3
TILE = 2000
GROUP = 5
"""Tiles of the blocks of 10,000 rows in which the public evaluator looks for overflow."""
GROUPS = 128
"""Of a tile's columns, whose smallest distances tell where its rows' nearest are at most: more than are ever asked."""
HELD = 32
"""Prepared blocks that stay in memory: 32 x 16 MB at 2,048 features."""
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
        return arithmetic.prepare(np.asarray(self.rows[rows_of(block)]))


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
        """(n,) distance that at least k columns do not exceed; infinite where there are fewer.

        The k-th smallest of the smallest of each of 128 groups of columns, at the k-th column or a little beyond.
        """
        if len(self.b.x) < k:
            return np.full(len(self.a.x), np.inf)
        column = ((self.b.norm + self.b.slack) / 2).astype(np.float32)
        least = column[:GROUPS] - self.products[:, :GROUPS]
        for start in range(GROUPS, len(column), GROUPS):
            more = column[start : start + GROUPS] - self.products[:, start : start + GROUPS]
            np.minimum(least[:, : more.shape[1]], more, out=least[:, : more.shape[1]])
        kth = np.partition(least, k - 1, axis=1)[:, k - 1].astype(np.float64)
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

    def limits(self, block: int) -> Array:
        """A copy of the largest values kept of a block of rows."""
        return self.values[rows_of(block)][:, -1].copy()

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

    def collect(self, pairs: Pairs, i: int, j: int) -> None:
        """Pairs of a tile, of the blocks i and j."""
        rows, columns, values = pairs
        self.add(rows + rows_of(i).start, values, columns + rows_of(j).start)


def nearest(*sets: tuple[Distances, int]) -> list[Nearest]:
    """The k smallest distances of every point of a set to the set, itself included; of several sets at the same time.

    Args:
        sets: distances of a set to itself, and k.
    """
    found = [Nearest(len(distances.a.rows), k) for distances, k in sets]
    # The first blocks, so that no two threads prepare the same one.
    blocks = ((distances.a, distances.exact or HALF, n) for distances, _ in sets for n in distances.a.blocks[:HELD])
    deque(side_by_side(lambda points, *block: points.prepared(*block), blocks), maxlen=0)
    diagonal = [(n, i) for n, (distances, _) in enumerate(sets) for i in distances.a.blocks]
    of_diagonal = side_by_side(_within_block, ((*sets[n], i) for n, i in diagonal))
    for (n, i), pairs in zip(diagonal, of_diagonal, strict=True):
        found[n].collect(pairs, i, i)
    others = [(n, i, j) for n, (distances, _) in enumerate(sets) for i, j in order(*[distances.a.blocks] * 2) if i < j]
    cases = ((sets[n][0], i, j, found[n].limits(i), found[n].limits(j)) for n, i, j in others)
    for (n, i, j), (pairs, transposed) in zip(others, side_by_side(_within_both, cases), strict=True):
        found[n].collect(pairs, i, j)
        found[n].collect(transposed, j, i)
    return found


def _within_block(distances: Distances, k: int, i: int) -> Pairs:
    tile = distances.tile(i, i)
    return tile.within(tile.bound(k))


def _within_both(distances: Distances, i: int, j: int, limits_i: Array, limits_j: Array) -> tuple[Pairs, Pairs]:
    """By the limits of each side."""
    tile = distances.tile(i, j)
    return tile.within(limits_i), tile.transposed().within(limits_j)


def order(a: range, b: range) -> Iterator[tuple[int, int]]:
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


def close_pairs(distances: Distances, radii_a: Array, radii_b: Array) -> Iterator[Pairs]:
    """Pairs (i, j, squared distance) among which are all with a distance of at most radii_a[i] or radii_b[j]."""
    pairs = list(order(distances.a.blocks, distances.b.blocks))
    cases = ((i, j, radii_a[rows_of(i)], radii_b[rows_of(j)]) for i, j in pairs)
    found = side_by_side(lambda i, j, *limits: distances.tile(i, j).within(*limits), cases)
    for (i, j), (rows, columns, distance) in zip(pairs, found, strict=True):
        yield rows + rows_of(i).start, columns + rows_of(j).start, distance


def rows_of(block: int) -> slice:
    """Of a set of points."""
    return slice(block * TILE, (block + 1) * TILE)
