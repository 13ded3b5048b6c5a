"""Frechet distance between Gaussians of features: FID of pooled ones, sFID of spatial ones.

Protocol: ADM's `evaluations/evaluator.py` (Dhariwal and Nichol 2021, arXiv 2105.05233). Features are (N, D) float32
arrays, or anything that gives their slices: they are read a block at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from evaluator.metrics import backend
from evaluator.metrics.rows import Array, Rows, blocks

PARTS = 4
"""Partial sums of products, which bound the growth of rounding errors."""
WORK_ROWS = 66
"""Rows of workspace of the eigenvalues: blocks of dsytrd have 64 at most."""


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and covariance (D, D) of features."""

    mean: Array
    covariance: Array


def gaussian(features: Rows) -> Gaussian:
    """Statistics of features as in the public evaluator, computed a block of rows at a time.

    The mean is that of `np.mean` in the precision of the features, to the bit: one row after the other. The covariance
    is that of `np.cov` in float64 (ddof 1), from products of features shifted by the mean of the first block.
    """
    count, width = features.shape
    first = next(blocks(features))
    shift = np.mean(first, axis=0, dtype=np.float64)
    total = np.zeros((1, width), first.dtype)
    there = backend.used()
    sums, scatters = np.zeros((PARTS, width)), [there.put(np.zeros((width, width))) for _ in range(PARTS)]
    for number, block in enumerate(blocks(features)):
        total = np.add.reduce(np.concatenate([total, block]), axis=0, keepdims=True)
        centred, part = block - shift, number % PARTS
        sums[part] += centred.sum(axis=0)
        scatters[part] = there.add_squares(scatters[part], centred)
    sum64, scatter = np.add.reduce(sums), np.add.reduce([there.get(each) for each in scatters])
    scatter -= np.outer(sum64, sum64) / count
    scatter /= count - 1
    mean = np.asarray(np.true_divide(total[0], np.intp(count))).astype(total.dtype)
    return Gaussian(mean, np.tril(scatter) + np.tril(scatter, -1).T)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2) (Heusel et al. 2017, arXiv 1706.08500)."""
    difference = a.mean.astype(np.float64) - b.mean.astype(np.float64)
    root = trace_of_root(a.covariance, b.covariance)
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root)


def trace_of_root(a: Array, b: Array) -> float:
    """tr sqrt(A B) of two covariances: the eigenvalues of A B are those of the symmetric U B U^T with A = U^T U."""
    # Eigenvalues gain little from more threads, and with one they do not depend on the number of processors.
    with threadpool_limits(limits=1, user_api="blas"):
        for first, second in ((a, b), (b, a)):
            factor, singular = lapack.dpotrf(first)
            if not singular:
                return _sum_of_roots(lapack.dsygst(second, factor, itype=2)[0])
        factor = symmetric_factor(a)
        return _sum_of_roots(factor.T @ b @ factor)


def symmetric_factor(covariance: Array) -> Array:
    """H (D, r) with H H^T = S of a singular covariance, in the r directions whose variance is not rounding."""
    values, vectors = np.linalg.eigh(covariance)
    regular = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    return np.asarray(vectors[:, regular] * np.sqrt(values[regular]))


def _sum_of_roots(matrix: Array) -> float:
    """Sum of the square roots of the eigenvalues of a symmetric matrix, by its upper triangle.

    Raises:
        numpy.linalg.LinAlgError: the eigenvalues did not converge.
    """
    if not len(matrix):
        return 0.0
    values, _, info = lapack.dsyev(matrix, compute_v=0, lwork=WORK_ROWS * len(matrix))
    if info:
        raise np.linalg.LinAlgError(f"dsyev: eigenvalues did not converge ({info})")
    return float(np.sqrt(np.clip(values, 0, None)).sum())
