"""Kernel distance (KID, Binkowski et al. 2018, arXiv 1801.01401): the squared MMD with k(x, y) = (x.y / D + 1)^3."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluator.metrics.rows import Array, Rows, blocks

TILE = 2000
SUBSETS, SUBSET_IMAGES = 100, 1000
"""As clean-fid and torch-fidelity have them."""


@dataclass(frozen=True)
class KernelDistance:
    """Kernel distance of samples (N, D) to a reference (M, D), three or more of each; all estimates are unbiased."""

    samples: Rows
    reference: Rows

    @cached_property
    def _projections(self) -> Array:
        """(N,) of each sample, the mean over others of k(x, x') - b(x) - b(x'), with b the mean over the reference."""
        count = len(self.samples)
        towards = kernel_sums(self.samples, self.reference) / len(self.reference)
        own = _sums_of_others(self.samples) / (count - 1)
        return np.asarray(own - towards - (towards.sum() - towards) / (count - 1))

    @cached_property
    def value(self) -> float:
        """From all pairs."""
        count = len(self.reference)
        return float(self._projections.mean() + _sums_of_others(self.reference).mean() / (count - 1))

    @cached_property
    def variance(self) -> float:
        """Of `value` over sample sets against this reference, by the jackknife."""
        count = len(self.samples)
        return float(self._projections.var()) * (count - 1) * (2 / (count - 2)) ** 2

    @cached_property
    def subsets(self) -> Array:
        """(100,) estimates from random subsets of 1,000 images (or all, if there are fewer) of both sides."""
        sides = np.asarray(self.samples[:]), np.asarray(self.reference[:])
        size, generator = min(SUBSET_IMAGES, *map(len, sides)), np.random.default_rng(0)
        pairs = ([x[generator.choice(len(x), size, replace=False)] for x in sides] for _ in range(SUBSETS))
        return np.array([KernelDistance(*pair).value for pair in pairs])


def kernel_sums(a: Rows, b: Rows) -> Array:
    """(N,) sums of k(x, y) over the rows y of `b`, for each row of `a`."""
    return np.concatenate(
        [sum(_kernel(x, y).sum(axis=1, dtype=np.float64) for y in blocks(b, TILE)) for x in blocks(a, TILE)]
    )


def _sums_of_others(a: Rows) -> Array:
    """(N,) sums of k(x, x') over all other rows."""
    squares = np.concatenate([np.einsum("nd,nd->n", x, x) for x in blocks(a, TILE)])
    return np.asarray(kernel_sums(a, a) - (squares.astype(np.float64) / a.shape[1] + 1) ** 3)


def _kernel(x: Array, y: Array) -> Array:
    product = x @ y.T
    product /= x.shape[1]
    product += 1
    return np.asarray(product * product * product)
