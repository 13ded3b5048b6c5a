"""What `submit` does: plan here, hand the jobs to a cluster."""

from __future__ import annotations

from pathlib import Path

from benchmark.clusters.site_file import section
from benchmark.clusters.slurm.site import SlurmSite, site_path
from benchmark.clusters.slurm.submit import Cluster, processes_of, show, submit_slurm
from benchmark.commands.run import prepare
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
