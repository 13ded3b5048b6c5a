"""Metrics: properties, known values, and the public evaluator's numbers from stored features."""

import numpy as np
import pytest
import scipy.linalg

from evaluator.metrics import (
    Gaussian,
    frechet_distance,
    gaussian,
    inception_score,
    precision_recall,
    trace_of_root,
)

GENERATOR = np.random.default_rng(0)


def features(count, width, shift=0.0):
    return (GENERATOR.normal(size=(count, width)) + shift).astype(np.float32)


def test_identical_sets():
    x = features(300, 16)
    assert frechet_distance(gaussian(x), gaussian(x)) == pytest.approx(0, abs=1e-8)
    assert precision_recall(x, x, half=False) == (1.0, 1.0)
    assert precision_recall(x, x, half=True) == (1.0, 1.0)


def test_two_known_gaussians():
    a = Gaussian(np.zeros(3), np.diag([1.0, 4.0, 9.0]))
    b = Gaussian(np.ones(3), np.diag([4.0, 4.0, 1.0]))
    expected = 3 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_trace_of_root_equals_scipys():
    x, y = features(200, 12), features(150, 12) @ GENERATOR.normal(size=(12, 12))
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    assert trace_of_root(a, b) == pytest.approx(np.trace(scipy.linalg.sqrtm(a @ b)).real, rel=1e-9)


def test_singular_covariances():
    basis = GENERATOR.normal(size=(4, 10))
    x, y = features(60, 4) @ basis, features(60, 4) @ basis
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    inner = np.linalg.pinv(basis)
    small = [inner.T @ m @ inner for m in (a, b)]
    assert trace_of_root(a, b) > 0
    # In the span of the basis both are regular: roots agree after an orthonormal change of basis.
    q, _ = np.linalg.qr(basis.T)
    regular = trace_of_root(q.T @ a @ q, q.T @ b @ q)
    assert trace_of_root(a, b) == pytest.approx(regular, rel=1e-5)
    assert small[0].shape == (4, 4)


def test_inception_score_of_one_hot_classes_is_their_number():
    logits = np.full((1000, 10), -1e4, np.float32)
    logits[np.arange(1000), np.arange(1000) % 10] = 1e4
    assert inception_score(logits) == pytest.approx(10, rel=1e-5)


def test_inception_score_of_no_information_is_one_and_order_matters_in_splits():
    assert inception_score(np.zeros((100, 7), np.float32)) == pytest.approx(1, abs=1e-5)
    logits = np.full((10_000, 2), -50.0, np.float32)
    logits[:5000, 0] = logits[5000:, 1] = 50
    shuffled = logits[GENERATOR.permutation(10_000)]
    assert inception_score(logits) == pytest.approx(1, abs=1e-5)
    assert inception_score(shuffled) == pytest.approx(2, rel=1e-3)


def test_far_sets_share_nothing():
    assert precision_recall(features(100, 8), features(100, 8, shift=50), half=False) == (0.0, 0.0)


def test_precision_and_recall_against_a_plain_computation():
    reference, samples = features(120, 6), features(90, 6, shift=0.5)

    def distances(a, b):
        return ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(-1)

    radii_r, radii_s = (np.sort(distances(x, x), axis=1)[:, 3] for x in (reference, samples))
    cross = distances(reference, samples)
    expected = ((cross <= radii_r[:, None]).any(0).mean(), (cross <= radii_s[None]).any(1).mean())
    assert precision_recall(reference, samples, half=False) == pytest.approx(expected)


def test_half_precision_is_close_to_exact():
    reference, samples = features(400, 32), features(400, 32, shift=0.1)
    half, exact = (precision_recall(reference, samples, half=h) for h in (True, False))
    assert half == pytest.approx(exact, abs=0.05)
