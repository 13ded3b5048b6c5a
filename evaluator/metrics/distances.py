"""Squared distances between sets of features, one tile of 2,000 x 2,000 pairs at a time.

The product of two blocks of features gives |x|^2 + |y|^2 - 2 x.y of all their pairs, with a bound on its rounding
error. Only the few pairs that can matter given that bound are computed in the arithmetic asked for:

- `Half`: the public evaluator's float16, every operation rounded. Published precision and recall carry its error.
- `Single`: float32, which that evaluator uses where float16 overflows.
- `Exact`: float64 differences of float32 features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from evaluator.metrics import backend
from evaluator.metrics.rows import Array, Rows

TILE = 2000
GROUP = 5
"""Tiles of the blocks of 10,000 rows in which the public evaluator looks for overflow."""
CACHED_BLOCKS = 32
"""Prepared blocks of a set that stay in memory: 32 x 16 MB at 2,048 features."""
HALF_MAX = 65504.0
HALF_UNIT, SINGLE_UNIT = 2.0**-11, 2.0**-24
"""Relative error of one rounding."""
HALF_TINY = 2.0**-24
"""Absolute error of four roundings among the subnormal halves, at most."""
MARGIN = 2.0**-20
"""Relative, for the float32 rounding of sums and differences of norms."""
LANES, HALF_LEAF = 8, 1600
"""Halves in one packet of Eigen's, and in one sum before it is split."""
GATHERED = 128
"""Pairs whose differences are held in float64 at a time: they fit in the processor's cache."""
Pairs = tuple[Array, Array, Array]
"""Rows, columns and squared distances of some pairs."""


@dataclass(frozen=True)
class Block:
    """Some rows, prepared for products."""

    x: Array
    """(n, D) float32, as multiplied."""
    norm: Array
    """(n,) float32, squared norms in the arithmetic."""
    slack: Array
    """(n,): a distance differs from norm_i + norm_j - 2 x_i.x_j by at most slack_i + slack_j."""

    @cached_property
    def put(self) -> Any:
        """`x` where products are computed."""
        return backend.used().put(self.x)


class Half:
    """Float16 with every operation rounded; float32 holds the sum of two halves exactly enough to round once."""

    def prepare(self, features: Array) -> Block:
        """Round features (n, D) and their squared norms to halves."""
        with np.errstate(over="ignore"):
            halves = features.astype(np.float16)
            x, norm = halves.astype(np.float32), _half_sum(halves * halves).astype(np.float32)
        # |p| <= (N_i + N_j) / 2 bounds each of the three roundings: of p (doubled), of norm - 2 p, of the sum.
        slack = 1.02 * HALF_UNIT * (3 * _squares(x) + 2 * norm.astype(np.float64)) + HALF_TINY
        return Block(x, norm, slack)

    def distances(self, a: Block, b: Block, products: Array, i: Array, j: Array) -> Array:
        """Of pairs (i, j), whose products are given."""
        with np.errstate(over="ignore", invalid="ignore"):
            first = _rounded(a.norm[i] - 2 * _rounded(products))
            return np.asarray(np.maximum(_rounded(first + b.norm[j]), 0))

    def overflows(self, a: Block, b: Block) -> bool:
        """Whether a distance between two blocks is infinite or NaN."""
        largest = sum(max(side.norm.max(), _squares(side.x).max()) for side in (a, b))
        if 2.1 * largest < HALF_MAX:
            return False
        with np.errstate(over="ignore", invalid="ignore"):
            first = _rounded(a.norm[:, None] - 2 * _rounded(backend.used().get(_products(a, b))))
            return not bool(np.isfinite(_rounded(first + b.norm)).all())


class Single:
    """Float32 throughout."""

    def prepare(self, features: Array) -> Block:
        """Features (n, D) as they are."""
        norm = np.einsum("nd,nd->n", features, features)
        return Block(features, norm, 16 * SINGLE_UNIT * _squares(features))

    def distances(self, a: Block, b: Block, products: Array, i: Array, j: Array) -> Array:
        """Of pairs (i, j), whose products are given."""
        return np.asarray(np.maximum(a.norm[i] - 2 * products + b.norm[j], 0))


class Exact:
    """Float64 differences; the products are of features about `centre` (D,), so that they lose little."""

    def __init__(self, centre: Array) -> None:
        self.centre = centre.astype(np.float32)

    def prepare(self, features: Array) -> Block:
        """Features (n, D) about the centre."""
        x = features - self.centre
        norm = _squares(x)
        # A float32 sum of D products is within D units of (N_i + N_j) / 2 in any order; 16 more are for roundings.
        return Block(x, norm.astype(np.float32), (x.shape[1] + 16) * SINGLE_UNIT * norm)

    def distances(self, a: Block, b: Block, products: Array, i: Array, j: Array) -> Array:  # noqa: ARG002
        """Of pairs (i, j)."""
        found = np.empty(len(i), np.float64)
        for start in range(0, len(i), GATHERED):
            part = slice(start, start + GATHERED)
            difference = a.x[i[part]].astype(np.float64) - b.x[j[part]]
            found[part] = np.einsum("nd,nd->n", difference, difference)
        return found


Arithmetic = Half | Single | Exact
HALF, SINGLE = Half(), Single()


def _products(a: Block, b: Block) -> Any:
    """(n, m) x.y of all pairs, where they are computed."""
    return a.put @ b.put.T


def _rounded(values: Array) -> Array:
    """Float32 values rounded to halves, as float32."""
    return values.astype(np.float16).astype(np.float32)


def _squares(x: Array) -> Array:
    """(n,) squared norms in float64."""
    norms: Array = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    return norms


def _half_sum(halves: Array) -> Array:
    """Row sums (n,) of halves (n, D) in the order of Eigen's reduction on a CPU, every addition rounded.

    Four packets of eight lanes take turns and are then added in order; what is left over joins the first packet, then
    a scalar. Rows of more than 1,600 values are summed in two parts. The order was found by experiment.
    """
    n, d = halves.shape
    if d > HALF_LEAF:
        middle = LANES * -(-d // (2 * LANES))
        return np.asarray(_half_sum(halves[:, :middle]) + _half_sum(halves[:, middle:]))
    turns, whole = d // (4 * LANES) * (4 * LANES), d // LANES * LANES
    packets, left_over = np.zeros((n, 4, LANES), np.float16), np.zeros(n, np.float16)
    for start in range(0, turns, 4 * LANES):
        packets += halves[:, start : start + 4 * LANES].reshape(n, 4, LANES)
    packet = packets[:, 0] + packets[:, 1] + packets[:, 2] + packets[:, 3]
    for start in range(turns, whole, LANES):
        packet += halves[:, start : start + LANES]
    for column in range(whole, d):
        left_over += halves[:, column]
    return np.asarray(left_over + packet.astype(np.float32).sum(axis=1).astype(np.float16))


class Points:
    """A set of features, prepared block by block."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.blocks = range(-(-len(rows) // TILE))
        self.prepared = lru_cache(maxsize=CACHED_BLOCKS)(self._prepared)

    def _prepared(self, arithmetic: Arithmetic, block: int) -> Block:
        return arithmetic.prepare(np.asarray(self.rows[rows_of(block)]))


def rows_of(block: int) -> slice:
    """Rows of a block in its set."""
    return slice(block * TILE, (block + 1) * TILE)


class Tile:
    """The distances between two blocks."""

    def __init__(self, arithmetic: Arithmetic, a: Block, b: Block, products: Any) -> None:
        """`products` (n, m) lie where they are computed."""
        self.arithmetic, self.a, self.b, self.products = arithmetic, a, b, products

    def transposed(self) -> Tile:
        """The same pairs from the other side; float16 distances are not symmetric."""
        return Tile(self.arithmetic, self.b, self.a, self.products.T)

    def pairs(self, rows: Array, columns: Array | None = None) -> Pairs:
        """Pairs among which are all with a distance of at most `rows[i]` or `columns[j]`."""
        chosen = _possible(self.products, self.a, self.b, rows)
        if columns is not None:
            chosen |= _possible(self.products.T, self.b, self.a, columns).T
        there = backend.used()
        places = there.places(chosen)
        products, i, j = map(there.get, (self.products[places], *places))
        return i, j, self.arithmetic.distances(self.a, self.b, products, i, j)

    def upper_bound(self, k: int) -> Array:
        """(n,) a bound on the k-th smallest distance of each row; infinite if there are fewer columns."""
        if len(self.b.x) < k:
            return np.full(len(self.a.x), np.inf)
        there = backend.used()
        line = there.put(((self.b.norm + self.b.slack) / 2).astype(np.float32)) - self.products
        kth = there.kth_smallest(line, k).astype(np.float64)
        return np.asarray(2 * kth + self.a.norm + self.a.slack + MARGIN * (self.a.norm + self.b.norm.max()))


def _possible(products: Any, a: Block, b: Block, limits: Array) -> Any:
    """Where norm_i + norm_j - 2 p - slack_i - slack_j <= limit_i, with a margin for the rounding of these lines."""
    column = ((b.norm - b.slack - MARGIN * b.norm) / 2).astype(np.float32)
    row = (a.norm - a.slack - MARGIN * a.norm - np.minimum(limits, np.finfo(np.float32).max / 4)) / 2
    put = backend.used().put
    return products - put(column) >= put(np.nextafter(row.astype(np.float32), -np.inf))[:, None]


class Distances:
    """All distances between two sets of features."""

    def __init__(self, a: Points, b: Points, exact: Exact | None) -> None:
        """Exact, or (None) those of the public protocol."""
        self.a, self.b, self.exact = a, b, exact
        self._overflowing = lru_cache(maxsize=None)(self._overflows)

    def tile(self, i: int, j: int) -> Tile:
        """Distances between block `i` of the first set and block `j` of the second."""
        arithmetic: Arithmetic | None = self.exact
        if arithmetic is None:
            arithmetic = SINGLE if self._overflowing(i // GROUP, j // GROUP) else HALF
        a, b = self.a.prepared(arithmetic, i), self.b.prepared(arithmetic, j)
        return Tile(arithmetic, a, b, _products(a, b))

    def _overflows(self, group_a: int, group_b: int) -> bool:
        """Whether any float16 distance between two blocks of 10,000 is not finite."""
        sides = [
            [points.prepared(HALF, n) for n in points.blocks[group * GROUP : (group + 1) * GROUP]]
            for points, group in ((self.a, group_a), (self.b, group_b))
        ]
        return any(HALF.overflows(x, y) for x in sides[0] for y in sides[1])

    def pairs(self, radii_a: Array, radii_b: Array) -> Iterator[Pairs]:
        """Pairs (i, j, distance) among which are all with a distance of at most `radii_a[i]` or `radii_b[j]`."""
        for i in self.a.blocks:
            for j in self.b.blocks:
                rows, columns, distance = self.tile(i, j).pairs(radii_a[rows_of(i)], radii_b[rows_of(j)])
                yield rows + rows_of(i).start, columns + rows_of(j).start, distance


class Nearest:
    """The k smallest values added for each of N rows, ascending, and their places."""

    def __init__(self, count: int, k: int) -> None:
        self.values = np.full((count, k), np.inf)
        self.places = np.full((count, k), -1, np.int64)

    def add(self, rows: Array, values: Array, places: Array) -> None:
        """Add values of any rows in any order."""
        k = self.values.shape[1]
        touched = np.unique(rows)
        rows = np.concatenate([np.repeat(touched, k), rows])
        values = np.concatenate([self.values[touched].ravel(), values])
        places = np.concatenate([self.places[touched].ravel(), places])
        order = np.lexsort((values, rows))
        starts = np.searchsorted(rows[order], touched)
        smallest = order[(starts[:, None] + np.arange(k)).astype(np.intp)]
        self.values[touched], self.places[touched] = values[smallest], places[smallest]


def nearest_in(a: Points, b: Points, exact: Exact, k: int) -> Nearest:
    """The k smallest distances of every point of one set to another set; exact."""
    distances, found = Distances(a, b, exact), Nearest(len(a.rows), k)
    for i in a.blocks:
        for j in b.blocks:
            tile = distances.tile(i, j)
            rows, columns, values = tile.pairs(found.values[rows_of(i), -1] if j else tile.upper_bound(k))
            found.add(rows + rows_of(i).start, values, columns + rows_of(j).start)
    return found


def nearest(points: Points, exact: Exact | None, k: int) -> Nearest:
    """The k smallest distances of every point to its own set, itself included; exact, or of the public protocol."""
    distances, found = Distances(points, points, exact), Nearest(len(points.rows), k)

    def add(tile: Tile, i: int, j: int, limits: Array) -> None:
        rows, columns, values = tile.pairs(limits)
        found.add(rows + rows_of(i).start, values, columns + rows_of(j).start)

    for i in points.blocks:
        tile = distances.tile(i, i)
        add(tile, i, i, tile.upper_bound(k))
    for i in points.blocks:
        for j in points.blocks[i + 1 :]:
            tile = distances.tile(i, j)
            add(tile, i, j, found.values[rows_of(i), -1])
            add(tile.transposed(), j, i, found.values[rows_of(j), -1])
    return found
