"""The ADM protocol on TensorFlow, in processes of its own: the public evaluator's numbers, and other graphs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evaluator
from evaluator.features.cache import folder_name
from evaluator.inception.graph import resolve
from evaluator.tools import score_record
from evaluator.tools.score_record import FeatureWidths, NamedFile
from sra.common.errors import EvaluatorError

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "adm"
GRAPH = GOLDEN / "classify_image_graph_def.pb"


def call(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The record of the golden data, and the folder of its features."""
    folder = tmp_path_factory.mktemp("golden")
    done = call(
        *("-m", "evaluator.tools.adm", "--samples", GOLDEN / "samples.npz", "--reference", GOLDEN / "reference.npz"),
        *("--graph", GRAPH, "--json", folder / "s.json", "--cache", folder / "cache", "--expect-images", 5200),
    )
    assert done.returncode == 0, done.stderr
    return score_record.read(folder / "s.json"), folder / "cache", done.stdout


def test_the_public_evaluators_numbers(golden):
    expected = json.loads((GOLDEN / "expected.json").read_text())
    record, _, _ = golden
    found = record.metrics
    assert found["fid"] == pytest.approx(expected["fid"], rel=1e-6)
    assert found["sfid"] == pytest.approx(expected["sfid"], rel=1e-6)
    assert found["is"] == pytest.approx(expected["inception_score"], rel=1e-5)
    limit = max(5e-4, 2.5 / expected["images"]["reference"])
    assert found["precision"] == pytest.approx(expected["precision"], abs=limit)
    assert found["recall"] == pytest.approx(expected["recall"], abs=limit)
    # Exact arithmetic is a result of its own: here it differs by more than the tolerance.
    assert abs(found["precision_exact"] - found["precision"]) > limit
    assert abs(found["recall_exact"] - found["recall"]) > limit


def test_features_are_the_public_evaluators(golden):
    _, cache, _ = golden
    folder = cache / folder_name("adm", resolve(str(GRAPH)).sha256)
    with np.load(GOLDEN / "features_head.npz") as head:
        expected = np.concatenate([head["pool"], head["spatial"]], axis=1)
    files = list(folder.glob("*-16x16.npy"))
    assert len(files) == -(-5200 // 256) + -(-2200 // 256)
    distance = min(np.abs(np.load(file, mmap_mode="r")[:8] - expected).max() for file in files)
    # Equal to the bit on the processor that the golden numbers come from; oneDNN chooses its kernels by processor.
    assert distance <= 2e-5 * np.abs(expected).max()


def test_the_record(golden):
    record, _, shown = golden
    assert list(record.intervals) == list(record.metrics)
    assert all(low < record.metrics[name] < high for name, (low, high) in record.intervals.items())
    assert record.settings.widths == FeatureWidths(pool=2048, spatial=2023, classes=40)
    assert record.graph == NamedFile(name=GRAPH.name, sha256=resolve(str(GRAPH)).sha256)
    assert record.samples.shape == (16, 16, 3)
    assert record.warnings == ()
    assert "images/s" in shown


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """What the evaluator says of small graphs, good and bad."""
    done = call(Path(__file__).with_name("odd_graphs.py"), tmp_path_factory.mktemp("odd"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_widths_and_grid_are_the_graphs_own(odd):
    assert odd["graphs"]["good"] == [24, 3 * 5 * 7]


def test_another_graph_image_shape_and_singular_covariances(odd):
    ours, plain = odd["numbers"]["ours"], odd["numbers"]["plain"]
    for name in ("fid", "sfid"):
        assert ours[name] == pytest.approx(plain[name], rel=1e-6)
    assert ours["is"] == pytest.approx(plain["is"], rel=1e-6)
    for name in ("precision", "recall"):
        assert ours[name] == pytest.approx(plain[name], abs=2.5 / 20)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("few channels", "mixed_6/conv:0: expected 7 channels or more, got 6"),
        ("other names", "expected the tensors ExpandDims:0, pool_3:0, mixed_6/conv:0, softmax/"),
        ("flat", "pool_3:0: expected float32 with four axes, got float32 with axes (None, 24)"),
        (
            "classifier of another width",
            "pool_3:0: expected shape (N, 1, 1, 30)",
        ),
        ("not a graph", "expected a frozen TensorFlow graph"),
    ],
)
def test_a_graph_that_cannot_serve_gives_one_line(odd, graph, message):
    assert odd["graphs"][graph].startswith("--graph ")
    assert message in odd["graphs"][graph]
    assert "\n" not in odd["graphs"][graph]


def test_evaluate_from_python(tmp_path):
    with pytest.raises(EvaluatorError, match=r"no\.npz: .*not found"):
        evaluator.evaluate(tmp_path / "no.npz", GOLDEN / "reference.npz", str(GRAPH))


@pytest.mark.slow
def test_performance_is_measured_beside_the_plain_numerics(tmp_path):
    small = ("--sizes", "60x80", "--widths", "40x30", "--images", 200, "--edge", 16, "--graph", GRAPH)
    done = call("-m", "benchmark.cli.main", "perf", "evaluate", *small, "--json", tmp_path / "perf.json")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "perf.json").read_text())
    (row,) = document["rows"]
    assert set(row["ratios"]) == {*row["oracle"]["seconds"], "all_after_features"}
    assert abs(row["differences"]["fid"]) < 1e-6 * row["oracle"]["values"][0]
    assert document["extraction"]["images_per_second"].keys() == {"oracle", "ours"}
    assert "| 60 / 80 | fid_sfid |" in done.stdout
    done = call("-m", "benchmark.cli.main", "perf", "evaluate", "--sizes", "many")
    assert done.returncode == 2
    assert "'many': two numbers are needed, such as 10000x50000" in done.stderr
