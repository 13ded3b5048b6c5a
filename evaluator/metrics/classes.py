"""What a classifier says of images: agreement with the asked labels, shares of classes, distances of class means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from evaluator.metrics.rows import Array, Rows, blocks

TOP = 5
DRAWS = 200
"""Simulated histograms from which the spread of their distance is estimated."""


def top_classes(pool: Rows, weights: Array) -> Array:
    """(N, 5) likeliest classes of pooled features (N, D), likeliest first; fewer, if the classifier has fewer."""
    with threadpool_limits(limits=1, user_api="blas"):
        parts = [np.argsort(-(block @ weights), axis=1, kind="stable")[:, :TOP] for block in blocks(pool)]
    return np.concatenate(parts)


def histogram_distance(a: Array, b: Array) -> float:
    """Total variation between shares of classes, from counts (classes,): 0 equal, 1 disjoint."""
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)


def histogram_deviation(a: Array, b: Array) -> float:
    """Standard deviation of the distance to fixed counts `b`, over sets of images with the shares `a`."""
    drawn = np.random.default_rng(0).multinomial(int(a.sum()), a / a.sum(), size=DRAWS)
    return float(np.std([histogram_distance(counts, b) for counts in drawn], ddof=1))


@dataclass(frozen=True)
class ClassMeans:
    """Squared distances between the mean features of samples and references of the same class, worst first."""

    classes: Array
    """(C,) those with three samples and two references or more."""
    counts: Array
    """(C,) samples."""
    distances: Array
    """(C,) unbiased, hence sometimes below zero."""
    variances: Array
    """(C,) over sample sets against these references, by the jackknife."""

    @property
    def columns(self) -> tuple[Array, Array, Array, Array]:
        """All of them."""
        return self.classes, self.counts, self.distances, self.variances


def class_means(samples: Rows, of_samples: Array, reference: Rows, of_reference: Array, count: int) -> ClassMeans:
    """Distances by class.

    Args:
        samples: (N, D) features.
        of_samples: (N,) their classes.
        reference: (M, D) features.
        of_reference: (M,) their classes.
        count: of all classes.
    """
    sums, squares, n = _sums(samples, of_samples, count, np.zeros((count, samples.shape[1])))
    theirs, their_squares, m = _sums(reference, of_reference, count, np.zeros((count, samples.shape[1])))
    kept = np.flatnonzero((n > 2) & (m > 1))
    means = theirs / np.maximum(m, 1)[:, None]
    spread = (their_squares - m * (means * means).sum(axis=1)) / np.maximum(m * (m - 1), 1)
    sums, squares, _ = _sums(samples, of_samples, count, means)
    # Of each image, its mean product with the others of its class, about the mean of the references.
    products = _products(samples, of_samples, means, sums) / np.maximum(n - 1, 1)[of_samples]
    value = ((sums * sums).sum(axis=1) - squares) / np.maximum(n * (n - 1), 1)
    deviations = np.bincount(of_samples, (products - value[of_samples]) ** 2, count)
    variance = deviations * (n - 1) / np.maximum(n, 1) * (2 / np.maximum(n - 2, 1)) ** 2
    kept = kept[np.argsort(-(value - spread)[kept], kind="stable")]
    return ClassMeans(kept, n[kept], (value - spread)[kept], variance[kept])


def _sums(rows: Rows, classes: Array, count: int, about: Array) -> tuple[Array, Array, Array]:
    """Sums (count, D) and sums of squares (count,) of rows about a centre of each class, and how many rows."""
    sums, squares = np.zeros((count, rows.shape[1])), np.zeros(count)
    start = 0
    for block in blocks(rows):
        own = classes[start : start + len(block)]
        centred = block - about[own]
        np.add.at(sums, own, centred)
        squares += np.bincount(own, (centred * centred).sum(axis=1), count)
        start += len(block)
    return sums, squares, np.bincount(classes, minlength=count)


def _products(rows: Rows, classes: Array, about: Array, sums: Array) -> Array:
    """(N,) product of each row, about its class's centre, with the sum of the others of its class."""
    found, start = [], 0
    for block in blocks(rows):
        own = classes[start : start + len(block)]
        centred = block - about[own]
        found.append((centred * (sums[own] - centred)).sum(axis=1))
        start += len(block)
    return np.concatenate(found)
