"""FID, sFID and Inception score from features, without a framework.

Protocol: ADM's `evaluations/evaluator.py` (Dhariwal and Nichol 2021, arXiv 2105.05233). Features are (N, D) float32
arrays, or anything that gives their slices: they are read a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from evaluator.metrics.lapack import add_products, cholesky, eigenvalues, reduced
from evaluator.metrics.neighbours import NEIGHBOURS, Rows
from evaluator.metrics.precision_recall import precision_recall
from evaluator.metrics.threads import one_thread, side_by_side
from sra.common.errors import EvaluatorError

__all__ = [
    "NEIGHBOURS",
    "Gaussian",
    "Rows",
    "check_features",
    "frechet_distance",
    "frechet_distances",
    "gaussian",
    "gaussians",
    "inception_score",
    "precision_recall",
    "score_of_pool",
    "trace_of_root",
]

Array = np.ndarray[Any, Any]
IS_SPLIT = 5000
BLOCK = 1024
"""Rows that are held in float64 at a time."""
STRIP = 128
"""Rows of a covariance, or of probabilities, that stay in the processor's cache."""
PARTS = 4
"""Of the blocks, whose products are added up side by side: the same number everywhere, so that roundings are."""


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and covariance (D, D) of features."""

    mean: Array
    covariance: Array


def check_features(least: int, **sets: Any) -> None:
    """Refuse sets of features that are not (N, D) finite floating-point numbers of one width.

    Args:
        least: rows that each must have.
        sets: by the names that a refusal uses.

    Raises:
        EvaluatorError: which, and what is wrong.
    """
    for name, features in sets.items():
        if len(features.shape) != 2 or len(features) < least:
            raise EvaluatorError(f"{name}: shape {tuple(features.shape)}, (N, D) with N of at least {least} is needed")
        for block in blocks(features):
            if block.dtype.kind != "f" or not np.isfinite(block).all():
                raise EvaluatorError(f"{name}: {block.dtype}, finite floating-point numbers are needed")
    widths = {features.shape[1] for features in sets.values()}
    if len(widths) > 1:
        raise EvaluatorError(f"{' and '.join(sets)}: widths {sorted(widths)} differ")


def blocks(features: Rows, size: int = BLOCK) -> Iterator[Array]:
    """Consecutive rows (n, D), at most `size` of them."""
    for start in range(0, len(features), size):
        yield np.asarray(features[start : start + size])


def gaussian(features: Rows) -> Gaussian:
    """Statistics as the public evaluator's, a block of rows at a time.

    The mean is `np.mean`'s in the features' own precision, to the bit: a row after the other. The covariance is
    `np.cov`'s in float64 (ddof 1), from products of features that are shifted by the mean of the first block.
    """
    return gaussians(features)[0]


def gaussians(*sets: Rows) -> list[Gaussian]:
    """Of each set, at the same time."""
    parts = side_by_side(lambda work, *case: work(*case), (case for features in sets for case in _cases(features)))
    return [_joined(len(features), *islice(parts, 1 + PARTS)) for features in sets]


def _cases(features: Rows) -> Iterator[tuple[Any, ...]]:
    shift = np.mean(np.asarray(features[:BLOCK]), axis=0, dtype=np.float64)
    yield _mean, features
    for part in range(PARTS):
        yield _scatter, features, shift, part


def _joined(count: int, mean: Array, *scatters: tuple[Array, Array]) -> Gaussian:
    sum64, scatter = scatters[0]
    for more_sum64, more in scatters[1:]:
        sum64 += more_sum64
        scatter += more
    # The upper triangle so far.
    for start in range(0, len(scatter), STRIP):
        rows, right, below = (slice(*part) for part in ((start, start + STRIP), (start, None), (start + STRIP, None)))
        scatter[rows, right] -= np.outer(sum64[rows], sum64[right]) / count
        scatter[rows, right] /= count - 1
        corner = scatter[rows, rows]
        corner[...] = np.triu(corner) + np.triu(corner, 1).T
        scatter[below, rows] = scatter[rows, below].T
    return Gaussian(mean, scatter)


def _mean(features: Rows) -> Array:
    total = np.zeros((1, features.shape[1]), np.asarray(features[:1]).dtype)
    for block in blocks(features):
        total = np.add.reduce(np.concatenate([total, block]), axis=0, keepdims=True)
    return np.asarray(np.true_divide(total[0], np.intp(len(features)))).astype(total.dtype)


def _scatter(features: Rows, shift: Array, part: int) -> tuple[Array, Array]:
    """Sums (D,) of shifted features and, in the upper triangle, of their products (D, D), over a part of the blocks."""
    width = features.shape[1]
    sums, products = np.zeros(width), np.zeros((width, width))
    for start in range(part * BLOCK, len(features), PARTS * BLOCK):
        centred = features[start : start + BLOCK] - shift
        sums += centred.sum(axis=0)
        add_products(products, centred)
    return sums, products


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2) (Heusel et al. 2017, arXiv 1706.08500)."""
    difference = a.mean.astype(np.float64) - b.mean.astype(np.float64)
    root = trace_of_root(a.covariance, b.covariance)
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root)


def frechet_distances(*pairs: tuple[Gaussian, Gaussian]) -> list[float]:
    """Of each pair, at the same time: FID beside sFID."""
    return list(side_by_side(frechet_distance, pairs))


def trace_of_root(a: Array, b: Array) -> float:
    """tr sqrt(A B) of two covariances: the eigenvalues of A B are those of the symmetric L^T B L with A = L L^T."""
    with one_thread():
        return _trace_of_root(a, b)


def _trace_of_root(a: Array, b: Array) -> float:
    for first, second in ((a, b), (b, a)):
        factor = cholesky(first)
        if factor is not None:
            return _root_sum(reduced(second, factor))
    # Both singular: a symmetric square root takes the place of the Cholesky factor.
    half = symmetric_factor(a)
    return _root_sum(half.T @ b @ half)


def symmetric_factor(covariance: Array) -> Array:
    """H (D, r) with H H^T = S, of the r directions whose variance is not rounding."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _root_sum(matrix: Array) -> float:
    """Sum of the roots of the eigenvalues of a symmetric matrix; its lower triangle counts, and it is used up."""
    if not len(matrix):
        return 0.0
    return float(np.sqrt(np.clip(eigenvalues(matrix), 0, None)).sum())


@dataclass(frozen=True)
class InceptionScore:
    """Mean over splits, and what each image gives to it."""

    value: float
    splits: tuple[float, ...]
    """exp(mean KL) of consecutive splits of 5,000 images."""
    divergences: tuple[Array, ...]
    """KL(p(y|x), p(y)) of every image (n,), by split."""


def inception_score(logits: Array) -> float:
    """Mean over consecutive splits of 5,000 of exp(mean KL(p(y|x), p(y))); float32 softmax of logits (N, classes)."""
    return _score(_divergences(logits[start : start + IS_SPLIT]) for start in range(0, len(logits), IS_SPLIT)).value


def score_of_pool(pool: Rows, weights: Array) -> InceptionScore:
    """The same of pooled features (N, D) and the classifier's weights (D, classes); no bias is used."""
    splits = ((pool[start : start + IS_SPLIT],) for start in range(0, len(pool), IS_SPLIT))
    return _score(side_by_side(lambda split: _divergences(split @ weights), splits))


def _score(divergences: Iterable[Array]) -> InceptionScore:
    found = tuple(divergences)
    splits = tuple(float(np.exp(part.mean())) for part in found)
    return InceptionScore(float(np.mean(splits)), splits, found)


def _divergences(logits: Array) -> Array:
    """KL(p(y|x), p(y)) of each image (n,) of one split."""
    p = logits.astype(np.float32)
    for part in blocks(p, STRIP):
        part -= part.max(axis=1, keepdims=True)
        np.exp(part, out=part)
        part /= part.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        marginal = np.log(p.mean(axis=0, keepdims=True))
        return np.concatenate([_divergence(part, marginal) for part in blocks(p, STRIP)])


def _divergence(p: Array, log_marginal: Array) -> Array:
    """0 log 0 = 0: a class of probability zero adds nothing."""
    with np.errstate(invalid="ignore"):
        terms = np.log(p) - log_marginal
        terms *= p
    terms[p == 0] = 0
    return np.asarray(terms.sum(axis=1))
