"""`sra-bench await`: until stages of a run are done, for jobs of a cluster that knows no order of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from benchmark.clusters.worker import chosen
from benchmark.plan.plan import Stage
from benchmark.plan.run_directory import RunDirectory, is_done, read_json
from benchmark.plan.saved_plan import planned
from benchmark.run.runner import StageError

POLL_SECONDS = 5.0


def await_stages(root: Path, names: Sequence[str], timeout: float) -> str:
    """Wait until every named stage is done.

    Args:
        root: the run directory.
        names: of the stages' directories.
        timeout: seconds.

    Raises:
        UserError: no plan, no such stage, one that failed, or too long a wait.
    """
    plan, _ = planned(RunDirectory(root.absolute()))
    deadline = time.monotonic() + timeout
    for stage in chosen(plan, names):
        while not _is_over(stage):
            failed = read_json(stage.directory / "failed.json")
            if failed and failed.get("key") == stage.key:
                raise StageError(f"stage {stage.name}: {failed.get('message')}")
            if time.monotonic() >= deadline:
                raise StageError(f"stage {stage.name}: not done within {timeout:.0f} s")
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
    return f"done: {', '.join(names)}"


def _is_over(stage: Stage) -> bool:
    """Done, or a tool that could not run: the report says so, and the job has ended."""
    if is_done(stage.directory, stage.key):
        return True
    return stage.kind == "score" and bool((read_json(stage.directory / "scores.json") or {}).get("error"))
