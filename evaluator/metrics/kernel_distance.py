"""Kernel distances, which are squared MMDs: KID (Binkowski et al. 2018, arXiv 1801.01401) has (x.y / D + 1)^3 as k.

CMMD (Jayasumana et al. 2024, arXiv 2401.09603) has exp(-|x - y|^2 / (2 * 10^2)) of CLIP's embeddings of length 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from evaluator.metrics import backend
from evaluator.metrics.rows import Array, Rows, blocks

TILE = 2000
SUBSETS, SUBSET_IMAGES = 100, 1000
"""As clean-fid and torch-fidelity have them."""
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


class Kernel(NamedTuple):
    """k(x, y) of rows of features."""

    pairs: Callable[[Any, Any], Any]
    """(n, m) of all pairs of rows (n, D) and (m, D), arrays of the backend."""
    own: Callable[[Array], Array]
    """(n,) float64 of each row and itself."""


def _cubic(x: Any, y: Any) -> Any:
    product = x @ y.T
    product /= x.shape[1]
    product += 1
    return product * product * product


def _own_cubic(x: Array) -> Array:
    return np.asarray((np.einsum("nd,nd->n", x, x).astype(np.float64) / x.shape[1] + 1) ** 3)


def _gaussian(x: Any, y: Any) -> Any:
    """Less 1, which changes no distance and keeps digits: embeddings are close, for this sigma."""
    x, y = (rows / (rows * rows).sum(axis=1, keepdims=True) ** 0.5 for rows in (x, y))
    return backend.used().expm1((x @ y.T - 1) / CMMD_SIGMA**2)


POLYNOMIAL, GAUSSIAN = Kernel(_cubic, _own_cubic), Kernel(_gaussian, lambda x: np.zeros(len(x)))


@dataclass(frozen=True)
class KernelDistance:
    """Kernel distance of samples (N, D) to a reference (M, D), three or more of each."""

    samples: Rows
    reference: Rows
    kernel: Kernel = POLYNOMIAL

    @cached_property
    def _towards(self) -> Array:
        """(N,) means of k of each sample over the reference."""
        return kernel_sums(self.samples, self.reference, self.kernel) / len(self.reference)

    @cached_property
    def _within(self) -> tuple[Array, ...]:
        """(N,) and (M,) sums of k of each sample over the samples, itself included, and of each reference likewise."""
        return tuple(kernel_sums(rows, rows, self.kernel) for rows in (self.samples, self.reference))

    def _others(self, side: int) -> Array:
        """The same without itself, of the samples (0) or of the reference (1)."""
        rows = (self.samples, self.reference)[side]
        return np.asarray(self._within[side] - np.concatenate([self.kernel.own(x) for x in blocks(rows, TILE)]))

    @cached_property
    def _projections(self) -> Array:
        """(N,) of each sample, the mean over others of k(x, x') - b(x) - b(x'), with b the mean over the reference."""
        count, towards = len(self.samples), self._towards
        return np.asarray(self._others(0) / (count - 1) - towards - (towards.sum() - towards) / (count - 1))

    @cached_property
    def value(self) -> float:
        """From all pairs of different images: unbiased."""
        return float(self._projections.mean() + self._others(1).mean() / (len(self.reference) - 1))

    @property
    def biased(self) -> float:
        """From all pairs, those of an image and itself included, as CMMD has it; never below 0."""
        ours, theirs = self._within
        return float(ours.mean() / len(ours) + theirs.mean() / len(theirs) - 2 * self._towards.mean())

    @cached_property
    def variance(self) -> float:
        """Of either over sample sets against this reference, by the jackknife."""
        count = len(self.samples)
        return float(self._projections.var()) * (count - 1) * (2 / (count - 2)) ** 2

    @cached_property
    def subsets(self) -> Array:
        """(100,) unbiased estimates from random subsets of 1,000 images (or all, if there are fewer) of both sides."""
        sides = np.asarray(self.samples[:]), np.asarray(self.reference[:])
        size, generator = min(SUBSET_IMAGES, *map(len, sides)), np.random.default_rng(0)
        pairs = ([x[generator.choice(len(x), size, replace=False)] for x in sides] for _ in range(SUBSETS))
        return np.array([KernelDistance(a, b).value for a, b in pairs])


def kernel_sums(a: Rows, b: Rows, kernel: Kernel = POLYNOMIAL) -> Array:
    """(N,) sums of k(x, y) over the rows y of `b`, for each row of `a`."""
    there = backend.used()

    def sums(x: Array) -> Array:
        put = there.put(x)
        return sum(there.row_sums(kernel.pairs(put, there.put(y))) for y in blocks(b, TILE))  # type: ignore[return-value]

    return np.concatenate([sums(x) for x in blocks(a, TILE)])
