"""Training under the runner: signals, a killed worker or runner, a second run on one directory, a closed terminal."""

import os
import pty
import signal
import sys
import time
from pathlib import Path

import pytest

from benchmark.commands import status

# More steps than the uninterrupted run has: on a fast machine those would end before all the signals.
EXTRA = ("--processes", "2", "--until", "train", "--set", "train.steps=160")


def changed_at(out: Path) -> int:
    log = next(iter(out.glob("stages/train-*/log.jsonl")), None)
    return log.stat().st_mtime_ns if log else 0


def moves_on(suite, out: Path):
    """Start, and return once a few more steps are logged than a checkpoint holds."""
    before = changed_at(out)
    attempt = suite.Attempt(out, *EXTRA)
    found = attempt.wait_for(lambda: changed_at(out) > before and len(suite.rows(out)) % 5 == 2)
    assert found, attempt.text()
    return attempt


def state(out: Path) -> list[str]:
    found = status.examine(out, time.time())
    return [found.state, next(stage.state for stage in found.stages if stage.stage == "train-sra")]


def test_two_processes_survive_signals_and_deaths(suite, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for number in (signal.SIGUSR1, signal.SIGTERM):
        attempt = moves_on(suite, out)
        assert state(out) == ["running", "running"]
        assert "in use by another run (process" in suite.Attempt(out, *EXTRA).refused()
        attempt.process.send_signal(number)
        assert attempt.process.wait(timeout=300) == 75, attempt.text()
        assert state(out) == ["stopped", "stopped"]

    attempt = moves_on(suite, out)
    (launcher,) = suite.children(attempt.process.pid)
    suite.kill(suite.children(launcher)[1:])
    assert "was killed by SIGKILL; the same command continues" in attempt.refused()
    assert state(out) == ["failed", "failed"]

    attempt = moves_on(suite, out)
    (launcher,) = suite.children(attempt.process.pid)
    suite.kill([launcher, attempt.process.pid])
    attempt.process.wait()
    last = suite.Attempt(out, *EXTRA)
    last.succeeds()
    assert state(out) == ["done", "done"]
    theirs = suite.rows(uninterrupted)
    mine = suite.rows(out)[: len(theirs)]
    assert [row["step"] for row in mine] == [row["step"] for row in theirs]
    for name in ("loss", "generation", "alignment"):
        assert [row[name] for row in mine] == pytest.approx([row[name] for row in theirs], rel=1e-2)


def test_a_closed_terminal_saves(suite, uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, suite.command(out), {**os.environ, "OMP_NUM_THREADS": "1"})
    while not list(out.glob("stages/train-*/checkpoints/step-*")):
        assert os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
    assert state(out) == ["stopped", "stopped"]
    suite.Attempt(out).succeeds()
    assert suite.results(out) == suite.results(uninterrupted)
