"""Commands that are jobs of `sra` and `evaluator`, and have parsers of their own: this process becomes them."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

jobs_app = typer.Typer()
latents_app = typer.Typer(help="Latents in the packed format and in the authors' layout.", no_args_is_help=True)

# These jobs have parsers of their own, which need neither torch nor a second list of their options here.
JOB: Any = {"add_help_option": False, "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}


@jobs_app.command(**JOB)
def pca(context: typer.Context) -> None:
    """Draw the first principal components of block outputs on one image (blocks x noise levels) as PNG."""
    become("sra.analysis.pca", context.args)


@jobs_app.command(**JOB)
def probe(context: typer.Context) -> None:
    """Train linear classifiers on block outputs; JSON and a plot of accuracy by block."""
    become("sra.analysis.probe", context.args)


@jobs_app.command(**JOB)
def export(context: typer.Context) -> None:
    """Write a train stage's newest checkpoint in the authors' layout."""
    become("sra.interop.export", context.args)


@jobs_app.command(**JOB)
def perf(context: typer.Context) -> None:
    """Measure this machine's speed: perf {latents,train,sample,evaluate,all,scaling} [--compare] [--json]."""
    from benchmark.commands.perf import measure

    sys.exit(measure(context.args))


@latents_app.command(**JOB)
def convert(context: typer.Context) -> None:
    """Convert latents between the packed format and the authors' layout."""
    become("sra.data.public_layout", context.args)


def become(module: str, arguments: list[str]) -> None:
    """Turn this process into a job: it gets the signals, and its exit code is this command's."""
    command = [sys.executable, "-m", module, *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted
