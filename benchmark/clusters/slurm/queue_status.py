"""What a cluster's queue says of a run's stages, beside what the stages say themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.clusters.jobs import THE_REPORT
from benchmark.clusters.record import Ticket, load_tickets
from benchmark.clusters.slurm import queue as slurm_queue
from benchmark.clusters.slurm.queue import Entry, SlurmError
from benchmark.plan.run_directory import RunDirectory, is_reported

BUSY = ("running", "stalled")
"""States that a stage's own signs of life tell better than the queue."""


def add_queue(root: Path, rows: list[dict[str, Any]]) -> None:
    """Give each row its job, in place, and the state that follows; one more row for a report that is submitted.

    Args:
        root: the run directory.
        rows: of the stages, with `directory` and `state`; those without a job stay as they are.
    """
    tickets = load_tickets(RunDirectory(root))
    if not tickets:
        return
    try:
        queue: dict[int, Entry] | None = slurm_queue.entries()
    except SlurmError:
        queue = None
    jobs = {name: ticket for ticket in tickets for name in ticket.directories}
    report = jobs.get(THE_REPORT.name)
    if report is not None:
        rows.append(_report_row(root, rows))
    for row in rows:
        ticket = jobs.get(Path(row["directory"]).name)
        if ticket is not None and row["state"] != "done":
            row |= _seen(row["state"], ticket, queue, RunDirectory(root).cluster)


def _report_row(root: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    directory = RunDirectory(root)
    state = "done" if is_reported(directory, [Path(row["directory"]) for row in rows]) else "waiting"
    nothing = dict.fromkeys(("since", "job", "step", "total", "unit", "rate", "eta_seconds", "pid", "host", "message"))
    return {"stage": THE_REPORT.name, "directory": str(directory.report), **nothing, "state": state}


def _seen(state: str, ticket: Ticket, queue: dict[int, Entry] | None, cluster: Path) -> dict[str, Any]:
    """State and job of a stage that is not done."""
    if queue is None:
        return {"job": f"job {ticket.number}, no squeue on this machine"}
    entry = queue.get(ticket.number)
    if entry is None or entry.name != ticket.label:
        ended = "stopped" if state in BUSY else state
        return {"state": ended, "job": f"job {ticket.number} has left the queue"}
    reason = "" if entry.reason == "None" else f" ({entry.reason})"
    job = f"job {entry.number} {entry.state}{reason}" + (f" on {entry.nodes}" if entry.nodes else "")
    if entry.waiting:
        return {"state": "queued", "job": job}
    if entry.living:
        return {"state": state if state in BUSY else "running", "job": job}
    if entry.state == "CANCELLED" or (cluster / f"{ticket.name}.cancel").exists():
        return {"state": "cancelled", "job": job}
    return {"state": "failed", "job": f"{job}; see {cluster / ticket.name}.log"}
