"""The Python lines of docs/evaluator.md do what it says; no option of `evaluate` is left out of the tables."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer

from benchmark.cli.main import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "evaluator.md").read_text()
GOLDEN = ROOT / "tests" / "golden" / "adm"


def test_python_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # A small graph of the same interface: what the lines do is tested here, not the numbers of a large one.
    shutil.copy(ROOT / "evaluator" / "embedded" / "digits.pb", tmp_path / "classify_image_graph_def.pb")
    random = np.random.default_rng(0)
    for name in ("samples", "reference"):
        images = np.load(GOLDEN / f"{name}.npz")["arr_0"][:40]
        np.savez(tmp_path / f"{name}.npz", arr_0=images)
    sets = {name: random.normal(size=(40, 6)).astype(np.float32) for name in ("samples", "reference", "logits")}
    np.savez(tmp_path / "features.npz", **sets)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    found: dict = {}
    exec(compile(program, "docs/evaluator.md", "exec"), found)
    low, high = found["record"].intervals["fid"]
    assert low < found["record"].metrics["fid"] < high
    assert list((tmp_path / "features").iterdir())
    # Known by other means: the same set twice is at distance 0 of itself, and fully covered.
    assert found["distance"] > found["fid"](sets["samples"], sets["samples"]) == pytest.approx(0, abs=1e-5)
    assert found["precision_recall"](sets["samples"], sets["samples"]) == (1, 1)
    assert 0 < found["precision"] <= 1
    assert 0 < found["recall"] <= 1
    assert 1 < found["score"] < 6


@pytest.mark.parametrize("page", ["docs/commands.md", "docs/evaluator.md"])
def test_every_option_is_named(page):
    command = typer.main.get_command(app).commands["evaluate"]  # type: ignore[attr-defined]
    # A switch that is on by default is named by what turns it off.
    known = {(option.secondary_opts or option.opts)[0] for option in command.params} - {"--help"}
    text = (ROOT / page).read_text()
    row = re.search(r"^\| `evaluate .*$", text, re.M)
    named = set(re.findall(r"--[a-z][a-z-]+", row[0] if row else PAGE))
    assert named == known
