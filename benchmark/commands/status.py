"""`sra-bench status`: the state of a run and of its stages, read from files.

OUT/run.json, OUT/workers/*.json          heartbeats of the runners, see `benchmark.run.heartbeat`
OUT/stages/<name>-<key>/heartbeat.json    of the jobs, see `sra.common.heartbeat`: step, total, rate, time left
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from benchmark.clusters.slurm.submitted import queue_states
from benchmark.plan.run_directory import RunDirectory, is_alive, is_done
from benchmark.plan.stages import REPORT
from benchmark.run.heartbeat import RunnerRecord, RunnerStage, read_runner
from sra.common.errors import UserError
from sra.common.tables import text_table
from sra.common.validation import read_record, sound_record

SILENT_SECONDS = 60.0
"""A runner on another machine that has not written for so long has stalled or died."""
STALL_SECONDS = 120.0
"""A job without progress for so long, and for ten times its usual step, has stalled."""
STATES = ("failed", "stalled", "cancelled", "running", "queued", "stopped", "waiting")
"""The first of these that any stage has is the state of a run on a cluster."""
NO_RUNNER = RunnerRecord(state="stopped")
"""For a stage that no runner has begun."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is."""

    step: int | None = None
    total: int | None = None
    unit: str | None = None
    rate: float | None = None
    """Units per second."""
    eta_seconds: float | None = None
    pid: int | None = None
    host: str | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobRecord(Progress):
    """The heartbeat file of a job, see `sra.common.heartbeat`."""

    state: str | None = None
    time: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StageStatus(Progress):
    """State and progress of one stage."""

    stage: str
    directory: str
    state: str
    since: str | None = None
    """Time of the last heartbeat of a stalled stage."""
    job: str | None = None
    """What a cluster's queue says of it."""

    def describe(self) -> str:
        """Progress, failure and job in words."""
        parts = [f"since {self.since}"] if self.since else []
        if self.step is not None and self.state != "done":
            parts.append(f"{self.step:,} of {self.total:,} {self.unit}")
        if self.state == "running" and self.rate and self.eta_seconds is not None:
            parts += [f"{self.rate:.3g} a second", f"{self.eta_seconds:,.0f} s left"]
        if self.state == "failed" and self.message:
            parts.append(self.message)
        parts += [self.job] if self.job else []
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """State of a run; schema 1 of `status --json`."""

    schema: int = 1
    state: str
    message: str | None
    process: int | None
    host: str | None
    seen: str
    """Time of the runner's last heartbeat."""
    done: int
    planned: int
    stages: tuple[StageStatus, ...]


def show(root: Path, *, as_json: bool) -> str:
    """The state of a run and of each stage, as text or JSON.

    Raises:
        UserError: no run was ever started there.
    """
    status = examine(root, time.time())
    if as_json:
        return json.dumps(asdict(status), indent=2)
    lines = [f"{root}: {status.state}, {status.done} of {status.planned} stages done"]
    lines += [f"  {status.message}"] if status.message else []
    rows = [(stage.state, stage.stage, stage.describe()) for stage in status.stages]
    return "\n".join([*lines, text_table((), rows, left=range(3))])


def examine(root: Path, now: float) -> RunStatus:
    """The state of a run at a time (seconds since 1970).

    Raises:
        UserError: no run was ever started there.
    """
    directory = RunDirectory(root)
    run = read_runner(root / "run.json")
    workers = [worker for path in sorted(directory.workers.glob("*.json")) if (worker := read_runner(path))]
    runners = [run, *workers] if run else workers
    on_cluster = bool(workers) or (directory.cluster / "jobs.json").is_file()
    if run is None and not on_cluster:
        raise UserError(f"{root}: no run.json, or a damaged one; start it with `sra-bench run MANIFEST --out {root}`")
    stages = _planned(root) if on_cluster or run is None else run.stages
    # By directory: stages of different settings may have one name.
    last = {stage.directory: _newest(stage, runners) for stage in stages}
    rows = [_stage(directory.stages / stage.directory, stage, last[stage.directory], now) for stage in stages]
    newest = max(runners, key=lambda runner: runner.time, default=NO_RUNNER)
    state, message = _run_state(newest, now), newest.message
    if on_cluster:
        rows = _with_queue(directory, rows)
        state = next((state for state in STATES if any(row.state == state for row in rows)), "done")
        failed = [
            last[Path(row.directory).name].message for row in rows if row.state == "failed" and row.stage != REPORT
        ]
        message = next((text for text in failed if text), None)
    return RunStatus(
        state=state,
        message=message,
        process=newest.pid,
        host=newest.host,
        seen=_clock(newest.time),
        done=sum(row.state == "done" and row.stage != REPORT for row in rows),
        planned=len(stages),
        stages=tuple(rows),
    )


def _planned(root: Path) -> tuple[RunnerStage, ...]:
    """The stages of the saved plan."""
    found = read_record(_Plan, root / "plan.json")
    return found.stages if found else ()


class _Plan(BaseModel):
    stages: tuple[RunnerStage, ...]


def _with_queue(directory: RunDirectory, rows: list[StageStatus]) -> list[StageStatus]:
    """Add what a cluster's queue says, and the report if it was submitted."""
    names = [Path(row.directory).name for row in rows]
    found = queue_states(directory, {name: row.state for name, row in zip(names, rows, strict=True)})
    changes = [found[name]._asdict() if name in found else {} for name in names]
    rows = [replace(row, **change) for row, change in zip(rows, changes, strict=True)]
    if REPORT in found:
        rows.append(StageStatus(stage=REPORT, directory=str(directory.report), **found[REPORT]._asdict()))
    return rows


def _newest(stage: RunnerStage, runners: list[RunnerRecord]) -> RunnerRecord:
    """The last heartbeat of a runner that works on a stage."""
    own = [runner for runner in runners if any(other.key == stage.key for other in runner.stages)]
    return max(own, key=lambda runner: runner.time, default=NO_RUNNER)


def _run_state(runner: RunnerRecord, now: float) -> str:
    """`done`, `running`, `stopped`, `failed`, `died`, or `silent` if it runs on another machine and stopped writing."""
    if runner.state != "running":
        return "done" if runner.state == "ended" else runner.state
    if runner.pid is not None and runner.host == socket.gethostname():
        return "running" if is_alive(runner.pid, runner.host) else "died"
    return "running" if now - runner.time < SILENT_SECONDS else "silent"


def _stage(directory: Path, stage: RunnerStage, runner: RunnerRecord, now: float) -> StageStatus:
    record = sound_record(JobRecord, directory / "heartbeat.json") or JobRecord()
    state, since = _stage_state(directory, stage, runner, record, now)
    values = asdict(record) | {"state": state, "since": None if since is None else _clock(since)}
    del values["time"]
    return StageStatus(stage=stage.name, directory=str(directory), **values)


def _stage_state(
    directory: Path, stage: RunnerStage, runner: RunnerRecord, record: JobRecord, now: float
) -> tuple[str, float | None]:
    """State of a stage, and since when it has stalled."""
    if is_done(directory, stage.key):
        return "done", None
    current, state = stage.name in runner.current, _run_state(runner, now)
    if current and state == "running":
        limit = max(STALL_SECONDS, 10 / record.rate if record.rate else 0.0)
        fresh = record.time >= runner.since
        stalled = fresh and record.state == "running" and now - record.time > limit
        return ("stalled", record.time) if stalled else ("running", None)
    if current and state == "silent":
        return "stalled", runner.time
    if record.state is not None or (directory / "stage.json").is_file():
        failed = record.state == "failed" or (current and state == "failed")
        return "failed" if failed else "stopped", None
    return "waiting", None


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
