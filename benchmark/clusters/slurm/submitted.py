"""Submitted jobs of a run: OUT/cluster/jobs.json, and what Slurm's queue says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from benchmark.clusters.slurm import queue as slurm_queue
from benchmark.clusters.slurm.queue import QueuedJob, SlurmError
from benchmark.plan.run_directory import RunDirectory, is_reported
from benchmark.plan.stages import REPORT
from sra.common.errors import UserError
from sra.common.files import read_json, write_json

SCHEMA = 1
BUSY_STATES = ("running", "stalled")
"""States for which a stage's heartbeat is more reliable than the queue."""


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


class JobState(NamedTuple):
    """State of a stage, and that of its job in the queue."""

    state: str
    job: str | None


def queue_states(directory: RunDirectory, states: dict[str, str]) -> dict[str, JobState]:
    """States of the submitted stages, and of a submitted report, with what the queue knows.

    Args:
        directory: of the run.
        states: of its stages, by the name of their directory.
    """
    submitted = load_submitted(directory)
    if not submitted:
        return {}
    try:
        queue: dict[int, QueuedJob] | None = slurm_queue.list_jobs()
    except SlurmError:
        queue = None
    jobs = {name: job for job in submitted for name in job.directories}
    reported = is_reported(directory, [directory.stages / name for name in states])
    states = {**states, REPORT: "done" if reported else "waiting"}
    return {
        name: JobState(state, None) if state == "done" else _state(state, jobs[name], queue, directory)
        for name, state in states.items()
        if name in jobs
    }


def _state(state: str, job: SubmittedJob, queue: dict[int, QueuedJob] | None, directory: RunDirectory) -> JobState:
    """State of a stage that is not done."""
    if queue is None:
        return JobState(state, f"job {job.number}, no squeue on this machine")
    entry = job.in_queue(queue)
    if entry is None:
        return JobState("stopped" if state in BUSY_STATES else state, f"job {job.number} has left the queue")
    reason = "" if entry.reason == "None" else f" ({entry.reason})"
    text = f"job {entry.number} {entry.state}{reason}" + (f" on {entry.nodes}" if entry.nodes else "")
    if entry.waiting:
        return JobState("queued", text)
    if entry.active:
        return JobState(state if state in BUSY_STATES else "running", text)
    if entry.state == "CANCELLED" or (directory.cluster / f"{job.name}.cancel").exists():
        return JobState("cancelled", text)
    return JobState("failed", f"{text}; see {directory.cluster / job.name}.log")
