"""FID, sFID and Inception score from features, without a framework.

Protocol: ADM's `evaluations/evaluator.py` (Dhariwal and Nichol 2021, arXiv 2105.05233). Features are (N, D) float32
arrays, or anything that gives their slices: they are read a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dsygst
from threadpoolctl import threadpool_limits

from evaluator.errors import EvaluatorError
from evaluator.neighbours import NEIGHBOURS, precision_recall

__all__ = [
    "NEIGHBOURS",
    "Gaussian",
    "check_features",
    "frechet_distance",
    "frechet_distances",
    "gaussian",
    "inception_score",
    "precision_recall",
    "score_of_pool",
    "side_by_side",
    "trace_of_root",
]

Array = np.ndarray[Any, Any]
T = TypeVar("T")
IS_SPLIT = 5000
BLOCK = 1024
"""Rows that are held in float64 at a time."""


class Rows(Protocol):
    """Features (N, D) float32, in memory or not."""

    @property
    def shape(self) -> Any:
        """(N, D)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


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
    """Statistics as the public evaluator's, in one pass.

    The mean is `np.mean`'s in the features' own precision, to the bit: a row after the other. The covariance is
    `np.cov`'s in float64 (ddof 1), from products of features that are shifted by the mean of the first block.
    """
    count, width = features.shape
    shift = np.mean(np.asarray(features[:BLOCK]), axis=0, dtype=np.float64)
    sum64 = np.zeros(width)
    scatter = np.zeros((width, width), order="F")
    total = np.zeros((1, width), np.asarray(features[:1]).dtype)
    for block in blocks(features):
        total = np.add.reduce(np.concatenate([total, block]), axis=0, keepdims=True)
        centred = block - shift
        sum64 += centred.sum(axis=0)
        scatter = dsyrk(1.0, centred.T, beta=1.0, c=scatter, overwrite_c=True)
    # The upper triangle so far.
    diagonal = scatter.diagonal().copy()
    scatter = scatter + scatter.T
    np.fill_diagonal(scatter, diagonal)
    scatter -= np.outer(sum64, sum64) / count
    mean = np.true_divide(total[0], np.intp(count)).astype(total.dtype)
    return Gaussian(mean, scatter / (count - 1))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2) (Heusel et al. 2017, arXiv 1706.08500)."""
    difference = a.mean.astype(np.float64) - b.mean.astype(np.float64)
    root = trace_of_root(a.covariance, b.covariance)
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root)


def frechet_distances(*pairs: tuple[Gaussian, Gaussian]) -> list[float]:
    """Of each pair, at the same time: FID beside sFID."""
    return side_by_side(frechet_distance, pairs)


def side_by_side(work: Callable[..., T], cases: Sequence[tuple[Any, ...]]) -> list[T]:
    """Work on each case in a thread of its own, with LAPACK on one: numpy's functions let other threads run."""
    with one_thread(), ThreadPoolExecutor(max(len(cases), 1)) as pool:
        return list(pool.map(lambda case: work(*case), cases))


def one_thread() -> threadpool_limits:
    """A context in which LAPACK keeps to one thread.

    More gain little on eigenvalues of this size, and where processors are shared they wait for each other.
    """
    return threadpool_limits(limits=1)


def trace_of_root(a: Array, b: Array) -> float:
    """tr sqrt(A B) of two covariances: the eigenvalues of A B are those of the symmetric L^T B L with A = L L^T."""
    with one_thread():
        return _trace_of_root(a, b)


def _trace_of_root(a: Array, b: Array) -> float:
    for first, second in ((a, b), (b, a)):
        try:
            factor = np.linalg.cholesky(first)
        except np.linalg.LinAlgError:
            continue
        # LAPACK's reduction of A B x = lambda x: L^T B L in half the products. Arrays are handed over transposed, which
        # saves the copy into LAPACK's order.
        product, info = dsygst(second.T, factor.T, itype=2, lower=False)
        assert info == 0, info
        return _root_sum(product.T)
    # Both singular: a symmetric square root takes the place of the Cholesky factor.
    half = symmetric_factor(a)
    return _root_sum(half.T @ b @ half)


def symmetric_factor(covariance: Array) -> Array:
    """H (D, r) with H H^T = S, of the r directions whose variance is not rounding."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _root_sum(matrix: Array) -> float:
    """Sum of the roots of the eigenvalues of a symmetric matrix; its lower triangle counts."""
    if not len(matrix):
        return 0.0
    values = np.linalg.eigvalsh(matrix, "L")
    return float(np.sqrt(np.clip(values, 0, None)).sum())


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
    return _score(logits[start : start + IS_SPLIT] for start in range(0, len(logits), IS_SPLIT)).value


def score_of_pool(pool: Rows, weights: Array) -> InceptionScore:
    """The same of pooled features (N, D) and the classifier's weights (D, classes); no bias is used."""
    return _score(block @ weights for block in blocks(pool, IS_SPLIT))


def _score(logits: Iterator[Array]) -> InceptionScore:
    divergences = tuple(_divergences(part) for part in logits)
    splits = tuple(float(np.exp(part.mean())) for part in divergences)
    return InceptionScore(float(np.mean(splits)), splits, divergences)


def _divergences(logits: Array) -> Array:
    """KL(p(y|x), p(y)) of each image (n,) of one split."""
    exponential = np.exp(logits.astype(np.float32) - logits.max(axis=1, keepdims=True))
    p = exponential / exponential.sum(axis=1, keepdims=True)
    marginal = p.mean(axis=0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        # 0 log 0 = 0: a class of probability zero adds nothing.
        terms = np.where(p > 0, p * (np.log(p) - np.log(marginal)), 0)
    return np.asarray(terms.sum(axis=1))
