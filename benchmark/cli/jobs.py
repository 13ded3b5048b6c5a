"""Commands that are jobs of `sra` or `evaluator`: this process is replaced by the job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from benchmark.cli.options import Json, request
from sra.common.errors import FALLS_SHORT
from sra.common.startup import STOP_SIGNALS

jobs_app = typer.Typer()
latents_app = typer.Typer(help="Latents in the packed format and in the authors' layout.", no_args_is_help=True)

# These jobs have parsers of their own, so that their options are not listed twice.
JOB: Any = {"add_help_option": False, "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}


class Precision(StrEnum):
    """Precisions of a network."""

    fp32 = "fp32"
    tf32 = "tf32"
    fp16 = "fp16"
    bf16 = "bf16"


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
    first = context.args[:1]
    if first == ["evaluate"]:
        become("evaluator.dev.perf", context.args[1:])
    elif first == ["all"]:
        code = _job("sra.perf", context.args)
        if code != 0:
            raise typer.Exit(code)
        become("evaluator.dev.perf", [])
    else:
        become("sra.perf", context.args)


@jobs_app.command(**JOB)
def accept(context: typer.Context) -> None:
    """Test a machine before a long run: numbers, speed, jobs, disk; exit code 1 if it is not ready.

    With `--save`, the rows of all manifests and their hours at the measured speeds follow.
    """
    if "--save" not in context.args:
        become("sra.accept", context.args)
    from benchmark.commands.budget import manifests_of, show_budget

    code = _job("sra.accept", context.args)
    if code in (0, FALLS_SHORT):
        requests = [request(path, None, None, None, smoke=False) for path in manifests_of(None)]
        typer.echo(show_budget(requests, "24h", as_json=False))
    raise typer.Exit(code)


@jobs_app.command()
def parity(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Golden folder, such as tests/golden.")],
    as_json: Json = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile networks with torch.compile.")] = False,
    precision: Annotated[Precision, typer.Option(help="Precision of the networks.")] = Precision.fp32,
) -> None:
    """Compare every golden number with this machine; exit code 1 if any is outside its tolerance."""
    options = ["--json"] * as_json + ["--compile"] * compiled
    become("sra.parity", [str(folder), "--precision", precision.value, *options])


@latents_app.command(**JOB)
def convert(context: typer.Context) -> None:
    """Convert latents between the packed format and the authors' layout."""
    become("sra.data.public_layout", context.args)


def become(module: str, arguments: list[str]) -> NoReturn:
    """Replace this process by a job, so that signals and exit code are the job's."""
    from benchmark.machine.environment import job_environment
    from benchmark.machine.extras import require

    require(module)
    Path.cwd()  # If it has been removed: libraries would fail and not say why.
    # Until the job handles them: an interrupt of an interpreter that is starting prints a traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], job_environment())  # noqa: S606 - no shell


def _job(module: str, arguments: list[str]) -> int:
    """Run a job and return its exit code."""
    from benchmark.machine.environment import job_environment
    from benchmark.machine.extras import require

    require(module)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=job_environment(), check=False).returncode
