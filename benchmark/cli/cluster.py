"""Commands of clusters: `submit`, `cancel`, `work`, `await` and `render`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import AcceptMoved, ManifestPath, Only, Out, RunDir, Set, Smoke, folder, request
from benchmark.machine.environment import GRACE_SECONDS, MASTER_PORT, PATIENCE_SECONDS
from sra.common.errors import UserError, expected

cluster_app = typer.Typer()
render_app = typer.Typer(help="Write the jobs of a run as files for a cluster; submits nothing.", no_args_is_help=True)

Site = Annotated[Path, typer.Option("--site", help="Settings of the cluster, see docs/kubernetes.md.")]


class Cluster(StrEnum):
    """Clusters that `submit` supports."""

    slurm = "slurm"
    kubernetes = "kubernetes"


@cluster_app.command()
def work(
    run_directory: RunDir,
    stage: Annotated[list[str], typer.Option(metavar="DIRECTORY", help="A stage's directory name, or report.")],
    nodes: Annotated[int, typer.Option(min=1, help="Machines that share the job.")] = 1,
    node_rank: Annotated[
        int, typer.Option(min=0, envvar=["SLURM_NODEID", "JOB_COMPLETION_INDEX"], help="Rank of this machine.")
    ] = 0,
    address: Annotated[str, typer.Option("--master-addr", help="Address of the machine of rank 0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--master-port", help="A free port on that machine.")] = MASTER_PORT,
    processes: Annotated[
        int, typer.Option(min=1, help="Training and sampling processes on all machines together.")
    ] = 1,
    grace: Annotated[float, typer.Option(min=1, help="Seconds for a job to save when it is stopped.")] = GRACE_SECONDS,
) -> None:
    """Run one batch of stages of a planned run on this machine; called by cluster jobs."""
    from benchmark.commands.work import work as work_on
    from benchmark.run.executor import Node

    # A rank that an allocation left in the shell means nothing to a job of one node.
    node = Node(count=nodes, rank=node_rank if nodes > 1 else 0, address=address, port=port)
    if node.rank >= nodes:
        raise UserError(expected("--node-rank", f"less than --nodes {nodes}", node.rank))
    typer.echo(work_on(run_directory, stage, node, processes, grace))


@cluster_app.command()
def submit(
    manifest: ManifestPath,
    executor: Annotated[Cluster, typer.Option(help="Kind of cluster.")] = Cluster.slurm,
    site: Annotated[
        Path | None, typer.Option(help="Cluster settings; default: $SRA_BENCH_SITE, or ./site.yaml.")
    ] = None,
    out: Out = None,
    overrides: Set = None,
    variant: Only = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            min=1,
            metavar="N",
            help="Training and sampling processes on all nodes; default: from the site file.",
        ),
    ] = None,
    smoke: Smoke = False,
    accept_moved: AcceptMoved = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the jobs and their scripts, and stop.")] = False,
) -> None:
    """Submit every stage that is not done to a cluster; the same command again continues."""
    from benchmark.commands.submit import submit as submit_jobs

    asked = request(manifest, out, overrides, variant, smoke=smoke, processes=processes, accept_moved=accept_moved)
    typer.echo(submit_jobs(asked, executor=executor.value, site=site, dry_run=dry_run))


@cluster_app.command()
def cancel(
    run_directory: RunDir,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for running jobs to save.")] = False,
) -> None:
    """Cancel a submitted run; running jobs save their work first."""
    from benchmark.commands.submit import cancel as cancel_jobs

    typer.echo(cancel_jobs(run_directory, now=now))


@cluster_app.command("await")
def await_stages(
    run_directory: RunDir,
    stage: Annotated[list[str], typer.Option(metavar="DIRECTORY", help="A stage's directory name (repeatable).")],
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most.")] = PATIENCE_SECONDS,
) -> None:
    """Wait until stages of a planned run are done; called by jobs of a cluster that does not order them."""
    from benchmark.commands.work import await_stages as wait

    typer.echo(wait(run_directory, stage, timeout))


@render_app.command()
def kubernetes(
    manifest: ManifestPath,
    site: Site,
    out: Annotated[
        Path | None, typer.Option("--out", parser=folder, metavar="DIR", help="Run directory, as the pods see it.")
    ] = None,
    overrides: Set = None,
    variant: Only = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder for one file per level; default: print all.")] = None,
    smoke: Smoke = False,
) -> None:
    """Render one Indexed Job per batch of stages; run this where the volumes are mounted: it saves the plan there."""
    from benchmark.commands.render import render_kubernetes

    asked = request(manifest, out, overrides, variant, smoke=smoke)
    typer.echo(render_kubernetes(asked, site=site, to=to), nl=to is not None)


@render_app.command()
def skypilot(
    manifest: ManifestPath, site: Site, overrides: Set = None, variant: Only = None, smoke: Smoke = False
) -> None:
    """Render a task that runs the manifest on one cloud machine."""
    from benchmark.commands.render import render_skypilot

    typer.echo(render_skypilot(request(manifest, None, overrides, variant, smoke=smoke), site=site), nl=False)
