"""95 % intervals of all metrics, from the features of one sample set.

The target is the expected metric of that many images of the same generator, against the same reference, which is held
fixed. A metric is an unbiased estimate of its own expectation (FID's growth at few images is part of the target), so
that only its spread over sample sets has to be estimated: `docs/intervals.md` derives and checks it.
"""

from __future__ import annotations

import math

import numpy as np
from threadpoolctl import threadpool_limits

from evaluator.metrics.frechet import Gaussian, symmetric_factor
from evaluator.metrics.inception_score import InceptionScore
from evaluator.metrics.precision_recall import Coverage
from evaluator.metrics.rows import Array, Rows, blocks

Interval = tuple[float, float]
"""95 % interval (low, high)."""
Root = tuple[Array, Array]
QUANTILE = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""
SECOND_ORDER_IMAGES, PARTNERS = 512, 4
"""Images from which the second-order part is estimated, and partners of each."""
SUBSETS, SUBSET_SHARE = 100, 0.6
"""Random subsets of the samples for recall, and the share of the samples in each."""


def frechet_interval(value: float, features: Rows, own: Gaussian, reference: Gaussian) -> Interval:
    """Interval of the Frechet distance of features (N, D), with their statistics, to those of a reference."""
    root = root_of(own.covariance, reference.covariance)
    low, high = _around(value, math.sqrt(frechet_variance(features, own, reference, root)))
    return max(low, 0.0), high


def frechet_variance(features: Rows, own: Gaussian, reference: Gaussian, root: Root) -> float:
    """Variance of a Frechet distance over sample sets of N images.

    The empirical influence of an image x, with y = (x - m) A and (A, w) as `root_of` has them, is
    2 (m - m_r).(x - m) + |x - m|^2 - sum_k y_k^2 / sqrt(w_k). The variance of its mean counts the second-order part
    of the distance twice; when the two distributions are equal, that part (`_second_order`) is the whole variance.
    """
    axes, values = root
    mean = own.mean.astype(np.float64)
    slope = 2 * (mean - reference.mean)
    influence = []
    for block in blocks(features):
        centred = block - mean
        y = centred @ axes
        influence.append(centred @ slope + (centred * centred).sum(axis=1) - (y * y) @ values**-0.5)
    first_order = float(np.concatenate(influence).var(ddof=1)) / len(features)
    return max(first_order - _second_order(features, mean, axes, values), first_order / 2)


def root_of(covariance: Array, reference: Array) -> Root:
    """A (D, r) and w (r,), with A^T S A = diag(w) and A A^T = S_r in the directions in which both vary."""
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            factor = np.linalg.cholesky(reference)
        except np.linalg.LinAlgError:
            factor = symmetric_factor(reference)
        values, vectors = np.linalg.eigh(factor.T @ covariance @ factor)
        regular = values > len(values) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
        return factor @ vectors[:, regular], values[regular]


def _second_order(features: Rows, mean: Array, axes: Array, values: Array) -> float:
    """2 E[h(x, x')^2] / N^2 over pairs of images: the variance of the second-order part of the distance.

    h(x, x') = sum_k y_k y'_k / sqrt(w_k) + sum_kl K_kl (y_k y_l - M_kl) (y'_k y'_l - M_kl) / 2, where M = diag(w) and
    K_kl = 1 / (sqrt(w_k w_l) (sqrt(w_k) + sqrt(w_l))) is the second derivative of -2 tr sqrt(M).
    """
    count = len(features)
    chosen = np.random.default_rng(0).choice(count, min(SECOND_ORDER_IMAGES, count), replace=False)
    some = np.concatenate([np.asarray(features[int(i) : int(i) + 1]) for i in chosen])
    y, root = (some - mean) @ axes, np.sqrt(values)
    kernel = 1 / (np.outer(root, root) * (root[:, None] + root[None, :]))
    squares = []
    for shift in range(1, PARTNERS + 1):
        other = np.roll(y, shift, axis=0)
        both = y * other
        quadratic = ((both @ kernel) * both).sum(axis=1) - ((y * y + other * other) @ (1 / root)) / 2 + root.sum() / 2
        squares.append((both @ (1 / root) + quadratic / 2) ** 2)
    return 2 * float(np.mean(np.concatenate(squares))) / count**2


def inception_interval(score: InceptionScore) -> Interval:
    """Interval of an Inception score, from the spread of its images' divergences in each split.

    The error of the marginal does not enter in first order: the derivative of the mean KL with respect to it is zero.
    """
    parts = zip(score.splits, score.divergences, strict=True)
    variances = [(split**2) * float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.0 for split, part in parts]
    low, high = _around(score.value, math.sqrt(sum(variances)) / len(variances))
    return max(low, 1.0), high


def precision_interval(value: float, count: int) -> Interval:
    """Interval of the precision of N samples, which are independent trials for a fixed reference."""
    return _wilson(value, count)


def recall_interval(value: float, coverage: Coverage) -> Interval:
    """Interval of a recall by the delete-d jackknife (Shao and Wu 1989): recall of random 60 % subsets of the samples.

    The ball of a sample depends on other samples, and few balls contain a given reference: leaving out single samples
    (or groups) overstates the variance about twofold; subsets of this size do not.
    """
    count = len(coverage.nearest)
    size = round(SUBSET_SHARE * count)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(SUBSETS):
        part = np.zeros(count, bool)
        part[generator.permutation(count)[:size]] = True
        found.append(coverage.recall(part))
    variance = float(np.var(found, ddof=1)) * size / (count - size)
    if variance > 0 and 0 < value < 1:
        return _wilson(value, max(value * (1 - value) / variance, 1.0))
    # At 0 and 1 a share has no spread: use the wider of the subsets' interval and that of independent trials.
    (low, high), (other_low, other_high) = (
        _around(value, math.sqrt(variance)),
        _wilson(value, min(count, len(coverage.balls))),
    )
    return max(min(low, other_low), 0.0), min(max(high, other_high), 1.0)


def _around(value: float, error: float) -> Interval:
    return value - QUANTILE * error, value + QUANTILE * error


def _wilson(value: float, trials: float) -> Interval:
    """Wilson score interval of a share with continuity correction (Newcombe 1998); its width is not 0 at 0 and 1."""
    low = 0.0 if value <= 0 else _wilson_end(value, trials, -1)
    high = 1.0 if value >= 1 else _wilson_end(value, trials, 1)
    return max(low, 0.0), min(high, 1.0)


def _wilson_end(value: float, trials: float, side: int) -> float:
    z2 = QUANTILE**2
    inside = z2 + 2 * side - 1 / trials + 4 * value * (trials * (1 - value) - side)
    return (2 * trials * value + z2 + side * (1 + QUANTILE * math.sqrt(max(inside, 0.0)))) / (2 * (trials + z2))
