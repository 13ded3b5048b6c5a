"""Inception score (Salimans et al. 2016, arXiv 1606.03498) in the public evaluator's splits of 5,000 images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from evaluator.metrics.rows import Array, Rows, blocks

SPLIT_IMAGES = 5000
STRIP = 128
"""Rows of probabilities that fit in the processor's cache."""


@dataclass(frozen=True)
class InceptionScore:
    """Mean over splits, and the contribution of each image."""

    value: float
    splits: tuple[float, ...]
    """exp(mean KL) of consecutive splits of 5,000 images."""
    divergences: tuple[Array, ...]
    """KL(p(y|x), p(y)) of every image (n,), by split."""


def inception_score(logits: Array) -> float:
    """Mean over splits of exp(mean KL(p(y|x), p(y))); float32 softmax of logits (N, classes)."""
    return _score(_divergences(part) for part in blocks(logits, SPLIT_IMAGES)).value


def score_of_pool(pool: Rows, weights: Array) -> InceptionScore:
    """Inception score of pooled features (N, D) and the classifier's weights (D, classes); no bias is used."""
    # With one thread, logits do not depend on the number of processors.
    with threadpool_limits(limits=1, user_api="blas"):
        return _score(_divergences(part @ weights) for part in blocks(pool, SPLIT_IMAGES))


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
        mean = p.mean(axis=0, keepdims=True)
        # The mean of a class that nobody predicts may be zero where a probability is not.
        if not mean.all():
            p[:, mean[0] == 0] = 0
        marginal = np.log(mean)
        return np.concatenate([_divergence(part, marginal) for part in blocks(p, STRIP)])


def _divergence(p: Array, log_marginal: Array) -> Array:
    """0 log 0 = 0: a class of probability zero adds nothing."""
    with np.errstate(invalid="ignore"):
        terms = np.log(p) - log_marginal
        terms *= p
    terms[p == 0] = 0
    return np.asarray(terms.sum(axis=1))
