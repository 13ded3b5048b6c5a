"""The ADM protocol on an extractor without a framework: statistics, order, reuse, intervals."""

import numpy as np
import pytest

from evaluator.features import statistics
from evaluator.metrics import inception_score
from evaluator.metrics.frechet import gaussian
from evaluator.tools import adm_protocol
from evaluator.tools.score_record import AdmSettings, FeatureWidths, NamedFile
from sra.common.errors import EvaluatorError
from sra.common.files import sha256_file

GENERATOR = np.random.default_rng(3)
REFERENCE, SAMPLES = (GENERATOR.integers(low, 256, (300, 8, 8, 3), dtype=np.uint8) for low in (0, 20))
NAMES = ["fid", "sfid", "is", "precision", "recall", "precision_exact", "recall_exact"]


def one(results):
    (result,) = results
    return result


def stored(projection, pixels, name, tmp_path, keep=None):
    """A file with images and the statistics of other images."""
    found = projection(pixels)
    pool, spatial = (gaussian(part) for part in (found[:, :12], found[:, 12:]))
    arrays = {"mu": pool.mean, "sigma": pool.covariance, "mu_s": spatial.mean, "sigma_s": spatial.covariance}
    np.savez(tmp_path / name, arr_0=pixels if keep is None else keep, **arrays)
    return tmp_path / name


def test_every_metric_has_a_value_and_an_interval_that_holds_it(task, projection):
    result = one(adm_protocol.score(task([SAMPLES], REFERENCE), projection, "adm"))
    found, intervals = result.metrics, result.intervals
    assert list(found) == list(intervals) == NAMES
    for name in NAMES:
        low, high = intervals[name]
        assert low <= found[name] <= high
        assert low < high
    widths = FeatureWidths(pool=12, spatial=9, classes=5)
    assert result.settings == AdmSettings(
        stored_statistics=False, trusted_sample_statistics=False, widths=widths, fid_interval="jackknife"
    )


def test_intervals_can_be_left_out(task, projection):
    result = one(adm_protocol.score(task([SAMPLES], REFERENCE, no_intervals=True), projection, "adm"))
    assert list(result.metrics) == NAMES
    assert result.intervals == {}


def test_identical_sets(task, projection):
    found = one(adm_protocol.score(task([REFERENCE], REFERENCE), projection, "adm")).metrics
    assert found["fid"] == pytest.approx(0, abs=1e-7)
    assert found["sfid"] == pytest.approx(0, abs=1e-7)
    assert [found[name] for name in NAMES[3:]] == [1.0] * 4


def test_order_moves_the_inception_score_by_its_splits_alone(task, projection, monkeypatch):
    monkeypatch.setattr(inception_score, "SPLIT_IMAGES", 150)
    by_brightness = SAMPLES[np.argsort(SAMPLES.astype(int).sum(axis=(1, 2, 3)))]
    scored = task([SAMPLES, by_brightness], REFERENCE)
    first, second = (result.metrics for result in adm_protocol.score(scored, projection, "adm"))
    for name in ("fid", "sfid"):
        assert first[name] == pytest.approx(second[name], rel=1e-5)
    for name in NAMES[3:]:
        assert first[name] == pytest.approx(second[name], abs=1 / 300)
    assert abs(first["is"] - second["is"]) > 1e-4


def test_stored_statistics_of_a_reference_are_used_and_its_images_count_for_precision(task, projection, tmp_path):
    path = stored(projection, SAMPLES, "reference.npz", tmp_path, keep=REFERENCE)
    result = one(adm_protocol.score(task([SAMPLES], path), projection, "adm"))
    found = result.metrics
    plain = one(adm_protocol.score(task([SAMPLES], REFERENCE), projection, "adm")).metrics
    assert found["fid"] == pytest.approx(0, abs=1e-5)
    assert plain["fid"] > 1e-3
    assert [found[name] for name in NAMES[3:]] == [plain[name] for name in NAMES[3:]]
    assert result.settings.stored_statistics is True
    assert result.settings.statistics == NamedFile(name="reference.npz", sha256=sha256_file(path))


def test_samples_with_statistics_are_refused_unless_trusted_and_then_scored_by_them(task, projection, tmp_path):
    path = stored(projection, REFERENCE, "samples.npz", tmp_path, keep=SAMPLES)
    with pytest.raises(EvaluatorError, match=r"samples\.npz: .*--trust-statistics"):
        adm_protocol.score(task([path], REFERENCE), projection, "adm")
    trusted = task([path], REFERENCE, trust_statistics=True)
    result = one(adm_protocol.score(trusted, projection, "adm"))
    assert result.metrics["fid"] == pytest.approx(0, abs=1e-5)
    assert result.settings.trusted_sample_statistics is True
    assert list(result.intervals) == NAMES[2:]


def test_statistics_of_another_graph_are_refused(task, projection, tmp_path):
    path = tmp_path / "reference.npz"
    arrays = {"mu": np.zeros(7), "sigma": np.eye(7), "mu_s": np.zeros(9), "sigma_s": np.eye(9)}
    np.savez(path, arr_0=REFERENCE, **arrays)
    with pytest.raises(EvaluatorError, match=r"reference\.npz: mu: expected 12 values .* got 7"):
        adm_protocol.score(task([SAMPLES], path), projection, "adm")


def test_statistics_are_computed_once_for_a_cache(task, projection, tmp_path, monkeypatch):
    make = task([SAMPLES], REFERENCE, cache=tmp_path / "cache")
    first = adm_protocol.score(make, projection, "adm")
    monkeypatch.setattr(statistics, "gaussian", lambda features: pytest.fail("computed again"))
    assert adm_protocol.score(make, projection, "adm") == first
    assert len(list((tmp_path / "cache" / "adm").glob("statistics-*.npz"))) == 2


def test_too_few_images(task, projection):
    with pytest.raises(EvaluatorError, match="expected more than 3 images, got 3"):
        adm_protocol.score(task([SAMPLES[:3]], REFERENCE), projection, "adm")


def test_a_handful_of_images_gives_finite_numbers(task, projection):
    result = one(adm_protocol.score(task([SAMPLES[:6]], REFERENCE[:5]), projection, "adm"))
    found, intervals = result.metrics, result.intervals
    assert np.isfinite([found[name] for name in NAMES]).all()
    assert np.isfinite([intervals[name] for name in NAMES]).all()
