"""What `cancel` does: a run's jobs leave the queue, those that run with their work saved."""

from __future__ import annotations

from pathlib import Path

from benchmark.clusters.record import load_tickets
from benchmark.clusters.slurm import queue as slurm_queue
from benchmark.clusters.slurm.submit import is_living
from benchmark.plan.run_directory import RunDirectory
from sra.common.errors import UserError


def cancel(root: Path, *, now: bool = False) -> str:
    """Cancel the jobs of a run; returns what was done.

    Waiting jobs go first, so that none starts because of it. A running one is asked to save, as before a time limit,
    and not to queue itself again.

    Args:
        root: the run directory.
        now: end running jobs as Slurm does it: what is not saved within its KillWait seconds is lost.

    Raises:
        UserError: nothing was ever submitted from there, or no Slurm on this machine.
    """
    directory = RunDirectory(root.absolute())
    tickets = load_tickets(directory)
    if not tickets:
        raise UserError(f"{root}: no cluster/jobs.json: nothing was submitted from there")
    queue = slurm_queue.entries()
    living = [ticket for ticket in tickets if is_living(ticket, queue)]
    running = [] if now else [ticket for ticket in living if queue[ticket.number].state == "RUNNING"]
    gone = [ticket for ticket in living if ticket not in running]
    slurm_queue.cancel([ticket.number for ticket in gone])
    for ticket in running:
        mark = directory.cluster / f"{ticket.name}.cancel"
        if not mark.exists():
            mark.touch()
            slurm_queue.ask_to_save(ticket.number)
    lines = [f"cancelled: job {ticket.number} ({ticket.name})" for ticket in gone]
    lines += [f"saves its work and ends: job {ticket.number} ({ticket.name})" for ticket in running]
    return "\n".join(lines or [f"{root}: none of its {len(tickets)} jobs waits or runs"])
