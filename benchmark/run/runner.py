"""Run a plan: skip what is done, run the rest in as few processes as possible, finish each stage atomically."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmark.machine.environment import GRACE_SECONDS
from benchmark.plan.plan import Plan, state_of
from benchmark.plan.prepare import check_device, check_inputs
from benchmark.plan.run_directory import RunDirectory, damaged_outputs, outputs_of, write_json
from benchmark.plan.stages import REPORT, Stage, label_of
from benchmark.published.early import early_verdict, stops
from benchmark.published.registry import load_registry
from benchmark.run.executor import LOCAL, Executor, command_of
from benchmark.run.heartbeat import RunnerHeartbeat
from benchmark.run.process import how_it_ended, stream
from evaluator.tools import score_record
from sra.common.errors import STOPPED, Stopped, UserError
from sra.common.files import sweep


class StageError(UserError):
    """A stage that refused its input, or died."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """How one invocation runs jobs."""

    directory: RunDirectory
    executor: Executor = LOCAL
    processes: int = 1
    """Of training and sampling, over all nodes."""
    lock: IO[str] | None = None
    """The open lock file, which the jobs inherit."""
    grace: float = GRACE_SECONDS
    """Seconds that a job may take to save when it is asked to stop."""


def run_plan(plan: Plan, session: Session, until: str = REPORT, heartbeat: Path | None = None) -> None:
    """Run every stage up to and including the kind `until`.

    Args:
        plan: all stages.
        session: where and how.
        until: last kind of stage.
        heartbeat: the runner's heartbeat file; default: that of the whole run.

    Raises:
        UserError: a missing input, too little disk, a stage that refused its input or died.
        Stopped: on SIGINT, SIGTERM or SIGUSR1.
    """
    check_inputs(plan, until)
    directory = session.directory
    chosen = plan.until(until)
    _check_disk(chosen, directory)
    check_device(chosen)
    lost: set[Path | None] = set()
    with RunnerHeartbeat(heartbeat or directory.heartbeat, chosen) as pulse:
        for _, group in itertools.groupby(chosen, key=lambda stage: stage.batch):
            stages, pending = [s for s in group if s.directory not in lost and s.samples not in lost], []
            for stage in stages:
                state, why = state_of(stage, directory)
                print(f"[{stage.name}] {state}: {why}", flush=True)
                if state != "done":
                    pending.append(stage)
            if pending:
                if sampled := sampled_for(pending, plan):
                    pulse.start(sampled)
                    run_batch(sampled, session, pulse, pending[0].look)
                pulse.start(pending)
                run_batch(pending, session, pulse)
            lost |= {look.samples for look in stages if look.look and _is_lost(look, plan)}


def sampled_for(looks: Sequence[Stage], plan: Plan) -> list[Stage]:
    """The sampling stages that must have sampled the first images before these looks; none for other stages."""
    read = {look.samples for look in looks if look.look}
    return [stage for stage in plan.stages if stage.directory in read and not stage.is_done]


def _is_lost(look: Stage, plan: Plan) -> bool:
    """Whether no variant has its samples completed after a look; says what the look found for each."""
    if not look.is_done:  # its tool could not run
        return False
    lost = set()
    for run in plan.loaded.runs:
        if run.variant in look.variants:
            found = early_verdict(load_registry(), run, score_record.read(look.directory / "scores.json"))
            print(f"[{look.name}] {run.variant}: {found.text if found else 'no prediction'}", flush=True)
            lost |= {run.variant} if stops(run, found) else set()
    unfinished = sampled_for([look], plan)
    if not unfinished or set(unfinished[0].variants) - lost:
        return False
    print(f"[{unfinished[0].name}] stops here; with sample.on_lost=go-on it continues", flush=True)
    return True


def _check_disk(stages: Sequence[Stage], directory: RunDirectory) -> None:
    sizes = [stage.disk for stage in stages if not stage.is_done]
    needed = sum(size.bytes or 0 for size in sizes if not size.is_upper_bound)
    free = shutil.disk_usage(directory.root).free
    if free < needed:
        raise StageError(f"--out {directory.root}: expected about {needed / 1e9:.1f} GB free, got {free / 1e9:.1f} GB")


def run_batch(
    stages: list[Stage], session: Session, heartbeat: RunnerHeartbeat | None = None, until: int | None = None
) -> None:
    """Run the stages of one batch in one job.

    Args:
        stages: of the batch.
        session: where and how.
        heartbeat: of the runner.
        until: number of first images to stop sampling after: the stages stay unfinished.

    Raises:
        StageError: the job refused its input, died, or left an output out.
        Stopped: it was asked to stop.
    """
    command = command_of(stages, session.directory, session.processes, until)
    session.executor.ready(command)
    argv = session.executor.argv(command)
    for stage in stages:
        _clear(stage)
        write_json(stage.directory / "stage.json", stage.record(argv))
    started = time.monotonic()
    logs = [stage.directory / "log.txt" for stage in stages]
    code, last_error = stream(argv, logs, label_of(stages), session.lock, heartbeat, session.grace)
    seconds = time.monotonic() - started
    if code == STOPPED:
        raise Stopped
    if code != 0:
        message = last_error or f"{how_it_ended(code)}; see {logs[0]}"
        for stage in stages:
            with contextlib.suppress(OSError):
                write_json(stage.directory / "failed.json", {"key": stage.key, "message": message, "exit_code": code})
        raise StageError(f"stage {label_of(stages)}: {message}")
    for stage in stages if until is None else ():
        _finish(stage, seconds / len(stages))


def _clear(stage: Stage) -> None:
    """Leave in a stage's directory what its job can continue from, and nothing else."""
    stage.directory.mkdir(parents=True, exist_ok=True)
    sweep(stage.directory)
    (stage.directory / "failed.json").unlink(missing_ok=True)
    # An output was lost or changed since the stage finished: the job must not take a damaged one for finished.
    damaged = damaged_outputs(stage.directory)
    separate = all(name.startswith(f"{stage.kind.separate_outputs}/") for name in damaged)
    for name in damaged if separate else stage.outputs:
        (stage.directory / name).unlink(missing_ok=True)
    (stage.directory / "done.json").unlink(missing_ok=True)


def _finish(stage: Stage, seconds: float) -> None:
    """Write done.json, unless a tool could not run: the report shows that, and the next run tries again."""
    if stage.error:
        return
    try:
        # Weights of a shorter run, too: with its settings it is done again.
        older = (f"{path.parent.name}/{path.name}" for path in stage.directory.glob("weights/step-*.safetensors"))
        outputs = outputs_of(stage.directory, tuple(dict.fromkeys((*stage.outputs, *sorted(older)))))
    except FileNotFoundError as error:
        raise StageError(f"stage {stage.name}: ended without its output {error.filename}") from error
    write_json(stage.directory / "done.json", {"key": stage.key, "outputs": outputs, "seconds": round(seconds, 3)})
    assert stage.is_done
