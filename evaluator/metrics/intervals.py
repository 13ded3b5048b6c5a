"""95 % intervals of all metrics, from the features of one sample set.

The target is the expected metric of that many images of the same generator, against the same reference, which is held
fixed. A metric is an unbiased estimate of its own expectation (FID's growth at few images is part of the target), so
that only its spread over sample sets has to be estimated: `docs/intervals.md` derives and checks it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from evaluator.metrics.frechet import Gaussian, symmetric_factor
from evaluator.metrics.inception_score import InceptionScore
from evaluator.metrics.precision_recall import Coverage
from evaluator.metrics.rows import Array, Rows, blocks

Interval = tuple[float, float]
"""95 % interval (low, high)."""
QUANTILE = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""
STEP, TAIL = 0.7, 14.0
"""Of the integral, in log s: distance of its nodes, and how far it reaches beyond the eigenvalues; errors of 1e-6."""
SUBSETS, SUBSET_SHARE = 100, 0.6
"""Random subsets of the samples for recall, and the share of the samples in each."""


def frechet_interval(value: float, without: Array) -> Interval:
    """Interval of a Frechet distance, from the (N,) distances without each image.

    The variance is the jackknife's (Efron and Stein 1981).
    """
    low, high = around(value, jackknife_error(without))
    return max(low, 0.0), high


def jackknife_error(without: Array) -> float:
    """Standard error of a statistic, from its (N,) values without each image."""
    return math.sqrt(float(without.var()) * (len(without) - 1))


@dataclass(frozen=True)
class Removals:
    """What leaving out each of N images in turn changes."""

    value: float
    """Frechet distance with all of them."""
    distances: Array
    """(N,) without each image."""
    values: Array
    """(r,) eigenvalues w of the product of both covariances."""
    nodes: Array
    """(K,) nodes s of integrals over s > 0, equidistant in log s."""
    logs: Array
    """(N, K) log det(1 + S S_r / s^2) without each image, minus that with it."""


def distances_without_each(features: Rows, own: Gaussian, reference: Gaussian) -> Array:
    """(N,) Frechet distance of features (N, D) to a reference without each image in turn, exact."""
    return remove_each(features, own, reference).distances


def remove_each(features: Rows, own: Gaussian, reference: Gaussian) -> Removals:
    """Leave out each of N images in turn; features are (N, D).

    Leaving out an image x takes c d d^T from the covariance S, with d = x - m. With (A, w) as `root_of` has them and
    y = A^T d, this changes tr sqrt(S S_r) by the integral over s > 0 of log(1 - c sum_k y_k^2 / (w_k + s^2)) / pi
    (from log det, because sqrt(w) is the integral of log(1 + w / s^2) / pi).
    """
    count, mean = len(features), own.mean.astype(np.float64)
    axes, values = root_of(own.covariance, reference.covariance)
    difference, share = mean - reference.mean, count / (count - 1) ** 2
    grow = (count - 1) / (count - 2)
    root = float(np.sqrt(values).sum())
    nodes = _nodes(values)
    kernel = share / (values[:, None] + nodes**2)
    distances, logs = [], []
    for block in blocks(features):
        centred = block - mean
        y = centred @ axes
        # Rounding may leave nothing where an image is the only one in some direction.
        logs.append(np.log(np.maximum(1 - (y * y) @ kernel, np.finfo(np.float64).eps)))
        trace = np.trace(own.covariance) - share * (centred * centred).sum(axis=1)
        shifted = difference - centred / (count - 1)
        roots = 2 * math.sqrt(grow) * (root + logs[-1] @ nodes * (STEP / math.pi))
        distances.append((shifted * shifted).sum(axis=1) + grow * trace + np.trace(reference.covariance) - roots)
    value = float(difference @ difference + np.trace(own.covariance) + np.trace(reference.covariance) - 2 * root)
    return Removals(value, np.concatenate(distances), values, nodes, np.concatenate(logs))


def _nodes(values: Array) -> Array:
    """Nodes s of the trapezoidal rule in log s for eigenvalues (r,); an integral is the sum of s f(s) STEP."""
    if not len(values):
        return np.ones(0)
    first, last = 0.5 * math.log(values.min()) - TAIL, 0.5 * math.log(values.max()) + TAIL
    return np.asarray(np.exp(np.arange(first, last, STEP)))


def root_of(covariance: Array, reference: Array) -> tuple[Array, Array]:
    """A (D, r) and w (r,), with A^T S A = diag(w) and A A^T = S_r in the directions in which both vary."""
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            factor = np.linalg.cholesky(reference)
        except np.linalg.LinAlgError:
            factor = symmetric_factor(reference)
        values, vectors = np.linalg.eigh(factor.T @ covariance @ factor)
        regular = values > len(values) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
        return factor @ vectors[:, regular], values[regular]


def inception_interval(score: InceptionScore) -> Interval:
    """Interval of an Inception score, from the spread of its images' divergences in each split.

    The error of the marginal does not enter in first order: the derivative of the mean KL with respect to it is zero.
    """
    errors = split_errors(score)
    low, high = around(score.value, math.hypot(*errors) / len(errors))
    return max(low, 1.0), high


def split_errors(score: InceptionScore) -> list[float]:
    """Standard error of the Inception score of each split."""
    parts = zip(score.splits, score.divergences, strict=True)
    return [split * float(part.std(ddof=1)) / math.sqrt(len(part)) if len(part) > 1 else 0.0 for split, part in parts]


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
    return share_interval(value, variance, min(count, len(coverage.balls)))


def share_interval(value: float, variance: float, trials: int) -> Interval:
    """Interval of a share with this variance over sample sets; of `trials` independent ones at 0 and 1."""
    if variance > 0 and 0 < value < 1:
        return _wilson(value, max(value * (1 - value) / variance, 1.0))
    # At 0 and 1 a share has no spread: use the wider of its interval and that of independent trials.
    (low, high), (other_low, other_high) = around(value, math.sqrt(variance)), _wilson(value, trials)
    return max(min(low, other_low), 0.0), min(max(high, other_high), 1.0)


def around(value: float, error: float) -> Interval:
    """1.96 standard errors to each side."""
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
