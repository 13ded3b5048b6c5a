"""Submitted jobs of a run: OUT/cluster/jobs.json, and what Slurm's queue says of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
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
    """Slurm's job id; 0: sbatch was asked, and its answer is not known."""
    directories: tuple[str, ...]
    """Directory names of its stages, or `report`."""
    cluster: str | None = None
    """As sbatch names it, if it is not the one of this machine."""

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
        UserError: the file is damaged or of another version.
    """
    path = directory.cluster / "jobs.json"
    if not path.exists():
        return []
    document = read_json(path) or {}
    try:
        return _JOBS.validate_python(document.get("jobs"))
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise UserError(
            f"{path}: expected a list of jobs of this version: {problem}; without jobs in the queue it can be deleted"
        ) from error


def located(jobs: Sequence[SubmittedJob], directory: RunDirectory, queue: dict[int, QueuedJob]) -> list[SubmittedJob]:
    """Jobs with the number that the queue tells where sbatch told none; without those that it does not tell, either.

    Jobs of the run that this one is a copy of are left out, too.
    """
    known = {job.number for job in jobs}
    found = {
        (entry.name, os.path.realpath(entry.script)): number
        for number, entry in queue.items()
        if entry.active and entry.state != "COMPLETING" and number not in known
    }
    numbered = (
        job if job.number else replace(job, number=found.get((job.label, _script(job, directory)), 0)) for job in jobs
    )
    return [j for j in numbered if j.number and not ((s := script_elsewhere(j, directory, queue)) and s.exists())]


def script_elsewhere(job: SubmittedJob, directory: RunDirectory, queue: dict[int, QueuedJob]) -> Path | None:
    """Its batch script, if that lies in a run directory that this one was copied or moved from."""
    entry = job.in_queue(queue)
    script = os.path.realpath(entry.script) if entry else ""
    is_other = script.endswith(f"/cluster/{job.name}.sh") and script != _script(job, directory)
    return Path(script) if is_other else None


def _script(job: SubmittedJob, directory: RunDirectory) -> str:
    return os.path.realpath(directory.cluster / f"{job.name}.sh")


def in_queue(directory: RunDirectory, *, sure: bool = False) -> tuple[list[SubmittedJob], dict[int, QueuedJob]]:
    """The submitted jobs, and the queue of their cluster; Slurm is not asked if there are none.

    Args:
        directory: of the run.
        sure: ask twice for jobs that are not in the queue.

    Raises:
        UserError: as `load_submitted`.
        SlurmError: as `queue.list_jobs`.
    """
    jobs = load_submitted(directory)
    expected = [job.label for job in jobs if sure]
    queue = slurm_queue.list_jobs({job.cluster for job in jobs}, expected) if jobs else {}
    return located(jobs, directory, queue), queue


def cancel_jobs(jobs: Sequence[SubmittedJob]) -> None:
    """Cancel jobs that wait or run.

    Raises:
        SlurmError: some still do.
    """
    slurm_queue.cancel([job.number for job in jobs], {job.cluster for job in jobs})


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
    trouble, queue = "", dict[int, QueuedJob]()
    try:
        submitted, queue = in_queue(directory)
    except SlurmError as error:
        submitted, trouble = load_submitted(directory), str(error).partition(";")[0]
    jobs = {name: job for job in submitted for name in job.directories}
    reported = is_reported(directory, [directory.stages / name for name in states])
    states = {**states, REPORT: "done" if reported else "waiting"}
    return {
        name: JobState(state, None) if state == "done" else _state(state, jobs[name], queue, trouble, directory)
        for name, state in states.items()
        if name in jobs
    }


def _state(
    state: str, job: SubmittedJob, queue: dict[int, QueuedJob], trouble: str, directory: RunDirectory
) -> JobState:
    """State of a stage that is not done; `trouble` is why the queue is not known."""
    if trouble:
        return JobState(state, f"job {job.number or '?'}, {trouble}")
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
