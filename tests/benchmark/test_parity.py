"""`sra-bench parity`: what it hands to the job, and the job's exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli.main import Precision, main
from benchmark.commands import parity


def test_a_folder_that_is_none_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmark.cli.main", "parity", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path}: expected a golden folder")


@pytest.mark.parametrize("code", [0, 1])
def test_options_reach_the_job_and_its_exit_code_is_the_commands(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.extend(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(parity.subprocess, "run", run)
    with pytest.raises(SystemExit) as stop:
        main(["parity", "golden", "--json", "--compile", "--precision", "bf16"])
    assert stop.value.code == code
    assert seen[1:] == ["-m", "sra.parity", "golden", "--precision", "bf16", "--json", "--compile"]


def test_precisions_are_those_of_the_job() -> None:
    from sra.parity.compare import ROUNDING

    assert [precision.value for precision in Precision] == list(ROUNDING)
