"""`python -m sra.accept`: every stage at toy size, and what happens when one fails, hangs or dies."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sra.accept import __main__ as accept
from sra.accept import jobs, numbers, speed
from sra.accept.record import Acceptance, Finding, StageResult, load, read_lines
from sra.accept.stage import Stage
from sra.common.errors import ConfigError, DataError
from sra.parity.compare import Report, output

ROOT = Path(__file__).parents[2]
TOY = ["--model", "2x16x2/2", "--resolution", "64", "--device", "cpu"]


@pytest.fixture
def stage(tmp_path):
    return Stage(
        name="numbers",
        device=torch.device("cpu"),
        model="2x16x2/2",
        resolution=64,
        batches=(8,),
        golden=ROOT / "tests" / "golden",
        folder=tmp_path,
        lines=tmp_path / "lines.jsonl",
    )


@pytest.mark.slow
def test_every_stage_at_toy_size(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SRA_BENCH_PERF", str(tmp_path / "perf.json"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    where = ["--folder", str(tmp_path / "runs"), "--json", str(tmp_path / "accept.json")]
    accept.main([*TOY, *where, "--minutes", "60", "--save"])
    found = load(tmp_path / "accept.json")
    assert [(s.name, s.status) for s in found.stages] == [(name, "passed") for name in accept.STAGES]
    assert found.last_page().startswith("ready: ")
    assert found.last_page() in capsys.readouterr().out
    # The limit of accept is 1e-3; a wrong resize or pool would still pass that on so mild a graph.
    score = {f.name: f.value for stage in found.stages if stage.name == "score" for f in stage.findings}
    assert max(score[f"{name} differs by"] for name in ("fid", "sfid", "is")) < 1e-5
    assert {result.what for result in found.results} == {"train", "sample"}
    assert json.loads((tmp_path / "perf.json").read_text())["train"][0]["size"] == "2x16x2"
    assert list((tmp_path / "runs").iterdir()) == []
    accept.main(["--show", str(tmp_path / "accept.json")])
    shown = capsys.readouterr().out
    assert all(f"| {name} |" in shown for name in accept.STAGES if name not in ("train", "sample"))


@pytest.mark.parametrize(
    ("code", "seconds", "reason"),
    [
        ("import time; time.sleep(60)", 1.0, "took longer than 1 s"),
        ("import os; os.kill(os.getpid(), 11)", 60.0, "exit code -11"),
        ("raise MemoryError('full')", 60.0, "exit code 1: MemoryError: full"),
    ],
)
def test_a_stage_that_hangs_or_dies_costs_only_itself(code, seconds, reason, tmp_path, monkeypatch):
    lines = tmp_path / "train.jsonl"
    note = f'open({str(lines)!r}, \'w\').write(\'["finding", {{"name": "a", "value": 1}}]\\n["find\')\n'
    real, command = subprocess.Popen, [sys.executable, "-c", note + code]
    monkeypatch.setattr(accept.subprocess, "Popen", lambda _, **options: real(command, **options))
    monkeypatch.setattr(accept, "LEAST_SECONDS", 0.0)
    found = accept._stage("train", [], lines, seconds)
    assert (found.status, found.note[: len(reason)]) == ("died", reason)
    assert found.findings == (Finding(name="a", value=1),)
    assert Acceptance(stages=(found,)).reasons == [f"train: died: {found.note}"]


def test_no_time_left_is_not_tested():
    found = accept._stage("train", [], Path("nowhere"), 1.0)
    assert (found.status, found.findings) == ("not tested", ())


def test_a_golden_number_that_is_wrong_is_named(stage):
    report = Report(1e-6)
    report.compare("sit/velocity", torch.ones(9), torch.ones(9), output)
    report.compare("sit/loss", torch.tensor(1.01), torch.tensor(1.0), output)
    numbers.note_report(stage, "golden numbers", report)
    (finding,) = read_lines(stage.lines)[0]
    assert (finding.value, finding.ok, finding.note) == (1, False, "sit/loss")


def test_out_of_memory_halves_the_batch(stage, monkeypatch):
    tried = []

    def train(session):
        tried.append(session.options.batch)
        if session.options.batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(speed.Session, "train", train)
    speed._measure(stage, "train", "fast", "fp32", 8)
    assert tried == [8, 4, 2]
    assert [finding.ok for finding in read_lines(stage.lines)[0]] == [None, None]


@pytest.mark.parametrize(("losses", "ok"), [((2.0, 1.0), True), ((2.0, 1.5), False), ((0.0, 0.0), False)])
def test_losses_of_a_continued_job_are_compared(losses, ok, stage, monkeypatch):
    """A GPU that computes nothing has losses of zero."""
    whole, last = losses
    found = iter([{1: whole, 2: 1.0 if whole else 0.0}, {1: whole, 2: last}])
    monkeypatch.setattr(jobs, "_train", lambda *_: next(found))
    monkeypatch.setattr(jobs, "find_spec", lambda name: name == "accelerate" or None)
    jobs.job(stage)
    assert read_lines(stage.lines)[0][0].ok is ok


def test_an_error_of_cuda_is_a_failed_check(stage):
    def broken():
        raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED\nmore")

    stage.attempt("attention", broken)
    (finding,) = read_lines(stage.lines)[0]
    assert (finding.ok, finding.note) == (False, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")
    assert not StageResult(name="x", status="failed", seconds=0, findings=(finding,)).reasons()[0].endswith("more")


@pytest.mark.parametrize(
    ("arguments", "error", "place"),
    [
        (["tain"], ConfigError, "STAGE: "),
        (["--device", "cuda"], ConfigError, "--device: "),
        (["--show", "nowhere.json"], DataError, "nowhere.json: "),
    ],
)
def test_bad_input_is_one_line(arguments, error, place):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(error, match=place):
        accept.main(arguments)


def test_a_damaged_result_is_named(tmp_path):
    path = tmp_path / "accept.json"
    path.write_text('{"schema": 1, "machine": {}, "stages": [{"name": "x"}]}')
    with pytest.raises(DataError, match=r"accept\.json: "):
        load(path)
