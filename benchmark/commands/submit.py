"""`sra-bench submit` and `cancel`: hand the jobs of a run to Slurm, and take them out of its queue."""

from __future__ import annotations

from pathlib import Path

from benchmark.clusters.record import load_tickets
from benchmark.clusters.site_file import section
from benchmark.clusters.slurm import queue as slurm_queue
from benchmark.clusters.slurm.site import SlurmSite, site_path
from benchmark.clusters.slurm.submit import Cluster, is_living, processes_of, show, submit_slurm
from benchmark.commands.run import prepare
from benchmark.plan.run_directory import RunDirectory
from benchmark.run.runner import check_inputs
from sra.common.errors import UserError


def submit(
    manifest: Path,
    out: Path | None,
    overrides: list[str] | None,
    variants: list[str] | None,
    command: str,
    *,
    executor: str,
    site: Path | None,
    smoke: bool = False,
    processes: int | None = None,
    dry_run: bool = False,
) -> str:
    """Hand every stage that is not done to a cluster; the same command again continues. Returns what to print.

    Raises:
        UserError: bad input, in one line.
    """
    path = site_path(site)
    if executor != "slurm":
        raise UserError(f"--executor {executor}: `sra-bench render {executor}` writes its jobs, for kubectl to apply")
    settings = section(path, "slurm", SlurmSite)
    count = processes_of(settings, path, processes)
    plan, directory, _ = prepare(manifest, out, overrides, variants, smoke=smoke, elsewhere=count)
    check_inputs(plan)
    cluster = Cluster(site=settings, path=path, processes=count)
    if dry_run:
        return show(plan, directory, cluster)
    return submit_slurm(plan, directory, cluster, command)


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
