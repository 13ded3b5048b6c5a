"""Features that are kept give the metrics again; files that are none are refused in one line."""

import hashlib
import pickle

import numpy as np
import pytest

from evaluator.features import feature_files
from evaluator.features.cache import folder_name
from evaluator.features.feature_files import cache_folder, export
from evaluator.metrics.rows import BLOCK_ROWS
from evaluator.tools import adm_protocol
from sra.common.errors import UserError

GENERATOR = np.random.default_rng(5)
REFERENCE, SAMPLES = (GENERATOR.integers(low, 256, (300, 8, 8, 3), dtype=np.uint8) for low in (0, 20))
NAMES = ("is", "precision", "recall", "precision_exact", "recall_exact")


@pytest.fixture
def scored(task, projection, tmp_path):
    """Metrics of a scored set, its files, the graph and the cache."""
    graph, cache = tmp_path / "graph.pb", tmp_path / "cache"
    graph.write_bytes(b"a graph")
    name = folder_name("adm", hashlib.sha256(b"a graph").hexdigest())
    (result,) = adm_protocol.score(task([SAMPLES], REFERENCE, cache=cache), projection, name)
    return result.metrics, (tmp_path / "set-1.npz", tmp_path / "set-0.npz"), str(graph), cache


def test_the_same_metrics_come_from_kept_features(scored, projection, tmp_path):
    found, images, graph, cache = scored
    pools = [tmp_path / "samples-pool.npz", tmp_path / "reference-pool.npz"]
    for path, pool in zip(images, pools, strict=True):
        assert export(path, graph, cache, projection.widths, tmp_path / "statistics.npz", pool)
    measured = feature_files.pool_metrics(*pools, cache_folder(cache, graph) / feature_files.CLASSIFIER)
    assert measured == {**{name: found[name] for name in NAMES}, "samples": 300, "reference": 300}


def test_features_are_kept_beside_statistics_that_the_file_brings(scored, projection, tmp_path):
    _, (_, reference), graph, cache = scored
    arrays = {"mu": np.zeros(12), "sigma": np.eye(12), "mu_s": np.zeros(9), "sigma_s": np.eye(9)}
    np.savez(tmp_path / "stored.npz", arr_0=np.load(reference)["arr_0"], **arrays)
    out, pool = tmp_path / "statistics.npz", tmp_path / "pool.npz"
    assert export(tmp_path / "stored.npz", graph, cache, projection.widths, out, pool)
    assert np.array_equal(np.load(out)["sigma"], np.eye(12))
    np.testing.assert_allclose(np.load(pool)["pool"], projection(REFERENCE)[:, :12], rtol=1e-4, atol=1e-4)


def test_what_the_cache_does_not_have_is_not_kept(scored, projection, tmp_path):
    _, _, graph, cache = scored
    np.savez(tmp_path / "other.npz", arr_0=SAMPLES[::-1])
    pool = tmp_path / "pool.npz"
    assert not export(tmp_path / "other.npz", graph, cache, projection.widths, tmp_path / "statistics.npz", pool)
    assert not pool.exists()


def test_a_file_of_several_blocks_is_whole(tmp_path):
    features = GENERATOR.normal(size=(2 * BLOCK_ROWS + 7, 3)).astype(np.float32)
    feature_files.write_pool(features, tmp_path / "pool.npz")
    assert np.array_equal(np.load(tmp_path / "pool.npz", allow_pickle=False)["pool"], features)


def pickled(path):
    path.write_bytes(pickle.dumps({"pool": [1.0]}))


def cut(path):
    feature_files.write_pool(np.zeros((50, 4), np.float32), path)
    path.write_bytes(path.read_bytes()[:300])


def saved(**arrays):
    return lambda path: np.savez(path, **arrays)


UNREADABLE = r"bad\.npz: "


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _: None, UNREADABLE),
        (pickled, UNREADABLE),
        (cut, UNREADABLE),
        (saved(pool=np.array([[{}]], dtype=object)), UNREADABLE),
        (saved(mu=np.zeros((5, 4), np.float32)), UNREADABLE),
        (saved(pool=np.zeros((5, 4))), "bad.npz: pool: .* float32 matrix"),
        (saved(pool=np.full((5, 4), np.nan, np.float32)), "finite features of more than 3 images"),
        (saved(pool=np.zeros((3, 4), np.float32)), "finite features of more than 3 images"),
        (
            saved(pool=np.zeros((5, 6), np.float32)),
            r"\(5, 6\), \(50, 4\) and classifier \(4, 2\)",
        ),
    ],
    ids=["none", "pickle", "cut", "objects", "another key", "double", "nan", "few", "width"],
)
def test_files_that_cannot_be_measured(spoil, message, tmp_path):
    feature_files.write_pool(GENERATOR.normal(size=(50, 4)).astype(np.float32), tmp_path / "good.npz")
    feature_files.write_weights(np.ones((4, 2), np.float32), tmp_path / "classifier.npy")
    spoil(tmp_path / "bad.npz")
    with pytest.raises(UserError, match=message):
        feature_files.pool_metrics(tmp_path / "bad.npz", tmp_path / "good.npz", tmp_path / "classifier.npy")
