"""The runner on small real processes: order, logs, finishing, refusals, interruption."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark import runner
from benchmark.plan import Stage
from benchmark.store import RunDirectory, is_done, read_json

WORK = "import sys, pathlib; print('working'); pathlib.Path(sys.argv[1], 'out.txt').write_text('x')"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(
        kind="train",
        name="train-x",
        key="0123456789abcdef",
        directory=tmp_path / "stages" / "train-x-01234567",
        config={},
        inputs={},
        outputs=("out.txt",),
    )


def run_with(code: str, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", code, str(stage.directory)]
    monkeypatch.setattr(runner, "argv", lambda *_: command)
    runner._run_batch([stage], RunDirectory(tmp_path), 1)


def test_finished_stage_has_a_log_and_done(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with(WORK, stage, tmp_path, monkeypatch)
    assert is_done(stage.directory, stage.key)
    assert (stage.directory / "log.txt").read_text() == "working\n"
    document = read_json(stage.directory / "stage.json")
    assert document is not None
    assert document["key"] == stage.key


def test_the_jobs_error_line_is_the_runs(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; print('error: x.png: not an image', file=sys.stderr); sys.exit(2)"
    with pytest.raises(runner.StageError, match=r"stage train-x: x\.png: not an image"):
        run_with(code, stage, tmp_path, monkeypatch)
    assert not is_done(stage.directory, stage.key)


def test_missing_output_is_not_done(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(runner.StageError, match=r"without its output .*out\.txt"):
        run_with("pass", stage, tmp_path, monkeypatch)
    assert not (stage.directory / "done.json").exists()


def test_a_crash_names_the_log(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(runner.StageError, match=r"exit code 1; see .*log\.txt"):
        run_with("raise RuntimeError('bug')", stage, tmp_path, monkeypatch)
    assert "RuntimeError: bug" in (stage.directory / "log.txt").read_text()


def test_exit_75_means_stopped(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(runner.StoppedError):
        run_with("import sys; sys.exit(75)", stage, tmp_path, monkeypatch)


def test_sigterm_reaches_the_job_and_no_process_is_left(tmp_path: Path) -> None:
    job = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(75))); "
        "print('pid', os.getpid()); time.sleep(60)"
    )
    code = f"""
import sys
from pathlib import Path
from benchmark import runner
try:
    runner._stream([sys.executable, "-u", "-c", {job!r}], [Path({str(tmp_path / "log.txt")!r})], "job")
except runner.StoppedError:
    sys.exit(75)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert process.stdout is not None
    pid = int(process.stdout.readline().split()[-1])
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75
    assert "saved" in (tmp_path / "log.txt").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_jobs_die_with_a_killed_runner(tmp_path: Path) -> None:
    job = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = f"""
import sys
from pathlib import Path
from benchmark import runner
runner._stream([sys.executable, "-c", {job!r}], [Path({str(tmp_path / "log.txt")!r})], "job")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert process.stdout is not None
    pid = int(process.stdout.readline().split()[-1])
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if status == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists()
