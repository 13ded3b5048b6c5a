"""`sra-bench submit`, `cancel`, `work` and `await`: parse, call, print."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.cli.options import ManifestPath, Only, Out, RunDir, Set, Smoke
from benchmark.machine.environment import GRACE_SECONDS, MASTER_PORT, PATIENCE_SECONDS

cluster_app = typer.Typer()


class Cluster(StrEnum):
    """Where `submit` hands jobs to."""

    slurm = "slurm"
    kubernetes = "kubernetes"


@cluster_app.command()
def work(
    run_directory: RunDir,
    stage: Annotated[list[str], typer.Option(metavar="DIRECTORY", help="A stage's directory name, or report.")],
    nodes: Annotated[int, typer.Option(min=1, help="Machines that share the job.")] = 1,
    node_rank: Annotated[
        int, typer.Option(min=0, envvar=["SLURM_NODEID", "JOB_COMPLETION_INDEX"], help="Of this machine.")
    ] = 0,
    address: Annotated[str, typer.Option("--master-addr", help="Of the machine of rank 0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--master-port", help="Free on that machine.")] = MASTER_PORT,
    processes: Annotated[int, typer.Option(min=1, help="Of training and sampling, over all machines.")] = 1,
    grace: Annotated[
        float, typer.Option(min=1, help="Seconds that a job may take to save when asked to stop.")
    ] = GRACE_SECONDS,
) -> None:
    """Run one batch of stages of a planned run on this machine: what a job of a cluster calls."""
    from benchmark.commands.work import work as work_on
    from benchmark.run.local import Node

    node = Node(count=nodes, rank=node_rank, address=address, port=port)
    typer.echo(work_on(run_directory, stage, node, processes, grace))


@cluster_app.command()
def submit(
    manifest: ManifestPath,
    executor: Annotated[Cluster, typer.Option(help="Kind of cluster.")] = Cluster.slurm,
    site: Annotated[
        Path | None, typer.Option(help="The cluster's settings; default: $SRA_BENCH_SITE, or ./site.yaml.")
    ] = None,
    out: Out = None,
    overrides: Set = None,
    variant: Only = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes", min=1, metavar="N", help="Of training and sampling, over all nodes; default: the site's."
        ),
    ] = None,
    smoke: Smoke = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the jobs and their scripts, and stop.")] = False,
) -> None:
    """Hand every stage that is not done to a cluster's queue; the same command again continues."""
    from benchmark.commands.submit import submit as submit_jobs

    options: dict[str, Any] = {"smoke": smoke, "processes": processes, "dry_run": dry_run}
    command = "sra-bench " + shlex.join(sys.argv[1:])
    where: dict[str, Any] = {"executor": executor.value, "site": site}
    typer.echo(submit_jobs(manifest, out, overrides, variant, command, **where, **options))


@cluster_app.command()
def cancel(
    run_directory: RunDir,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for running jobs to save.")] = False,
) -> None:
    """Take a submitted run out of the queue; running jobs save their work first."""
    from benchmark.commands.submit import cancel as cancel_jobs

    typer.echo(cancel_jobs(run_directory, now=now))


@cluster_app.command("await")
def await_stages(
    run_directory: RunDir,
    stage: Annotated[list[str], typer.Option(metavar="DIRECTORY", help="A stage's directory name (repeatable).")],
    timeout: Annotated[float, typer.Option(min=0, help="Seconds.")] = PATIENCE_SECONDS,
) -> None:
    """Wait until stages of a planned run are done: what a job of a cluster without an order of its own calls first."""
    from benchmark.commands.work import await_stages as wait

    typer.echo(wait(run_directory, stage, timeout))
