"""Plain reference implementation of the public evaluator's numerics, for tests and `evaluator.dev.perf`.

Whole arrays in memory, `np.cov`, `scipy.linalg.sqrtm`, every distance in float16 and every row partitioned. Nothing
that scores uses this module.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg

from sra.common.npz import open_npz

Array = np.ndarray[Any, Any]
SPLIT, ROWS, NEIGHBOURS, OFFSET = 5000, 10_000, 3, 1e-6


def features(run: Callable[[Array], list[Array]], path: Path) -> list[Array]:
    """Pooled and spatial features of an `.npz` file: read a batch of 64, run it, keep it, in turn."""
    parts = [run(batch) for batch in open_npz(path).batches(64)]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def statistics(features: Array) -> tuple[Array, Array]:
    """Mean (D,) and covariance (D, D)."""
    return np.mean(features, axis=0), np.cov(features, rowvar=False)


def frechet_distance(a: tuple[Array, Array], b: tuple[Array, Array]) -> float:
    """Between two (mean, covariance); the offset joins the diagonals where the root is not finite."""
    (mean_a, covariance_a), (mean_b, covariance_b) = a, b
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b)
    if not np.isfinite(root).all():
        offset = OFFSET * np.eye(len(mean_a))
        root = scipy.linalg.sqrtm((covariance_a + offset) @ (covariance_b + offset))
    difference = mean_a - mean_b
    traces = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.trace(np.real(root))
    return float(difference @ difference + traces)


def inception_score(pool: Array, weights: Array) -> float:
    """Of features (N, D) and the classifier's weights (D, classes)."""
    logits = pool @ weights
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = exponential / exponential.sum(axis=1, keepdims=True)
    scores = []
    for start in range(0, len(p), SPLIT):
        part = p[start : start + SPLIT]
        divergence = part * (np.log(part) - np.log(part.mean(axis=0, keepdims=True)))
        scores.append(np.exp(divergence.sum(axis=1).mean()))
    return float(np.mean(scores))


def distances(a: Array, b: Array) -> Array:
    """Squared distances in float16 (len(a), len(b)) as float32; in float32 where one of them overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        x, y = a.astype(np.float16), b.astype(np.float16)
        # The sum of many products is rounded once: no processor multiplies matrices of halves otherwise.
        product = (x.astype(np.float32) @ y.astype(np.float32).T).astype(np.float16)
        norm_x, norm_y = (np.square(side).sum(axis=1, dtype=np.float32).astype(np.float16) for side in (x, y))
        found = np.maximum(norm_x[:, None] - 2 * product + norm_y[None, :], 0)
    if np.isfinite(found).all():
        return np.asarray(found, np.float32)
    norm_a, norm_b = (np.square(side).sum(axis=1) for side in (a, b))
    return np.asarray(np.maximum(norm_a[:, None] - 2 * (a @ b.T) + norm_b[None, :], 0))


def radii(features: Array) -> Array:
    """(N,) squared distance to the third nearest other."""
    found = np.zeros(len(features), np.float32)
    for i in range(0, len(features), ROWS):
        rows = features[i : i + ROWS]
        block = np.concatenate([distances(rows, features[j : j + ROWS]) for j in range(0, len(features), ROWS)], axis=1)
        found[i : i + ROWS] = np.partition(block, range(NEIGHBOURS + 1), axis=1)[:, NEIGHBOURS]
    return found


def precision_recall(reference: Array, samples: Array) -> tuple[float, float]:
    """All images of both sides."""
    radii_r, radii_s = radii(reference), radii(samples)
    in_reference, in_samples = np.zeros(len(samples), bool), np.zeros(len(reference), bool)
    for i in range(0, len(reference), ROWS):
        for j in range(0, len(samples), ROWS):
            block = distances(reference[i : i + ROWS], samples[j : j + ROWS])
            in_reference[j : j + ROWS] |= (block <= radii_r[i : i + ROWS, None]).any(axis=0)
            in_samples[i : i + ROWS] |= (block <= radii_s[None, j : j + ROWS]).any(axis=1)
    return float(in_reference.mean()), float(in_samples.mean())
