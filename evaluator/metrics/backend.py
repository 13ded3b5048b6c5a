"""Where products of features are computed: by NumPy, or by torch on a GPU (`torch_backend`).

The metrics ask for large arrays here and for everything else of NumPy. A tool that has a GPU calls `use`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from scipy.linalg import blas

from evaluator.metrics.rows import Array


class Backend(Protocol):
    """Its arrays know `@`, `.T`, arithmetic, comparisons and indices."""

    def put(self, array: Array) -> Any:
        """A NumPy array as one of its own."""

    def get(self, values: Any) -> Array:
        """The way back."""

    def places(self, chosen: Any) -> tuple[Any, Any]:
        """Rows and columns where (n, m) is true, in order."""

    def kth_smallest(self, values: Any, k: int) -> Array:
        """(n,) of each row of (n, m), k from 1."""

    def row_sums(self, values: Any) -> Array:
        """(n,) of (n, m), added in float64."""

    def expm1(self, values: Any) -> Any:
        """exp(x) - 1."""

    def add_squares(self, total: Any, x: Array) -> Any:
        """`total` (D, D) plus x^T x of (n, D), in place and in float64; only the lower triangle counts."""


class NumPy:
    """On the processor."""

    def put(self, array: Array) -> Array:
        """As it is."""
        return array

    def get(self, values: Array) -> Array:
        """As it is."""
        return values

    def places(self, chosen: Array) -> tuple[Array, Array]:
        """Faster than `numpy.nonzero`."""
        rows, columns = np.divmod(np.flatnonzero(chosen), chosen.shape[1])
        return rows, columns

    def kth_smallest(self, values: Array, k: int) -> Array:
        """By a partition."""
        return np.asarray(np.partition(values, k - 1, axis=1)[:, k - 1])

    def row_sums(self, values: Array) -> Array:
        """(n,) float64."""
        return np.asarray(values.sum(axis=1, dtype=np.float64))

    def expm1(self, values: Array) -> Array:
        """exp(x) - 1."""
        return np.asarray(np.expm1(values))

    def add_squares(self, total: Array, x: Array) -> Array:
        """By dsyrk, which computes one triangle."""
        return np.asarray(blas.dsyrk(1.0, x.T, beta=1.0, c=np.asfortranarray(total), lower=1, overwrite_c=1))


_used: Backend = NumPy()


def use(backend: Backend) -> Backend:
    """Compute there from now on; returns the one before."""
    global _used
    before, _used = _used, backend
    return before


def used() -> Backend:
    """The one in use."""
    return _used
