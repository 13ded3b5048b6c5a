"""`sra-bench evaluate`: options of the tools, and how a short job ends when it is stopped."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from benchmark.commands import evaluate
from benchmark.commands.evaluate import ToolOptions, score_samples
from benchmark.run.process import run_job
from evaluator.tools.score_record import ScoreRecord
from sra.common.errors import STOPPED, Stopped, UserError


@pytest.fixture
def heeds_interrupts():
    """Ctrl-C as in a terminal: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_interrupts")
def test_an_interrupt_is_a_stop_and_ends_the_job():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Stopped):
        run_job("evaluate", [sys.executable, "-c", "import time; time.sleep(600)"])


def test_a_job_that_was_stopped_is_no_failure():
    with pytest.raises(Stopped):
        run_job("evaluate", [sys.executable, "-c", f"raise SystemExit({STOPPED})"])


def test_defaults_leave_the_tools_alone():
    assert ToolOptions().argv("adm") == []
    assert ToolOptions().argv("clean-fid") == ["--extractor", "own"]


def test_every_option():
    options = ToolOptions(
        cache=Path("c"),
        expect_images=50_000,
        trust_statistics=True,
        allow_other_size=True,
        intervals=False,
        views=Path("v"),
        assets=Path("a"),
        extractor="graph",
        metrics=("kid", "fid@50000"),
    )
    shared = ["--cache", "c", "--expect-images", "50000", "--trust-statistics", "--allow-other-size", "--no-intervals"]
    assert options.argv("adm") == [*shared, "--views", "v/adm", "--metrics", "kid", "fid@50000"]
    assert options.argv("torch-fidelity") == [*shared, "--extractor", "graph", "--assets", "a"]


def test_further_sets_are_given_to_tools_that_use_them(tmp_path):
    named = ("authenticity", "copying")
    sets = {"training": Path("t"), "validation": Path("v")}
    both = ["--training", "t", "--validation", "v"]
    assert ToolOptions(**sets).argv("adm") == []
    assert ToolOptions(**sets, metrics=named[:1]).argv("adm") == ["--metrics", "authenticity", *both[:2]]
    assert ToolOptions(**sets, metrics=named).argv("adm-torch") == ["--metrics", *named, *both]
    assert ToolOptions(**sets).argv("dinov2") == both
    for name in sets:
        options = ToolOptions(**{name: tmp_path}, metrics=("kid",))
        with pytest.raises(UserError, match=f"--{name}: expected what uses it .*, got none"):
            score_samples(tmp_path, [tmp_path], "embedded:digits", ["adm"], options)


@pytest.mark.parametrize("cache", [None, "kept"])
def test_several_references_share_the_features(cache, tmp_path, monkeypatch):
    calls = []

    def score(tool, samples, reference, graph, options):
        calls.append((reference.name, options))
        (Path(options[1]) / "features").mkdir(parents=True, exist_ok=True)
        return ScoreRecord.model_construct(tool=tool, metrics={"fid": 1.0}, intervals={}, absent={}, error=None)

    monkeypatch.setattr(evaluate, "_score", score)
    monkeypatch.setattr(evaluate.score_record, "dump", lambda record: {})
    references = [tmp_path / name for name in "ab"]
    for path in references:
        path.touch()
    options = ToolOptions(cache=cache and tmp_path / cache, views=tmp_path)
    found, text = score_samples(tmp_path, references, "embedded:digits", ["adm"], options)
    assert [document["metrics"] for document in found] == [{"adm": {"fid": 1.0}}] * 2
    assert [name for name, _ in calls] == ["a", "b"]
    (first, second) = (options for _, options in calls)
    assert first[:2] == second[:2]
    assert Path(first[1]).exists() == bool(cache)
    assert [options[-1] for _, options in calls] == [f"{tmp_path}/reference-{n}/adm" for n in (1, 2)]
    assert text.count("reference: ") == 2


def test_an_unknown_tool_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"--tool: expected one of adm, .* \(did you mean 'dinov2'\?\)"):
        score_samples(tmp_path, [tmp_path], "embedded:digits", ["dino2"])


def test_a_network_without_weights_is_one_line_and_needs_no_graph(tmp_path):
    options = ToolOptions(assets=tmp_path)
    with pytest.raises(UserError) as caught:
        score_samples(tmp_path, [tmp_path], "no-such-graph.pb", ["clip"], options)
    place = tmp_path / "clip-vit-l14-336" / "model.safetensors"
    assert str(caught.value) == (
        f"--tool clip: expected its weights, {place}: not found (`sra-bench fetch clip-vit-l14-336`)"
    )
