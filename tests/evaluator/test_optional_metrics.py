"""Metrics that are computed if named: the formulas written out, coverage of their intervals, what is refused."""

import numpy as np
import pytest
from scipy.special import hyp2f1

from evaluator.metrics import classes, density_coverage, extrapolation, intervals, kernel_distance
from evaluator.metrics.frechet import Gaussian, frechet_distance, gaussian
from evaluator.tools import adm_protocol, is_optional
from evaluator.tools.optional_metrics import LABEL_MAP, labels_in
from sra.common.errors import EvaluatorError

GENERATOR = np.random.default_rng(3)
REFERENCE, SAMPLES = (GENERATOR.integers(low, 256, (300, 8, 8, 3), dtype=np.uint8) for low in (0, 20))
LABELS = np.arange(300) % 5
NAMES = ("kid", "kid_subsets", "density", "coverage", "top1", "top5", "class_histogram", "label_histogram")
NAMES += ("class_means", "is_splits", "fid_infinity", "fid@5000")


def draw(generator, count, width=6, scale=1.0):
    return (scale * generator.chisquare(2, (count, width))).astype(np.float32)


def kernel(x, y):
    return (x.astype(float) @ y.T.astype(float) / x.shape[1] + 1) ** 3


def mmd(x, y):
    n, m = len(x), len(y)
    own, theirs = kernel(x, x), kernel(y, y)
    inside = (own.sum() - np.trace(own)) / n / (n - 1) + (theirs.sum() - np.trace(theirs)) / m / (m - 1)
    return inside - 2 * kernel(x, y).mean()


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(kernel_distance, "TILE", 16)


@pytest.mark.usefixtures("small_tiles")
def test_kernel_distance_and_its_jackknife_are_the_formulas():
    x, y = draw(GENERATOR, 50), draw(GENERATOR, 40, scale=1.2)
    found = kernel_distance.KernelDistance(x, y)
    assert found.value == pytest.approx(mmd(x, y), rel=1e-4)
    without = np.array([mmd(np.delete(x, i, 0), y) for i in range(50)])
    assert found.variance == pytest.approx(without.var() * 49, rel=1e-3)
    # Subsets of all images are all images.
    few = kernel_distance.KernelDistance(x, x[:40] * 2).subsets
    assert few.mean() == pytest.approx(mmd(x, x[:40] * 2), rel=0.2)


def test_density_and_coverage_are_the_formulas():
    x, y = draw(GENERATOR, 60), draw(GENERATOR, 50, scale=1.2)
    found = density_coverage.balls(y, x)
    between = ((y[:, None].astype(float) - x) ** 2).sum(axis=2)
    radii = np.sort(((y[:, None].astype(float) - y) ** 2).sum(axis=2), axis=1)[:, 5]
    held = between < radii[:, None]
    assert found.density == pytest.approx(held.sum() / 5 / 60)
    assert found.coverage == held.any(axis=1).mean()
    without = np.array([np.delete(held, j, 1).any(axis=1).mean() for j in range(60)])
    assert found.coverage_variance == pytest.approx(without.var() * 59)


def test_class_means_are_the_formulas():
    x, y = draw(GENERATOR, 40), draw(GENERATOR, 30, scale=1.2)
    own, theirs = GENERATOR.integers(0, 4, 40), GENERATOR.integers(0, 4, 30)
    own[:2], theirs[theirs == 3] = 5, 2
    found = classes.class_means(x, own, y, theirs, 7)

    def distance(c, a):
        b = y[theirs == c].astype(float)
        spread = a.var(axis=0, ddof=1).sum() / len(a) + b.var(axis=0, ddof=1).sum() / len(b)
        return ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() - spread

    parts = {c: x[own == c].astype(float) for c in (0, 1, 2)}
    expected = {c: distance(c, part) for c, part in parts.items()}
    assert sorted(found.classes) == [0, 1, 2]
    assert list(found.classes) == sorted(expected, key=expected.get, reverse=True)
    for c, count, value, variance in zip(*found.columns, strict=True):
        without = np.array([distance(c, np.delete(parts[c], i, 0)) for i in range(count)])
        assert count == len(parts[c])
        assert value == pytest.approx(expected[c], rel=1e-9)
        assert variance == pytest.approx(without.var() * (count - 1), rel=1e-9)


def covered(values, deviations):
    """Share of intervals that hold the mean, and their mean width in true ones."""
    values, deviations = np.array(values), np.array(deviations)
    held = np.abs(values - values.mean()) <= intervals.QUANTILE * deviations
    return held.mean(), deviations.mean() / values.std(ddof=1)


@pytest.mark.parametrize("scale", [1.0, 1.2])
def test_intervals_hold_the_expected_metric(scale):
    reference = draw(np.random.default_rng(0), 200)
    weights = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    counts = np.bincount(classes.top_classes(reference, weights)[:, 0], minlength=8)
    found = {name: ([], []) for name in ("kid", "density", "coverage", "histogram", "class means")}

    def add(name, value, variance):
        found[name][0].append(value)
        found[name][1].append(variance**0.5)

    for number in range(100):
        x = draw(np.random.default_rng([2, number]), 150, scale=scale)
        kid, balls = kernel_distance.KernelDistance(x, reference), density_coverage.balls(reference, x)
        add("kid", kid.value, kid.variance)
        add("density", balls.density, balls.densities.var(ddof=1) / 150)
        add("coverage", balls.coverage, balls.coverage_variance)
        own = classes.top_classes(x, weights)[:, 0]
        mine = np.bincount(own, minlength=8)
        add("histogram", classes.histogram_distance(mine, counts), classes.histogram_deviation(mine, counts) ** 2)
        means = classes.class_means(x, np.arange(150) % 3, reference, np.arange(200) % 3, 3)
        add("class means", means.distances.mean(), means.variances.sum() / 9)
    for name, columns in found.items():
        share, width = covered(*columns)
        assert share >= 0.86, name
        assert 0.8 < width < 1.7, name


@pytest.mark.parametrize("count", [150, 600, None])
def test_the_curve_of_white_features_is_known(count):
    """E tr sqrt(S) by the law of Marchenko and Pastur, which for eigenvalues of N images is a hypergeometric series."""
    width, at_hand = 100, 300

    def known(images):
        share = width / (images - 1)
        return width * (2 + 1 / images) - 2 * width * hyp2f1(0.5, -0.5, 2, share)

    x = np.random.default_rng(0).normal(size=(at_hand, width))
    curve = extrapolation.fit(x, gaussian(x), Gaussian(np.zeros(width), np.eye(width)))
    change = curve.expected(count) - curve.value
    # Eigenvalues of real numbers add 1 / (2 width) to the slope.
    assert change == pytest.approx(known(count or 10**9) - known(at_hand), rel=0.01)


def test_predicted_fid_holds_the_truth():
    """Skewed features, a tenth of the images: the truth is the mean FID of sets of the full size."""
    reference = gaussian(draw(np.random.default_rng(0), 400, 24))
    full = [gaussian(draw(np.random.default_rng([1, k]), 2000, 24, 1.1)) for k in range(40)]
    truth = np.mean([frechet_distance(own, reference) for own in full])
    held, values, rooms = [], [], []
    for k in range(40):
        x = draw(np.random.default_rng([2, k]), 200, 24, 1.1)
        curve = extrapolation.fit(x, gaussian(x), reference)
        value, (low, high) = curve.at(2000)
        held.append(low <= truth <= high)
        values.append(value)
        rooms.append(high - value)
        assert curve.at(200)[0] == pytest.approx(curve.value)
        assert curve.at(None)[0] <= value < curve.value
    assert np.mean(held) >= 0.85
    assert np.mean(rooms) / 1.96 < 1.3 * np.std(values)
    # The measured FID of so few images is far off, the predicted one is not.
    assert abs(np.mean(values) - truth) < 0.1 * (curve.value - truth)


def test_predicted_fid_of_features_that_vary_in_no_common_direction():
    x = np.zeros((40, 3), np.float32)
    x[:, 0] = np.arange(40) % 5
    reference = Gaussian(np.zeros(3), np.diag([0.0, 1.0, 0.0]))
    curve = extrapolation.fit(x, gaussian(x), reference)
    # |mu|^2, of which the variance / n is noise, and both traces.
    spread = x[:, 0].var(ddof=1)
    assert curve.expected(None) == pytest.approx(4 - spread / 40 + spread + 1)
    assert np.isfinite(curve.at(4000)[1]).all()


@pytest.fixture
def labelled(tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(path, arr_0=SAMPLES, arr_1=LABELS)
    return path


def test_named_metrics_join_the_five(task, projection, labelled):
    (plain,) = adm_protocol.score(task([labelled], REFERENCE), projection, "adm")
    (result,) = adm_protocol.score(task([labelled], REFERENCE, metrics=NAMES), projection, "adm")
    more = [name for name in result.metrics if is_optional(name)]
    assert [name for name in result.metrics if name not in more] == list(plain.metrics)
    assert {name: result.metrics[name] for name in plain.metrics} == plain.metrics
    assert more == [*NAMES[:9], "is_split_1", *NAMES[10:]]
    for name in more:
        low, high = result.intervals[name]
        assert low <= result.metrics[name] <= high, name
    assert result.metrics["top5"] == 1.0  # of five classes
    assert result.metrics["fid_infinity"] < result.metrics["fid@5000"] < result.metrics["fid"]
    distances = [one.distance for one in result.classes]
    assert distances == sorted(distances, reverse=True)
    agreement = sum(one.top1 * one.images for one in result.classes) / sum(one.images for one in result.classes)
    assert agreement == pytest.approx(result.metrics["top1"])


def test_a_reference_of_statistics_alone(task, projection, labelled, tmp_path):
    own = gaussian(projection(REFERENCE)[:, :12])
    np.savez(tmp_path / "reference.npz", mu=own.mean, sigma=own.covariance)
    scored = task([labelled], REFERENCE, metrics=NAMES)
    scored.reference.path, scored.reference.count = tmp_path / "reference.npz", 0
    (result,) = adm_protocol.score(scored, projection, "adm")
    assert {"kid", "density", "class_means"} <= set(result.absent)
    assert {"top1", "fid_infinity"} <= set(result.metrics)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("top1",), r"--metrics top1: .*set-1\.npz: expected labels"),
        (("fid@299",), "--metrics fid@299: expected 300 "),
        (("fid_infinity",), r"--metrics fid_infinity: .*expected 24 images or more \(2 a feature\), got 20"),
        (("density",), "expected 6 images or more, got 5"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_any_feature(task, projection, names, message):
    samples, reference = (SAMPLES[:20] if "inf" in names[0] else SAMPLES), REFERENCE[:5]
    with pytest.raises(EvaluatorError, match=message):
        adm_protocol.score(task([samples], reference, metrics=names), projection, "adm")
    assert projection.given == 0


def test_labels_beside_the_images_and_labels_of_another_number(task, projection, tmp_path):
    np.save(tmp_path / "labels.npy", LABELS)
    (result,) = adm_protocol.score(task([SAMPLES], REFERENCE, metrics=("top1",)), projection, "adm")
    assert 0 <= result.metrics["top1"] <= 1
    assert [one.top1 for one in result.classes] == sorted(one.top1 for one in result.classes)
    np.save(tmp_path / "labels.npy", LABELS[:-1])
    with pytest.raises(EvaluatorError, match=r"labels\.npy: expected 300 labels"):
        adm_protocol.score(task([SAMPLES], REFERENCE, metrics=("top1",)), projection, "adm")
    whole = (tmp_path / "labels.npy").read_bytes()
    (tmp_path / "labels.npy").write_bytes(whole[:-8])
    with pytest.raises(EvaluatorError, match=r"labels\.npy: expected an array of labels"):
        adm_protocol.score(task([SAMPLES], REFERENCE, metrics=("top1",)), projection, "adm")


def test_the_order_of_a_graphs_classes_lies_beside_it(task, tmp_path, labelled):
    images = task([labelled], REFERENCE).samples[0]
    graph = tmp_path / "graph.pb"
    with pytest.raises(EvaluatorError, match=f"expected {LABEL_MAP}"):
        labels_in(("top1",), 1008, graph, images)
    entry = 'entry {{\n  target_class: {}\n  target_class_string: "{}"\n}}\n'
    names = [(4, "n02"), (9, "n01"), (7, "n05"), (2, "n04"), (3, "n03")]
    (tmp_path / LABEL_MAP).write_text("".join(entry.format(*pair) for pair in names))
    assert list(labels_in(("top1",), 1008, graph, images)[:5]) == [9, 4, 3, 2, 7]
