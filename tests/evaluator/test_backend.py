"""Metrics whose products torch computes, as on a GPU, are those of NumPy."""

from functools import partial

import numpy as np
import pytest
import torch

from evaluator.metrics import backend
from evaluator.metrics.density_coverage import balls
from evaluator.metrics.frechet import gaussian
from evaluator.metrics.kernel_distance import GAUSSIAN, POLYNOMIAL, KernelDistance
from evaluator.metrics.memorisation import Training
from evaluator.metrics.precision_recall import exact_precision_recall, precision_recall
from evaluator.metrics.torch_backend import Torch


class Counting(Torch):
    """Counts the arrays that it was given."""

    given = 0

    def put(self, array):
        """A copy, as on another device."""
        self.given += 1
        return super().put(array).clone()


@pytest.fixture
def twice():
    """Computes with NumPy, then with torch."""

    def compute(work):
        plain, counting = work(), Counting(torch.device("cpu"))
        before = backend.use(counting)
        try:
            found = work()
        finally:
            backend.use(before)
        assert counting.given
        return plain, found

    return compute


def features(count, seed):
    """Skewed and not negative, more than one tile of rows."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(16, 48)).astype(np.float32)
    hidden = generator.standard_normal((count, 16), np.float32) @ mixing * 0.2
    return np.maximum(hidden + 0.1 * generator.standard_normal((count, 48), np.float32) + 0.3, 0)


REFERENCE, SAMPLES = features(2100, 1), features(4300, 2)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("scale", [1, 200])
def test_precision_and_recall(twice, half, scale):
    """At the larger scale float16 overflows."""
    plain, found = twice(partial(precision_recall, REFERENCE * scale, SAMPLES * scale, half=half))
    # Another order of summation may round a float16 distance to its neighbour.
    assert found == pytest.approx(plain, abs=2 / len(REFERENCE) if half else 0)
    assert 0.1 < min(plain) < max(plain) < 1


def test_the_balls_of_recall_and_coverage(twice):
    plain, found = twice(lambda: exact_precision_recall(REFERENCE, SAMPLES)[2])
    for name in ("nearest", "balls", "closer", "inside"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    plain, found = twice(partial(balls, REFERENCE, SAMPLES))
    np.testing.assert_array_equal(found.densities, plain.densities)
    np.testing.assert_array_equal(found.held, plain.held)


def test_copies_of_training_images(twice):
    plain, found = twice(lambda: Training(REFERENCE).copies(SAMPLES))
    np.testing.assert_array_equal(found.places, plain.places)
    np.testing.assert_array_equal(found.distances, plain.distances)
    np.testing.assert_array_equal(found.gaps, plain.gaps)


@pytest.mark.parametrize("kernel", [POLYNOMIAL, GAUSSIAN])
def test_kernel_distances(twice, kernel):
    plain, found = twice(
        lambda: (lambda d: (d.value, d.biased, d.variance))(KernelDistance(SAMPLES, REFERENCE, kernel))
    )
    assert found == pytest.approx(plain, rel=1e-4)
    assert plain[0] > 0


def test_statistics(twice):
    plain, found = twice(partial(gaussian, SAMPLES))
    np.testing.assert_array_equal(found.mean, plain.mean)
    np.testing.assert_allclose(found.covariance, plain.covariance, rtol=1e-12, atol=1e-14)
