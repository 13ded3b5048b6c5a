"""Submitted jobs of a run: OUT/cluster/jobs.json, and what Slurm's queue says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchmark.clusters.slurm import queue as slurm_queue
from benchmark.clusters.slurm.queue import QueuedJob, SlurmError
from benchmark.plan.run_directory import RunDirectory, is_reported
from benchmark.plan.stages import REPORT
from sra.common.errors import UserError
from sra.common.files import read_json, write_json

SCHEMA = 1
BUSY_STATES = ("running", "stalled")
"""States of a stage that its heartbeat knows better than the queue."""


@dataclass(frozen=True, kw_only=True)
class SubmittedJob:
    """A job that was submitted."""

    name: str
    """Unique within the run."""
    label: str
    """Its name in the queue."""
    number: int
    """Slurm's job id."""
    directories: tuple[str, ...]
    """Directory names of its stages, or `report`."""

    def in_queue(self, queue: dict[int, QueuedJob]) -> QueuedJob | None:
        """Its entry in the queue; None if it has left it. Slurm uses numbers again, so the name must agree."""
        entry = queue.get(self.number)
        return entry if entry is not None and entry.name == self.label else None

    def is_active(self, queue: dict[int, QueuedJob]) -> bool:
        """Whether it waits or runs."""
        entry = self.in_queue(queue)
        return entry is not None and entry.active


_JOBS = TypeAdapter(list[SubmittedJob])


def load_submitted(directory: RunDirectory) -> list[SubmittedJob]:
    """The newest submitted job of each stage.

    Raises:
        UserError: the file is of another version.
    """
    path = directory.cluster / "jobs.json"
    document = read_json(path)
    if document is None:
        return []
    try:
        return _JOBS.validate_python(document.get("jobs"))
    except ValidationError as error:
        raise UserError(f"{path}: expected a list of jobs of this version: {error.errors()[0]['msg']}") from error


def save_submitted(directory: RunDirectory, jobs: Sequence[SubmittedJob]) -> None:
    """Write the submitted jobs."""
    document = {"schema": SCHEMA, "executor": "slurm", "jobs": [asdict(job) for job in jobs]}
    write_json(directory.cluster / "jobs.json", document)


def add_queue(root: Path, rows: list[dict[str, Any]]) -> None:
    """Add to each row, in place, its job and the state that follows; append a row for a submitted report.

    Args:
        root: the run directory.
        rows: of the stages, with `directory` and `state`; those without a job stay as they are.
    """
    directory = RunDirectory(root)
    submitted = load_submitted(directory)
    if not submitted:
        return
    try:
        queue: dict[int, QueuedJob] | None = slurm_queue.list_jobs()
    except SlurmError:
        queue = None
    jobs = {name: job for job in submitted for name in job.directories}
    if REPORT in jobs:
        state = "done" if is_reported(directory, [Path(row["directory"]) for row in rows]) else "waiting"
        nothing = dict.fromkeys(
            ("since", "job", "step", "total", "unit", "rate", "eta_seconds", "pid", "host", "message")
        )
        rows.append({"stage": REPORT, "directory": str(directory.report), **nothing, "state": state})
    for row in rows:
        job = jobs.get(Path(row["directory"]).name)
        if job is not None and row["state"] != "done":
            row["state"], row["job"] = _state(row["state"], job, queue, directory)


def _state(
    state: str, job: SubmittedJob, queue: dict[int, QueuedJob] | None, directory: RunDirectory
) -> tuple[str, str]:
    """State of a stage that is not done, and its job in words."""
    if queue is None:
        return state, f"job {job.number}, no squeue on this machine"
    entry = job.in_queue(queue)
    if entry is None:
        return "stopped" if state in BUSY_STATES else state, f"job {job.number} has left the queue"
    reason = "" if entry.reason == "None" else f" ({entry.reason})"
    text = f"job {entry.number} {entry.state}{reason}" + (f" on {entry.nodes}" if entry.nodes else "")
    if entry.waiting:
        return "queued", text
    if entry.active:
        return state if state in BUSY_STATES else "running", text
    if entry.state == "CANCELLED" or (directory.cluster / f"{job.name}.cancel").exists():
        return "cancelled", text
    return "failed", f"{text}; see {directory.cluster / job.name}.log"
