"""Three ways to compute a squared distance, each with a bound on how far it can be from a plain matrix product.

A product of two blocks of features gives `norm_i + norm_j - 2 x_i.x_j` for a million pairs at once. Only pairs that
this value leaves open, given the bound, are computed as the protocol has them.

- `Half`: the public evaluator's float16, every operation rounded. Published precision and recall carry this.
- `Single`: what that evaluator falls back to, float32, where a block overflows.
- `Exact`: float64 differences of float32 features.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
HALF_MAX = 65504.0
HALF_UNIT, SINGLE_UNIT = 2.0**-11, 2.0**-24
"""Relative error of one rounding."""
HALF_TINY = 2.0**-24
"""Absolute error of four roundings among the subnormal halves, at most."""
OVERFLOW, NORMAL = (np.float32(value).view(np.uint32) for value in (65520, 2.0**-14))
"""Bits of the smallest float32 that no half holds, not even rounded, and of the smallest normal half."""
SHIFT = np.float32(0.75)
"""In float32, what is added to it is rounded to a subnormal half."""
LANES, HALF_LEAF = 8, 1600
"""Halves in one packet, and in one sum before it is split."""
ROUNDED = 2**17
"""Values that are rounded at a time: they stay in the processor's cache."""
_OF_THREAD = threading.local()
GATHERED = 128
"""Pairs whose features are held in float64 at a time: they stay in the cache, too."""


@dataclass(frozen=True)
class Block:
    """Some rows, ready for products."""

    x: Array
    """(n, D) float32, as multiplied."""
    norm: Array
    """(n,) float32, squared norms as the arithmetic has them."""
    slack: Array
    """(n,): a distance differs from norm_i + norm_j - 2 x_i.x_j by at most slack_i + slack_j."""
    largest: float = 0.0
    """Largest norm, rounded or not."""

    def part(self, rows: Array) -> Block:
        """Some of its rows, by their places; itself when these are all."""
        if len(rows) == len(self.x):
            return self
        return Block(self.x[rows], self.norm[rows], self.slack[rows], self.largest)


class Arithmetic(Protocol):
    """How distances are computed."""

    def __hash__(self) -> int: ...

    def prepare(self, features: Array) -> Block:
        """Of (n, D) float32 features."""

    def distances(self, a: Block, b: Block, products: Array, i: Array, j: Array) -> Array:
        """Squared distances float32 of pairs (i, j), whose inner products are given."""


class Half:
    """Every operation rounded to float16; sums of squares in the order of Eigen's packets."""

    def prepare(self, features: Array) -> Block:
        """Features and norms rounded to halves."""
        x = _rounded(features)
        squares = x * x
        _round(squares)
        norm = _half_sum(squares)
        true = _squares(x)
        # |p| <= (N_i + N_j) / 2 bounds each of the three roundings: of p (doubled), of norm - 2 p, of the sum.
        slack = 1.02 * HALF_UNIT * (3 * true + 2 * norm.astype(np.float64)) + HALF_TINY
        return Block(x, norm, slack, float(max(norm.max(), true.max())))

    def distances(self, a: Block, b: Block, products: Array, i: Array, j: Array) -> Array:
        """Rounded after each step: float32 holds a sum of halves exactly enough to round once."""
        with np.errstate(over="ignore", invalid="ignore"):
            first = _rounded(a.norm[i] - 2 * _rounded(products))
            return np.asarray(np.maximum(_rounded(first + b.norm[j]), 0))

    @staticmethod
    def may_overflow(a: Block, b: Block) -> bool:
        """Whether any value on the way to a distance can exceed the largest half."""
        return not 2.1 * (a.largest + b.largest) < HALF_MAX

    def overflows(self, a: Block, b: Block) -> bool:
        """Whether a distance between two blocks is infinite or NaN."""
        with np.errstate(over="ignore", invalid="ignore"):
            first = _rounded(a.norm[:, None] - 2 * _rounded(a.x @ b.x.T))
            total = _rounded(first + b.norm[None, :])
        return not bool(np.isfinite(total).all())


class Single:
    """Float32 throughout."""

    def prepare(self, features: Array) -> Block:
        """Features as they are."""
        norm = np.einsum("nd,nd->n", features, features)
        return Block(features, norm, 16 * SINGLE_UNIT * _squares(features))

    def distances(self, a: Block, b: Block, products: Array, i: Array, j: Array) -> Array:
        """One rounding an operation."""
        return np.asarray(np.maximum(a.norm[i] - 2 * products + b.norm[j], 0))


class Exact:
    """Float64 differences; `centre` (D,) is taken off first, so that products lose little."""

    def __init__(self, centre: Array) -> None:
        self.centre = centre.astype(np.float32)

    def prepare(self, features: Array) -> Block:
        """Features about the centre."""
        x = features - self.centre
        norm = _squares(x)
        # A float32 sum of D products is within D units of (N_i + N_j) / 2 in any order; 16 more are for roundings.
        return Block(x, norm.astype(np.float32), (x.shape[1] + 16) * SINGLE_UNIT * norm)

    def distances(self, a: Block, b: Block, products: Array, i: Array, j: Array) -> Array:  # noqa: ARG002
        """Of the features alone."""
        found = np.empty(len(i), np.float64)
        for start in range(0, len(i), GATHERED):
            part = slice(start, start + GATHERED)
            difference = a.x[i[part]].astype(np.float64) - b.x[j[part]]
            found[part] = np.einsum("nd,nd->n", difference, difference)
        return found


def _rounded(values: Array) -> Array:
    """Float32 values rounded to halves, ties to even, as float32: ten times as fast as two conversions of numpy's."""
    rounded = np.array(values, np.float32, order="C")
    _round(rounded)
    return rounded


def _round(values: Array) -> None:
    """The same in place, of an array in C's order."""
    flat, scratch = values.reshape(-1), _scratch()
    for start in range(0, len(flat), ROUNDED):
        _round_part(flat[start : start + ROUNDED], *scratch)


def _round_part(values: Array, *scratch: Array) -> None:
    bits = values.view(np.uint32)
    kept, size, small = (array[: len(values)] for array in scratch)
    np.bitwise_and(bits, np.uint32(0x7FFFFFFF), out=size)
    if size.max() >= OVERFLOW:
        with np.errstate(over="ignore"):
            values[:] = values.astype(np.float16)
        return
    np.right_shift(bits, np.uint32(13), out=kept)
    kept &= np.uint32(1)
    kept += np.uint32(0xFFF)
    kept += bits
    kept &= np.uint32(0xFFFFE000)
    # One less takes zero out.
    size -= np.uint32(1)
    if size.min() < NORMAL - np.uint32(1):
        np.less(size, NORMAL - np.uint32(1), out=small)
        values += SHIFT
        values -= SHIFT
        np.copyto(kept.view(np.float32), values, where=small)
    bits[:] = kept


def _scratch() -> tuple[Array, Array, Array]:
    """A thread's own: what is asked of the system anew for every few values costs more than rounding them."""
    if not hasattr(_OF_THREAD, "scratch"):
        _OF_THREAD.scratch = tuple(np.empty(ROUNDED, kind) for kind in (np.uint32, np.uint32, bool))
    found: tuple[Array, Array, Array] = _OF_THREAD.scratch
    return found


def _squares(x: Array) -> Array:
    """(n,) squared norms in float64."""
    norms: Array = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    return norms


def _half_sum(squares: Array) -> Array:
    """Row sums (n,) of halves (n, D), held as float32, in the order of Eigen's reduction on a CPU: found by probing it.

    Every addition is rounded. Four packets of eight lanes take turns and are then added in order; what is left over
    joins the first packet, then a scalar. Rows of more than 1,600 values are summed in two halves.
    """
    n, d = squares.shape
    if d > HALF_LEAF:
        middle = LANES * -(-d // (2 * LANES))
        return _rounded(_half_sum(squares[:, :middle]) + _half_sum(squares[:, middle:]))
    turns, whole = d // (4 * LANES) * (4 * LANES), d // LANES * LANES
    packets, left_over = np.zeros((n, 4, LANES), np.float32), np.zeros(n, np.float32)
    with np.errstate(over="ignore"):
        for start in range(0, turns, 4 * LANES):
            packets += squares[:, start : start + 4 * LANES].reshape(n, 4, LANES)
            _round(packets)
        packet = packets[:, 0].copy()
        for more in (packets[:, 1], packets[:, 2], packets[:, 3]):
            packet += more
            _round(packet)
        for start in range(turns, whole, LANES):
            packet += squares[:, start : start + LANES]
            _round(packet)
        for column in range(whole, d):
            left_over = _rounded(left_over + squares[:, column])
        return _rounded(left_over + _rounded(packet.sum(axis=1)))
