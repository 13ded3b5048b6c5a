"""Each tool as the suite calls it: a process of its own, against golden numbers and against each other."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark.cli.main import app
from evaluator.tools import score_record

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "adm"


def call(module, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Two halves of the real digits."""
    from sra.embedded import digits as load

    folder = tmp_path_factory.mktemp("digits")
    pixels = load(32)[0][np.random.default_rng(0).permutation(1797)]
    np.savez(folder / "a.npz", arr_0=pixels[:900])
    np.savez(folder / "b.npz", arr_0=pixels[900:])
    noise = np.random.default_rng(1).integers(0, 256, (900, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "noise.npz", arr_0=noise)
    return folder


@pytest.fixture(scope="module")
def scores(digits):
    """Records of every tool: half against half, and noise against half, in one process each."""
    found = {}
    for module in ("adm", "clean_fid", "torch_fidelity"):
        paths = [digits / f"{module}-{name}.json" for name in ("half", "noise")]
        done = call(
            f"evaluator.tools.{module}",
            *("--samples", digits / "a.npz", digits / "noise.npz"),
            *("--json", *paths),
            *("--reference", digits / "b.npz", "--graph", "embedded:digits", "--cache", digits / "cache"),
        )
        assert done.returncode == 0, done.stderr
        found[module] = [score_record.read(path) for path in paths]
        assert found[module][0].error is None, found[module][0].error
    return found


def test_real_digits_are_near_and_noise_is_far(scores):
    for records in scores.values():
        half, noise = (record.metrics["fid"] for record in records)
        assert half < 10
        assert noise > 20 * half
    half = scores["adm"][0].metrics
    assert half["is"] > 7
    assert min(half["precision"], half["recall"]) > 0.8


def test_the_tools_agree_where_their_definitions_do(scores):
    adm, clean, fidelity = (scores[name][0].metrics for name in ("adm", "clean_fid", "torch_fidelity"))
    assert clean["fid"] == pytest.approx(adm["fid"], rel=1e-3)
    assert fidelity["fid"] == pytest.approx(adm["fid"], rel=1e-3)
    assert fidelity["is"] == pytest.approx(adm["is"], rel=1e-3)
    assert fidelity["precision"] == pytest.approx(adm["precision_exact"], abs=5e-3)
    assert fidelity["recall"] == pytest.approx(adm["recall_exact"], abs=5e-3)


def test_compare_finds_noise_worse_than_digits(scores, digits):
    samples = [str(digits / f"{name}.npz") for name in ("a", "noise")]
    options = ["--reference", str(digits / "b.npz"), "--graph", "embedded:digits", "--cache", str(digits / "cache")]
    done = CliRunner().invoke(app, ["compare", *samples, *options, "--json", str(digits / "d.json")])
    assert done.exit_code == 0, done.output
    assert "900 and 900 images, compared image by image" in done.stdout
    found = score_record.DifferenceRecord.model_validate_json((digits / "d.json").read_text())
    half, noise = (record.metrics["fid"] for record in scores["adm"])
    fid = found.metrics["fid"]
    assert (fid.first, fid.second, fid.difference) == pytest.approx((half, noise, noise - half))
    assert fid.interval[0] > 0
    assert fid.p < 0.01
    assert found.metrics["recall_exact"].interval[1] < 0


def test_records_say_what_was_scored(scores):
    record = scores["adm"][0]
    assert record.samples.count == 900
    assert record.graph.name == "embedded:digits"
    assert len(record.graph.sha256) == 64
    assert record.views is None


def test_bad_graph_and_bad_samples_give_one_line(tmp_path, digits):
    (tmp_path / "bad.pb").write_bytes(b"not a graph at all")
    reference = ["--reference", digits / "b.npz", "--json", tmp_path / "s.json"]
    done = call("evaluator.tools.adm", "--samples", digits / "a.npz", *reference, "--graph", tmp_path / "bad.pb")
    assert done.returncode == 2
    assert "expected a frozen TensorFlow graph" in done.stderr
    done = call("evaluator.tools.clean_fid", "--samples", tmp_path / "no.npz", *reference, "--graph", "embedded:digits")
    assert done.returncode == 2
    assert "no.npz: " in done.stderr
    assert "not found" in done.stderr
    assert not (tmp_path / "s.json").exists()
