"""`sra-bench render`: what a cluster is to be given, as files. Nothing is submitted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

render_app = typer.Typer(help="Write what a cluster is to be given; nothing is submitted.", no_args_is_help=True)

Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="YAML file, see manifests/.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="K=V", help="Override a key.")]
Only = Annotated[list[str] | None, typer.Option("--variant", metavar="NAME", help="Only this variant (repeatable).")]
Site = Annotated[Path, typer.Option("--site", help="Settings of the cluster, see docs/kubernetes.md.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Scaled down to digits.")]


@render_app.command()
def kubernetes(
    manifest: Manifest,
    site: Site,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory, as the pods see it.")] = None,
    overrides: Set = None,
    variant: Only = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder for a file a level; default: print all.")] = None,
    smoke: Smoke = False,
) -> None:
    """One Indexed Job a batch of stages; run it where the volumes are mounted, for it saves the plan there."""
    from benchmark.render import render_kubernetes

    command = "sra-bench " + shlex.join(sys.argv[1:])
    text = render_kubernetes(manifest, out, overrides, variant, command, site=site, to=to, smoke=smoke)
    typer.echo(text, nl=to is not None)


@render_app.command()
def skypilot(manifest: Manifest, site: Site, overrides: Set = None, variant: Only = None, smoke: Smoke = False) -> None:
    """A task that runs the manifest on one machine of a cloud."""
    from benchmark.render import render_skypilot

    typer.echo(render_skypilot(manifest, overrides, variant, site=site, smoke=smoke), nl=False)
