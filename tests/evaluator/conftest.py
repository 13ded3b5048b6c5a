"""Images, and an extractor that needs no framework."""

import argparse
import sys

import numpy as np
import pytest

from evaluator.images.image_set import open_images
from evaluator.inception.graph import Graph
from evaluator.metrics import backend
from evaluator.tools import base, score_record


class Projection:
    """Random features of the pixels, as an extractor gives them; counts the images that it was given."""

    widths = (12, 9)
    at_once = 1

    def __init__(self):
        generator = np.random.default_rng(7)
        self.matrix = (generator.normal(size=(8 * 8 * 3, 21)) / 50).astype(np.float32)
        self.weights = generator.normal(size=(12, 5)).astype(np.float32)
        self.given = 0

    def __call__(self, images):
        self.given += len(images)
        return images.reshape(len(images), -1).astype(np.float32) @ self.matrix


@pytest.fixture(autouse=True)
def numpy_backend():
    """A tool that finds a GPU leaves its metrics there; the next test starts on the processor."""
    before = backend.use(backend.NumPy())
    yield
    backend.use(before)


@pytest.fixture
def projection():
    return Projection()


@pytest.fixture
def task(tmp_path):
    """Makes a task of sample sets (arrays or paths) against a reference."""

    def make(samples, reference, cache=None, **options):
        sets = []
        for number, source in enumerate([reference, *samples]):
            path = source
            if isinstance(source, np.ndarray):
                path = tmp_path / f"set-{number}.npz"
                np.savez(path, arr_0=source)
            sets.append(open_images(path))
        settings = {
            "trust_statistics": False,
            "no_intervals": False,
            "views": None,
            "metrics": (),
            "differences": None,
            **options,
        }
        graph = Graph("test.pb", tmp_path / "test.pb", "0" * 64)
        return base.Task(sets[0], sets[1:], graph, cache, argparse.Namespace(**settings))

    return make


@pytest.fixture
def run_tool(tmp_path, monkeypatch, capsys):
    """Runs a tool's main in this process; returns (exit code, record or None, error line)."""

    def run(score, *arguments):
        out = tmp_path / "scores.json"
        out.unlink(missing_ok=True)
        command = ["tool", "--graph", "embedded:digits", "--json", out, *arguments]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        code = 0
        try:
            base.run("adm", "1.0", score)
        except SystemExit as stop:
            code = stop.code
        record = score_record.read(out) if out.is_file() else None
        return code, record, capsys.readouterr().err.strip()

    return run
