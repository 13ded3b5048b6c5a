"""`sra-bench submit` and `cancel`: submit the jobs of a run to Slurm, and cancel them."""

from __future__ import annotations

from pathlib import Path

from benchmark.clusters.site_file import section
from benchmark.clusters.slurm import queue as slurm_queue
from benchmark.clusters.slurm.site import SlurmSite, site_path
from benchmark.clusters.slurm.submit import cluster_of, show, submit_slurm
from benchmark.clusters.slurm.submitted import cancel_jobs, in_queue, load_submitted, script_elsewhere
from benchmark.plan.prepare import check_inputs, prepare
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory
from sra.common.errors import UserError


def submit(request: RunRequest, *, executor: str, site: Path | None, dry_run: bool = False) -> str:
    """Submit every stage that is not done; the same command again continues. Returns what to print.

    Args:
        request: from the command line; its processes are those over all nodes.
        executor: kind of cluster.
        site: the cluster's settings; None: $SRA_BENCH_SITE, or ./site.yaml.
        dry_run: only show the jobs.

    Raises:
        UserError: bad input, in one line.
    """
    path = site_path(site)
    if executor != "slurm":
        raise UserError(f"--executor {executor}: `sra-bench render {executor}` writes its jobs, for kubectl to apply")
    cluster = cluster_of(section(path, "slurm", SlurmSite), path, request.processes)
    plan, directory, _ = prepare(request, remote_processes=cluster.processes)
    check_inputs(plan)
    if dry_run:
        return show(plan, directory, cluster)
    return submit_slurm(plan, directory, cluster, request.command)


def cancel(root: Path, *, now: bool = False) -> str:
    """Cancel the jobs of a run; returns what to print.

    Waiting jobs are cancelled first, so that none starts meanwhile. A running one gets SIGUSR1, as before a time limit:
    it saves a checkpoint and ends, and is not queued again.

    Args:
        root: the run directory.
        now: end running jobs by SIGTERM: what is not saved within Slurm's KillWait seconds is lost.

    Raises:
        UserError: nothing was ever submitted from there, or no Slurm on this machine.
    """
    directory = RunDirectory(root.absolute())
    if not load_submitted(directory):
        raise UserError(f"{root}: no cluster/jobs.json: nothing was submitted from there")
    submitted, queue = in_queue(directory, sure=True)
    active = [job for job in submitted if job.is_active(queue)]
    running = [] if now else [job for job in active if queue[job.number].state == "RUNNING"]
    # Where the run was before, there is nothing to save to.
    running = [job for job in running if not script_elsewhere(job, directory, queue)]
    cancelled = [job for job in active if job not in running]
    cancel_jobs(cancelled)
    for job in running:
        mark = directory.cluster / f"{job.name}.cancel"
        # A second signal would end the job while it saves.
        if not mark.exists():
            mark.touch()
            slurm_queue.request_checkpoint(job.number, job.cluster)
    lines = [f"cancelled: job {job.number} ({job.name})" for job in cancelled]
    lines += [f"saves its work and ends: job {job.number} ({job.name})" for job in running]
    return "\n".join(lines or [f"{root}: none of its {len(submitted)} jobs waits or runs"])
