"""`sra-bench convert-inception`, and scoring with its result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def call(*arguments):
    command = [sys.executable, "-m", "benchmark.cli.main", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.mark.parametrize(
    ("graph", "message"),
    [("README.md", "expected a frozen TensorFlow graph"), ("asset:inception-graph", "sra-bench fetch")],
)
def test_what_is_no_graph_is_refused_in_one_line(tmp_path, monkeypatch, graph, message):
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path / "assets"))
    done = call("convert-inception", graph, tmp_path / "inception.safetensors")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_converted_graph_scores(tmp_path):
    from sra.embedded import digits

    pixels = digits(32)[0]
    np.savez(tmp_path / "samples.npz", arr_0=pixels[:300])
    np.savez(tmp_path / "reference.npz", arr_0=pixels[300:700])
    graph = tmp_path / "inception.safetensors"
    done = call("convert-inception", "embedded:digits", graph)
    assert done.returncode == 0, done.stderr
    assert "64 features" in done.stdout
    # Statistics alone, as clean-fid and JiT have them.
    np.savez_compressed(tmp_path / "statistics.npz", mu=np.zeros(64), sigma=np.eye(64))
    arguments = ["--samples", tmp_path / "samples.npz", "--reference", tmp_path / "reference.npz", "--graph", graph]
    arguments += ["--reference", tmp_path / "statistics.npz"]
    places = ["--json", tmp_path / "scores.json", "--views", tmp_path / "views"]
    done = call("evaluate", *arguments, "--tool", "adm-torch", *places)
    assert done.returncode == 0, done.stderr
    document, other = json.loads((tmp_path / "scores.json").read_text())["references"]
    assert list(document["metrics"]) == list(other["metrics"]) == ["adm_torch"]
    assert list(other["metrics"]["adm_torch"]) == ["fid", "is"]
    assert other["records"]["adm-torch"]["settings"]["statistics"]["name"] == "statistics.npz"
    assert other["metrics"]["adm_torch"]["is"] == document["metrics"]["adm_torch"]["is"]
    assert document["cross_check"] == []
    record = document["records"]["adm-torch"]
    assert record["settings"]["source"]["name"] == "embedded:digits"
    assert record["views"]["nearest"] == str(tmp_path / "views" / "reference-1" / "adm-torch" / "nearest.png")
    assert Path(record["views"]["nearest"]).is_file()
