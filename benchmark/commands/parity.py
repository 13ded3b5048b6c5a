"""`sra-bench parity`: golden numbers against this machine, in a job of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmark.run.runner import job_environment


def check_parity(folder: Path, precision: str, *, as_json: bool, compiled: bool) -> int:
    """The job's exit code: 0 all holds, 1 something falls short, 2 bad input; it prints what it finds itself."""
    command = [sys.executable, "-m", "sra.parity", str(folder), "--precision", precision]
    command += ["--json"] * as_json + ["--compile"] * compiled
    return subprocess.run(command, env=job_environment(), check=False).returncode
