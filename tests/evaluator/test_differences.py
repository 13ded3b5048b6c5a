"""Differences of two sample sets: contributions against the metrics without an image, intervals, test, pairing."""

import numpy as np
import pytest

from evaluator.metrics import differences
from evaluator.metrics.differences import difference, frechet_contributions, inception_contributions
from evaluator.metrics.frechet import frechet_distance, gaussian
from evaluator.metrics.inception_score import score_of_pool
from evaluator.metrics.intervals import distances_without_each

REFERENCE = gaussian(np.random.default_rng(0).standard_normal((2000, 6)).astype(np.float32))


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch):
    monkeypatch.setattr(differences, "PERMUTATIONS", 499)


def contributed(features):
    own = gaussian(features)
    value = frechet_distance(own, REFERENCE)
    return value, frechet_contributions(value, distances_without_each(features, own, REFERENCE))


def test_contributions_to_fid_are_what_leaving_out_an_image_changes():
    features = np.random.default_rng(1).standard_normal((60, 6)).astype(np.float32)
    value, found = contributed(features)
    for place in (0, 17, 59):
        without = frechet_distance(gaussian(np.delete(features, place, axis=0)), REFERENCE)
        assert found[place] == pytest.approx(60 * value - 59 * without, rel=1e-3, abs=1e-3)


def test_contributions_to_the_inception_score_have_it_as_their_mean():
    rng = np.random.default_rng(2)
    score = score_of_pool(rng.standard_normal((5300, 6)).astype(np.float32), rng.standard_normal((6, 10)))
    assert inception_contributions(score).mean() == pytest.approx(score.value, rel=1e-6)


def test_intervals_hold_the_truth_and_the_test_is_not_too_eager():
    """100 pairs of sets of one distribution that share most of their noise: the true difference is zero."""
    rng, held, small = np.random.default_rng(3), 0, 0
    for _ in range(100):
        common = rng.standard_normal((150, 6))
        sets = ((0.8 * common + 0.6 * rng.standard_normal((150, 6))).astype(np.float32) for _ in range(2))
        (a, first), (b, second) = map(contributed, sets)
        found = difference((a, b), first, second)
        held += found.interval[0] <= 0 <= found.interval[1]
        small += found.p < 0.05
    assert held >= 88
    assert small <= 12


def test_a_shift_is_found_sooner_in_pairs():
    common = np.random.default_rng(4).standard_normal((400, 6)).astype(np.float32)
    (a, first), (b, second) = contributed(common + np.float32(0.5)), contributed(common + np.float32(0.53))
    paired = difference((a, b), first, second)
    apart = difference((a, b), first, second[:-1])
    assert paired.interval[1] - paired.interval[0] < 0.5 * (apart.interval[1] - apart.interval[0])
    assert paired.p < 0.05 < apart.p


def test_equal_sets_do_not_differ():
    _, same = contributed(np.random.default_rng(5).standard_normal((50, 6)).astype(np.float32))
    found = difference((1.0, 1.0), same, same)
    assert found == (0, (0, 0), 1)
