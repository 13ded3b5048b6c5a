"""`sra-bench work` and `await`: run stages of a planned run, or wait for them; called by cluster jobs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from benchmark.commands.run import write_reports
from benchmark.machine.environment import GRACE_SECONDS
from benchmark.plan.plan import Plan, state_of
from benchmark.plan.run_directory import RunDirectory, read_json
from benchmark.plan.saved_plan import record_session, require_plan
from benchmark.plan.stages import REPORT, Stage, label_of
from benchmark.run.executor import SINGLE_NODE, Local, Node, command_of
from benchmark.run.process import how_it_ended, stream
from benchmark.run.runner import Session, StageError, run_plan
from sra.common.errors import STOPPED, Stopped, UserError, expected

FOLLOW_SECONDS = 600.0
"""Time for rank 0 to prepare the stage, for which the other ranks wait."""
POLL_SECONDS = 5.0
"""Between two checks of an awaited stage."""


def work(
    root: Path, names: Sequence[str], node: Node = SINGLE_NODE, processes: int = 1, grace: float = GRACE_SECONDS
) -> str:
    """Run stages of a planned run, or write its report.

    Every node calls this; rank 0 writes the stage records.

    Args:
        root: the run directory, seen by all nodes.
        names: directory names of stages of one batch, or `report`.
        node: rank and address of this machine.
        processes: of training and sampling, over all nodes.
        grace: seconds for a job to save a checkpoint and exit when it is asked to stop.

    Raises:
        UserError: no plan, no such stage, or what a run raises.
        Stopped: asked to stop, the work is saved.
    """
    session = Session(directory=RunDirectory(root.absolute()), processes=processes, grace=grace)
    directory = session.directory
    plan, command = require_plan(directory)
    if list(names) == [REPORT]:
        return write_reports(plan, directory, command)
    stages = stages_named(plan, names)
    session = dataclasses.replace(session, executor=Local(node))
    if node.rank > 0:
        return _follow(stages, session, node)
    directory.workers.mkdir(exist_ok=True)
    with directory.locked([stage.key for stage in stages], patient=True) as lock:
        if not all(stage.is_done for stage in stages):
            record_session(plan, directory, session.executor.facts(), stages[0])
        session = dataclasses.replace(session, lock=lock)
        part = dataclasses.replace(plan, stages=tuple(stages))
        run_plan(part, session, heartbeat=directory.workers / f"{stages[0].directory.name}.json")
    return f"done: {', '.join(stage.name for stage in stages)}"


def stages_named(plan: Plan, names: Sequence[str]) -> list[Stage]:
    """Stages of a plan, by the names of their directories.

    Raises:
        UserError: there is none of that name.
    """
    known = {stage.directory.name: stage for stage in plan.stages}
    for name in names:
        if name not in known:
            raise UserError(expected("--stage", "a stage of this run's plan", name, [*known, REPORT]))
    return [known[name] for name in names]


def _follow(stages: list[Stage], session: Session, node: Node) -> str:
    """Start this node's processes of a job whose stage rank 0 has prepared and will finish."""
    pending = [s for s in stages if state_of(s, session.directory)[0] != "done"]
    if not pending:
        return "done before"
    _await(pending)
    argv = session.executor.argv(command_of(pending, session.directory, session.processes))
    log = pending[0].directory / f"log-node{node.rank}.txt"
    code, last_error = stream(argv, [log], f"{label_of(pending)} node {node.rank}", grace=session.grace)
    if code == STOPPED:
        raise Stopped
    if code != 0:
        raise StageError(f"node {node.rank}: {last_error or f'{how_it_ended(code)}; see {log}'}")
    return f"node {node.rank}: done"


def _await(stages: list[Stage]) -> None:
    """Wait until rank 0 has written each stage's settings.

    Raises:
        StageError: it does not.
    """
    deadline = time.monotonic() + FOLLOW_SECONDS
    for stage in stages:
        while not stage.is_recorded():
            if time.monotonic() > deadline:
                raise StageError(f"stage {stage.name}: rank 0 has not begun within {FOLLOW_SECONDS:.0f} s")
            time.sleep(0.5)


def await_stages(root: Path, names: Sequence[str], timeout: float) -> str:
    """Wait until every named stage is done.

    Args:
        root: the run directory.
        names: of the stages' directories.
        timeout: seconds.

    Raises:
        UserError: no plan, no such stage, one that failed, or not done within the time.
    """
    plan, _ = require_plan(RunDirectory(root.absolute()))
    deadline = time.monotonic() + timeout
    for stage in stages_named(plan, names):
        while not _is_over(stage):
            failed = read_json(stage.directory / "failed.json")
            if failed and failed.get("key") == stage.key:
                raise StageError(f"stage {stage.name}: {failed.get('message')}")
            if time.monotonic() >= deadline:
                raise StageError(f"stage {stage.name}: not done within {timeout:.0f} s")
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
    return f"done: {', '.join(names)}"


def _is_over(stage: Stage) -> bool:
    """Whether a stage is done, or its tool could not run: the report says so, and the job has ended."""
    return stage.is_done or stage.error is not None
