"""Intervals: coverage of the truth at small scale, and what holds without repetition."""

import numpy as np
import pytest
from scipy.stats import binom

from evaluator.dev import interval_coverage
from evaluator.metrics import intervals
from evaluator.metrics.frechet import frechet_distance, gaussian
from evaluator.metrics.inception_score import inception_score, score_of_pool
from evaluator.metrics.precision_recall import exact_precision_recall


@pytest.mark.parametrize(
    ("case", "metric"),
    [
        (interval_coverage.Case("equal", 8, 200, 150, 1.0, 0.0), "fid"),
        (interval_coverage.Case("apart", 8, 200, 150, 0.9, 0.2), "fid"),
        (interval_coverage.Case("skewed, apart", 128, 150, 150, 0.9, 0.05, "pooled"), "fid"),
        (interval_coverage.Case("apart", 8, 200, 150, 0.9, 0.2), "is"),
        (interval_coverage.Case("apart", 8, 200, 150, 0.9, 0.2), "precision"),
        (interval_coverage.Case("apart", 8, 200, 150, 0.9, 0.2), "recall"),
    ],
)
def test_intervals_hold_the_expected_metric(case, metric, found_of):
    # 84 to 100 % at 120 repetitions: 95 % by more than five standard deviations below; too wide is seen by the width.
    found = found_of(case)[metric]
    assert interval_coverage.covered_share(found) >= 0.84
    width, spread = (found[:, 2] - found[:, 1]).mean(), found[:, 0].std()
    assert 0.8 < width / (2 * 1.96 * spread) < 1.35


@pytest.fixture(scope="module")
def found_of():
    """Repetitions of a case, made once."""
    known = {}

    def found(case):
        if case not in known:
            known[case] = interval_coverage.repeat(case, range(120))
        return known[case]

    return found


def test_fid_interval_is_about_the_value_and_shrinks_with_images():
    generator = np.random.default_rng(0)
    reference = gaussian(generator.normal(size=(500, 12)).astype(np.float32))
    widths = []
    for count in (500, 8000):
        x = (1.2 * generator.normal(size=(count, 12)) + 0.1).astype(np.float32)
        own = gaussian(x)
        value = frechet_distance(own, reference)
        low, high = intervals.frechet_interval(value, intervals.distances_without_each(x, own, reference))
        assert low < value < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.3)


@pytest.mark.parametrize(("count", "width", "references"), [(60, 8, 50), (30, 40, 90), (30, 8, 5), (30, 30, 30)])
def test_distances_without_each_image_are_those_computed_without_it(count, width, references):
    """Also where the covariance of one side, or of both, is singular."""
    generator = np.random.default_rng(1)
    x = 1.2 * generator.chisquare(1, (count, width))
    own, reference = gaussian(x), gaussian(generator.chisquare(1, (references, width)))
    plain = [frechet_distance(gaussian(np.delete(x, i, 0)), reference) for i in range(count)]
    found = intervals.distances_without_each(x, own, reference)
    assert found == pytest.approx(plain, abs=2e-3 * np.std(plain))


def test_singular_covariances_have_finite_intervals():
    x = np.random.default_rng(2).normal(size=(20, 40)).astype(np.float32)
    x[:, :5] = 0
    own, reference = gaussian(x), gaussian(x[:10] + 1)
    low, high = intervals.frechet_interval(5.0, intervals.distances_without_each(x, own, reference))
    assert 0 <= low < 5 < high < np.inf


@pytest.mark.parametrize(("count", "share"), [(50, 0.9), (200, 0.5), (1000, 0.02)])
def test_share_of_trials_is_covered(count, share):
    ends = [intervals.precision_interval(k / count, count) for k in range(count + 1)]
    held = sum(binom.pmf(k, count, share) for k, (low, high) in enumerate(ends) if low <= share <= high)
    assert 0.94 < held < 0.99
    assert ends[0][0] == 0.0
    assert ends[0][1] > 0
    assert ends[-1][0] < 1
    assert ends[-1][1] == 1.0


def test_recall_of_a_certain_outcome_has_a_narrow_interval_that_is_not_empty():
    x = np.random.default_rng(3).normal(size=(200, 3)).astype(np.float32)
    _, recall, coverage = exact_precision_recall(x, x)
    low, high = intervals.recall_interval(recall, coverage)
    assert recall == high == 1.0
    assert 0.8 < low < 1


def test_inception_interval_comes_from_the_divergences():
    logits = np.random.default_rng(4).normal(size=(7000, 6)).astype(np.float32) * 2
    score = score_of_pool(logits, np.eye(6, dtype=np.float32))
    assert [len(part) for part in score.divergences] == [5000, 2000]
    assert score.value == pytest.approx(inception_score(logits), rel=1e-6)
    errors = [s * d.std(ddof=1) / len(d) ** 0.5 for s, d in zip(score.splits, score.divergences, strict=True)]
    low, high = intervals.inception_interval(score)
    assert high - low == pytest.approx(2 * 1.96 * np.hypot(*errors) / 2, rel=1e-3)
