"""FID, sFID, Inception score, precision and recall: from features, no framework.

Protocol: ADM's `evaluations/evaluator.py` (Dhariwal and Nichol 2021); precision and recall: Kynkaanniemi et al. 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

Array = np.ndarray[Any, Any]
NEIGHBOURS = 3
IS_SPLIT = 5000
HALF_MAX = 65504.0


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and covariance (D, D) of features."""

    mean: Array
    covariance: Array


def gaussian(features: Array) -> Gaussian:
    """Statistics as the public evaluator's: mean in the features' own precision, covariance in float64 (ddof 1)."""
    return Gaussian(np.mean(features, axis=0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2) (Heusel et al. 2017)."""
    difference = a.mean.astype(np.float64) - b.mean.astype(np.float64)
    root = trace_of_root(a.covariance, b.covariance)
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root)


def trace_of_root(a: Array, b: Array) -> float:
    """tr sqrt(A B) of two covariances: the eigenvalues of A B are those of the symmetric L^T B L with A = L L^T."""
    for first, second in ((a, b), (b, a)):
        try:
            factor = scipy.linalg.cholesky(first, lower=True)
        except scipy.linalg.LinAlgError:
            continue
        return _root_sum(factor.T @ second @ factor)
    # Both singular: a symmetric square root takes the place of the Cholesky factor.
    values, vectors = scipy.linalg.eigh(a)
    half = vectors * np.sqrt(np.clip(values, 0, None))
    return _root_sum(half.T @ b @ half)


def _root_sum(matrix: Array) -> float:
    values = scipy.linalg.eigvalsh((matrix + matrix.T) / 2)
    return float(np.sqrt(np.clip(values, 0, None)).sum())


def inception_score(logits: Array) -> float:
    """Mean over consecutive splits of 5,000 of exp(mean KL(p(y|x), p(y))); float32 softmax of logits (N, classes)."""
    shifted = logits.astype(np.float32) - logits.max(axis=1, keepdims=True)
    exponential = np.exp(shifted)
    p = exponential / exponential.sum(axis=1, keepdims=True)
    scores = []
    for start in range(0, len(p), IS_SPLIT):
        part = p[start : start + IS_SPLIT]
        marginal = part.mean(axis=0, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            # 0 log 0 = 0: a class of probability zero adds nothing.
            terms = np.where(part > 0, part * (np.log(part) - np.log(marginal)), 0)
        scores.append(np.exp(terms.sum(axis=1).mean()))
    return float(np.mean(scores))


def precision_recall(reference: Array, samples: Array, *, half: bool) -> tuple[float, float]:
    """Share of samples inside any reference ball, and of references inside any sample ball.

    Args:
        reference: (M, D) features.
        samples: (N, D) features.
        half: the public protocol, all distances in float16; else float32.
    """
    radii_r, radii_s = _radii(reference, half), _radii(samples, half)
    in_reference = np.zeros(len(samples), bool)
    in_samples = np.zeros(len(reference), bool)
    for start, block in _blocks(reference, samples, half):
        rows = slice(start, start + len(block))
        in_reference |= (block <= radii_r[rows, None]).any(axis=0)
        in_samples[rows] = (block <= radii_s[None, :]).any(axis=1)
    return float(in_reference.mean()), float(in_samples.mean())


def _radii(features: Array, half: bool) -> Array:
    """Squared distance to the third nearest other: the fourth smallest, itself included."""
    parts = [np.partition(block, NEIGHBOURS, axis=1)[:, NEIGHBOURS] for _, block in _blocks(features, features, half)]
    return np.concatenate(parts)


def _blocks(a: Array, b: Array, half: bool, rows: int = 2000) -> Any:
    """(first row, squared distances (rows, len(b)) float32), a block at a time."""
    distances = _half_distances if half else _exact_distances
    prepared = _prepare(b, half)
    for start in range(0, len(a), rows):
        yield start, distances(_prepare(a[start : start + rows], half), prepared)


def _prepare(x: Array, half: bool) -> tuple[Array, Array]:
    """Features and squared norms, float32; rounded to halves in the public protocol."""
    if not half:
        exact = x.astype(np.float64)
        return exact, (exact * exact).sum(axis=1)
    rounded = x.astype(np.float16).astype(np.float32)
    with np.errstate(over="ignore"):
        squares = (rounded * rounded).astype(np.float16)
        return rounded, _half_sum(squares).astype(np.float32)


def _half_sum(squares: Array) -> Array:
    """Row sums in float16 in the order of Eigen's packets: eight lanes, added pairwise at the end."""
    n, d = squares.shape
    padded = np.zeros((n, -(-d // 8) * 8), np.float16)
    padded[:, :d] = squares
    lanes = np.zeros((n, 8), np.float16)
    with np.errstate(over="ignore"):
        for start in range(0, padded.shape[1], 8):
            lanes = lanes + padded[:, start : start + 8]
        while lanes.shape[1] > 1:
            width = lanes.shape[1] // 2
            lanes = lanes[:, :width] + lanes[:, width:]
    sums: Array = lanes[:, 0]
    return sums


def _half_distances(a: tuple[Array, Array], b: tuple[Array, Array]) -> Array:
    """Every operation rounded to float16; a block that overflows is redone in float32."""
    (x, norm_x), (y, norm_y) = a, b
    product = x @ y.T
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = product.astype(np.float16)
        first = norm_x[:, None].astype(np.float16) - np.float16(2) * rounded
        total = (first + norm_y[None, :].astype(np.float16)).astype(np.float32)
    if not np.isfinite(total).all():
        exact_x, exact_y = (x * x).sum(axis=1), (y * y).sum(axis=1)
        total = exact_x[:, None] - 2 * product + exact_y[None, :]
    return np.asarray(np.maximum(total, 0))


def _exact_distances(a: tuple[Array, Array], b: tuple[Array, Array]) -> Array:
    (x, norm_x), (y, norm_y) = a, b
    return np.asarray(np.maximum(norm_x[:, None] - 2 * (x @ y.T) + norm_y[None, :], 0))
