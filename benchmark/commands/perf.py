"""`sra-bench perf`: the speed of this machine, measured by jobs of their own."""

from __future__ import annotations

import subprocess
import sys

from benchmark.run.runner import job_environment


def measure(arguments: list[str]) -> int:
    """Exit code of the first job that fails, or 0; the jobs print what they find.

    Args:
        arguments: `evaluate` and those of `python -m evaluator.dev.perf`, or those of `python -m sra.perf`, whose `all`
            is followed by the evaluator's measurement.
    """
    commands = [["sra.perf", *arguments]]
    if arguments[:1] == ["evaluate"]:
        commands = [["evaluator.dev.perf", *arguments[1:]]]
    elif arguments[:1] == ["all"]:
        commands.append(["evaluator.dev.perf"])
    for module, *rest in commands:
        done = subprocess.run([sys.executable, "-m", module, *rest], env=job_environment(), check=False)
        if done.returncode != 0:
            return done.returncode
    return 0
