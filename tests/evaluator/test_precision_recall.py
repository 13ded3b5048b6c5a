"""Precision and recall: tiles and thresholds against every distance computed, in each arithmetic."""

import numpy as np
import pytest

from evaluator.dev import plain_numerics
from evaluator.metrics import distances
from evaluator.metrics.distances import HALF, SINGLE, Distances, Exact, Nearest, Points, Single, nearest
from evaluator.metrics.precision_recall import exact_precision_recall, precision_recall


def features(count, width, scale=1.0, shift=0.0):
    """Different for different numbers of rows."""
    return (scale * np.random.default_rng(count).normal(size=(count, width)) + shift).astype(np.float32)


def plain(reference, samples, metric):
    """Every distance, every row sorted."""
    radii = [np.sort(metric(x, x), axis=1)[:, 3] for x in (reference, samples)]
    cross = metric(reference, samples)
    return (cross <= radii[0][:, None]).any(0).mean(), (cross <= radii[1][None]).any(1).mean()


def in_arithmetic(arithmetic):
    """Distances of all pairs, without thresholds."""

    def found(a, b):
        x, y = arithmetic.prepare(a), arithmetic.prepare(b)
        i, j = np.indices((len(a), len(b))).reshape(2, -1)
        products = (x.x @ y.x.T).reshape(-1)
        return arithmetic.distances(x, y, products, i, j).reshape(len(a), len(b))

    return found


def squares(a, b):
    return ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(-1)


# Small distances between large features leave nearly every pair open in float16.
CASES = {
    "common": (features(700, 6), features(900, 6, shift=0.3)),
    "far from the origin": (features(300, 6, 0.2, 9), features(250, 6, 0.2, 9.1)),
    "tiny": (features(300, 6, 1e-3), features(250, 6, 1e-3)),
    "copies": (np.repeat(features(60, 4), 3, axis=0), np.repeat(features(50, 4), 4, axis=0)),
    "wide": (features(120, 1700, 0.5, 0.4), features(90, 1700, 0.5, 0.4)),
    "few": (features(5, 3), features(4, 3)),
}


@pytest.mark.parametrize("tile", [1000, 64])
@pytest.mark.parametrize("case", CASES)
def test_exact(case, tile, monkeypatch):
    monkeypatch.setattr(distances, "TILE", tile)
    reference, samples = CASES[case]
    assert precision_recall(reference, samples, half=False) == plain(reference, samples, squares)


@pytest.mark.parametrize("tile", [1000, 64])
@pytest.mark.parametrize("case", CASES)
def test_the_public_protocol(case, tile, monkeypatch):
    monkeypatch.setattr(distances, "TILE", tile)
    reference, samples = CASES[case]
    expected = plain(reference, samples, in_arithmetic(HALF))
    # Products of other shapes may be summed in another order, which moves a rounding now and then.
    assert precision_recall(reference, samples, half=True) == pytest.approx(expected, abs=1 / len(reference))


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 30.0])
@pytest.mark.parametrize("shift", [0.0, 1.0, 4.0])
def test_no_distance_is_farther_from_the_product_than_the_slack(scale, shift):
    """What the thresholds rely on."""
    a, b = (features(count, 40, scale, shift * scale) for count in (80, 70))
    for arithmetic in (HALF, SINGLE, Exact(a.mean(0))):
        x, y = arithmetic.prepare(a), arithmetic.prepare(b)
        if arithmetic is HALF and HALF.overflows(x, y):
            assert scale == 30
            continue
        products = x.x @ y.x.T
        i, j = np.indices(products.shape).reshape(2, -1)
        found = arithmetic.distances(x, y, products[i, j], i, j)
        line = x.norm[i].astype(float) + y.norm[j] - 2.0 * products[i, j]
        assert (np.abs(found - np.maximum(line, 0)) <= x.slack[i] + y.slack[j]).all()


def test_float16_moves_the_result_as_the_plain_numerics_do():
    reference, samples = features(300, 64, 0.5, 5), features(250, 64, 0.5, 5.15)
    half, exact = (precision_recall(reference, samples, half=h) for h in (True, False))
    assert half == pytest.approx(plain_numerics.precision_recall(reference, samples), abs=0.025)
    assert half[0] - exact[0] > 0.05


def test_blocks_that_overflow_are_computed_in_float32():
    reference, samples = features(300, 8, 40, 200), features(250, 8, 40, 210)
    assert np.isinf(HALF.prepare(reference).norm).all()
    expected = plain(reference, samples, in_arithmetic(SINGLE))
    assert precision_recall(reference, samples, half=True) == pytest.approx(expected, abs=1 / 250)


def test_overflow_counts_by_groups_of_tiles(monkeypatch):
    """One huge sample changes the arithmetic of its block of references and samples, not of the others."""
    monkeypatch.setattr(distances, "TILE", 10)
    x = features(250, 8)
    x[-1] = 300
    found = Distances(Points(x), Points(x), None)
    single = {(i, j): isinstance(found.tile(i, j).arithmetic, Single) for i, j in ((0, 0), (0, 24), (24, 24), (11, 19))}
    assert single == {(0, 0): False, (0, 24): True, (24, 24): True, (11, 19): False}


def test_sets_larger_than_what_stays_prepared(monkeypatch):
    monkeypatch.setattr(distances, "TILE", 16)
    monkeypatch.setattr(distances, "CACHED_BLOCKS", 4)
    reference, samples = CASES["common"]
    assert precision_recall(reference, samples, half=False) == plain(reference, samples, squares)


@pytest.mark.parametrize("scale", [1e-30, 1e17])
def test_features_of_any_size(scale):
    x, y = features(40, 6), features(50, 6, shift=0.3)
    expected = precision_recall(x, y, half=False)
    assert precision_recall(x * np.float32(scale), y * np.float32(scale), half=False) == expected


def test_identical_and_distant_sets():
    x = features(300, 16)
    for half in (True, False):
        assert precision_recall(x, x, half=half) == (1.0, 1.0)
        assert precision_recall(x, x + 30, half=half) == (0.0, 0.0)


def test_squared_norms_of_halves_are_summed_in_packets_with_every_addition_rounded():
    """A one and 2,047 small values: a float16 sum in one go would lose all the small ones."""
    x = np.full((1, 2048), 2.0**-6, np.float32)
    x[0, 0] = 1
    # Lane 0 of the first packet loses its 31 small values to the one; the other 2,016 add up among themselves.
    assert HALF.prepare(x).norm[0] == np.float16(1 + 2016 * 2.0**-12)


def test_nearest_keeps_the_smallest_in_any_order():
    found = Nearest(3, 2)
    found.add(np.array([1, 0, 1, 1]), np.array([5.0, 2.0, 3.0, 4.0]), np.array([10, 11, 12, 13]))
    found.add(np.array([1, 0]), np.array([3.5, 1.0]), np.array([14, 15]))
    assert found.values.tolist() == [[1, 2], [3, 3.5], [np.inf, np.inf]]
    assert found.places.tolist() == [[15, 11], [12, 14], [-1, -1]]


def test_nearest_places_are_those_of_a_sort():
    x = features(300, 5)
    found = nearest(Points(x), Exact(x.mean(0)), 6)
    assert (found.places == np.argsort(squares(x, x), axis=1)[:, :6]).all()


def test_coverage_gives_recall_of_any_part_of_the_samples():
    reference, samples = CASES["common"]
    precision, recall, coverage = exact_precision_recall(reference, samples)
    assert (precision, recall) == plain(reference, samples, squares)
    assert coverage.recall(np.ones(len(samples), bool)) == recall
    for seed in range(5):
        part = np.random.default_rng(seed).random(len(samples)) < 0.6
        assert coverage.recall(part) == plain(reference, samples[part], squares)[1]
