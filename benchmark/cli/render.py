"""`sra-bench render`: what a cluster is to be given, as files. Nothing is submitted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import ManifestPath, Only, Set, Smoke, folder

render_app = typer.Typer(help="Write what a cluster is to be given; nothing is submitted.", no_args_is_help=True)

Site = Annotated[Path, typer.Option("--site", help="Settings of the cluster, see docs/kubernetes.md.")]


@render_app.command()
def kubernetes(
    manifest: ManifestPath,
    site: Site,
    out: Annotated[
        Path | None, typer.Option("--out", parser=folder, metavar="DIR", help="Run directory, as the pods see it.")
    ] = None,
    overrides: Set = None,
    variant: Only = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder for a file a level; default: print all.")] = None,
    smoke: Smoke = False,
) -> None:
    """One Indexed Job a batch of stages; run it where the volumes are mounted, for it saves the plan there."""
    from benchmark.commands.render import render_kubernetes

    command = "sra-bench " + shlex.join(sys.argv[1:])
    text = render_kubernetes(manifest, out, overrides, variant, command, site=site, to=to, smoke=smoke)
    typer.echo(text, nl=to is not None)


@render_app.command()
def skypilot(
    manifest: ManifestPath, site: Site, overrides: Set = None, variant: Only = None, smoke: Smoke = False
) -> None:
    """A task that runs the manifest on one machine of a cloud."""
    from benchmark.commands.render import render_skypilot

    typer.echo(render_skypilot(manifest, overrides, variant, site=site, smoke=smoke), nl=False)
