"""`sra-bench perf` starts the jobs that measure."""

import subprocess
import sys

import pytest

from benchmark.cli.main import main
from benchmark.commands import perf


@pytest.fixture
def started(monkeypatch):
    """Commands that would have been started, and the exit codes they will have."""
    commands, codes = [], {}

    def run(command, **_):
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, codes.get(command[2], 0))

    monkeypatch.setattr(perf.subprocess, "run", run)
    return commands, codes


def test_each_part_has_its_job(started):
    commands, _ = started
    for arguments in (["train", "--compare", "--model", "B/2"], ["evaluate", "--json", "x.json"], ["all"]):
        perf.measure(arguments)
    assert commands == [
        ["-m", "sra.perf", "train", "--compare", "--model", "B/2"],
        ["-m", "evaluator.dev.perf", "--json", "x.json"],
        ["-m", "sra.perf", "all"],
        ["-m", "evaluator.dev.perf"],
    ]


def test_the_command_passes_arguments_and_exit_code_on(started, monkeypatch):
    commands, codes = started
    codes["sra.perf"] = 2
    monkeypatch.setattr(sys, "argv", ["sra-bench"])
    with pytest.raises(SystemExit) as ended:
        main(["perf", "all", "--model", "B/2", "--json"])
    assert ended.value.code == 2
    assert commands == [["-m", "sra.perf", "all", "--model", "B/2", "--json"]]
