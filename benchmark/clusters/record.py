"""OUT/cluster/jobs.json: which jobs of a cluster were submitted for which stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.plan.run_directory import RunDirectory, read_json, write_json
from sra.common.errors import UserError

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A job that was submitted."""

    name: str
    """Unique within the run."""
    label: str
    """Its name in the queue."""
    number: int
    """As the queue knows it."""
    directories: tuple[str, ...]
    """Names of its stages' directories, or `report`."""


def load_tickets(directory: RunDirectory) -> list[Ticket]:
    """What was submitted for a run; the newest job of each stage.

    Raises:
        UserError: the file is of another version.
    """
    path = directory.cluster / "jobs.json"
    document = read_json(path)
    if document is None:
        return []
    try:
        return [Ticket(**{**job, "directories": tuple(job["directories"])}) for job in document["jobs"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not a list of jobs of this version: {error}") from error


def save_tickets(directory: RunDirectory, tickets: Sequence[Ticket]) -> None:
    """Write what was submitted, at once after it was."""
    jobs = [dataclasses.asdict(ticket) for ticket in tickets]
    write_json(directory.cluster / "jobs.json", {"schema": SCHEMA, "executor": "slurm", "jobs": jobs})
