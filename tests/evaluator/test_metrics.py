"""Metrics: properties, known values, and the public evaluator's numbers from stored features."""

import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_limits

import evaluator
from evaluator.dev import plain_numerics
from evaluator.metrics.frechet import Gaussian, frechet_distance, gaussian, trace_of_root
from evaluator.metrics.inception_score import inception_score, score_of_pool
from evaluator.metrics.precision_recall import precision_recall
from sra.common.errors import EvaluatorError

GENERATOR = np.random.default_rng(0)


def features(count, width, shift=0.0):
    return (GENERATOR.normal(size=(count, width)) + shift).astype(np.float32)


def test_identical_sets():
    x = features(300, 16)
    assert frechet_distance(gaussian(x), gaussian(x)) == pytest.approx(0, abs=1e-8)


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


@pytest.mark.parametrize(("count", "width"), [(2500, 7), (9000, 7), (300, 261)])
def test_statistics_are_the_public_evaluators(count, width):
    x = (GENERATOR.normal(size=(count, width)) ** 2 + 100).astype(np.float32)
    found = gaussian(x)
    np.testing.assert_array_equal(found.mean, np.mean(x, axis=0))
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(found.covariance, found.covariance.T)


def test_one_feature_and_two_images():
    assert gaussian(np.array([[1.0], [3.0]], np.float32)).covariance == pytest.approx(np.array([[2.0]]))


@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize("kind", ["regular", "one singular", "both singular", "dead features", "constant"])
def test_frechet_distance_equals_the_plain_numerics(kind):
    count = {"one singular": 30, "both singular": 30}.get(kind, 400)
    x, y = features(count, 40), features(25 if kind == "both singular" else 400, 40, 0.3)
    if kind == "dead features":
        x[:, :5] = y[:, 3:9] = 0
    if kind == "constant":
        x[:] = x[0]
    expected = plain_numerics.frechet_distance(plain_numerics.statistics(x), plain_numerics.statistics(y))
    assert frechet_distance(gaussian(x), gaussian(y)) == pytest.approx(expected, rel=1e-6)


def test_inception_score_does_not_depend_on_the_number_of_threads():
    generator = np.random.default_rng(2)
    pool = np.abs(generator.standard_normal((4500, 40), np.float32)) * 30
    weights = generator.standard_normal((40, 20), np.float32)
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads, user_api="blas"):
            found.append(score_of_pool(pool, weights).divergences)
    np.testing.assert_array_equal(*found)


def test_inception_score_equals_the_plain_numerics():
    pool, weights = features(7000, 12), features(12, 30)
    found = score_of_pool(pool, weights)
    assert found.value == pytest.approx(plain_numerics.inception_score(pool, weights), rel=1e-6)
    assert found.value == pytest.approx(inception_score(pool @ weights), rel=1e-6)


def test_importable_functions():
    x, y = features(300, 6), features(300, 6, 0.2)
    assert evaluator.fid(x, y) == pytest.approx(frechet_distance(gaussian(x), gaussian(y)))
    assert evaluator.inception_score(x) == inception_score(x)
    assert evaluator.precision_recall(x, y) == precision_recall(y, x, half=False)
    assert evaluator.precision_recall(x, y, half=True) == precision_recall(y, x, half=True)


class Slices:
    """Features that can only be read by slices, and remember the largest."""

    def __init__(self, values):
        self.values, self.shape, self.most = values, values.shape, 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        self.most = max(self.most, len(self.values[rows]))
        return self.values[rows]


def test_importable_functions_refuse_what_gives_no_number():
    x = features(3000, 6)
    late = x.copy()
    late[-1, -1] = np.nan
    for wrong, said in (
        (late, "samples: expected finite .* float32 with NaN"),
        (x.astype(int), "samples: expected finite .* got int64"),
        (x[:, :5], "samples, reference: expected features of one width, got \\[5, 6\\]"),
        (x[:, 0], "samples: expected shape .* got \\(3000,\\)"),
        (x[:1], "N >= 2"),
    ):
        with pytest.raises(EvaluatorError, match=said):
            evaluator.fid(wrong, x)
    with pytest.raises(EvaluatorError, match=r"samples: .* N >= 4"):
        evaluator.precision_recall(x[:3], x)
    with pytest.raises(EvaluatorError, match="logits: expected finite"):
        evaluator.inception_score(late)
    read = Slices(x)
    evaluator.fid(read, x)
    assert read.most < len(x)
