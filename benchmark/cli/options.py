"""Arguments and options that several commands share."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmark.plan.request import RunRequest


def folder(text: str) -> Path:
    """A path that is not empty: `--out "$OUT"` without OUT must not mean the current folder."""
    if not text:
        raise typer.BadParameter("expected a folder, got ''")
    return Path(text)


def shipped(incomplete: str) -> list[str]:
    """Names of the manifests that come with the suite, for a shell; none where there is such a folder to look in."""
    from benchmark.manifest.document import SHIPPED

    names = [] if Path("manifests").is_dir() else [f"manifests/{path.name}" for path in SHIPPED.glob("*.yaml")]
    return sorted(name for name in names if name.startswith(incomplete))


ManifestPath = Annotated[
    Path, typer.Argument(metavar="MANIFEST", help="YAML file, see manifests/.", autocompletion=shipped)
]
Out = Annotated[
    Path | None, typer.Option("--out", parser=folder, metavar="DIR", help="Run directory; default: runs/NAME.")
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="K=V", help="Override a key, e.g. train.lr=2e-4.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="Scale down to digits on a CPU; default --out: runs/NAME-smoke.")]
Only = Annotated[list[str] | None, typer.Option("--variant", metavar="NAME", help="Only this variant (repeatable).")]
AcceptMoved = Annotated[
    bool,
    typer.Option("--accept-moved", help="Take moved or touched inputs of finished stages of 0.1.0 for the same."),
]
Processes = Annotated[
    int | None, typer.Option("--processes", metavar="N", help="For training and sampling; default: one per GPU, or 1.")
]


def request(
    manifest: Path,
    out: Path | None,
    overrides: list[str] | None,
    variants: list[str] | None,
    *,
    smoke: bool,
    processes: int | None = None,
    until: str = "report",
    accept_moved: bool = False,
) -> RunRequest:
    """The request of a command that takes a manifest."""
    return RunRequest(
        manifest=manifest,
        out=out,
        overrides=tuple(overrides or ()),
        variants=tuple(variants or ()),
        smoke=smoke,
        processes=processes,
        until=until,
        accept_moved=accept_moved,
        command="sra-bench " + shlex.join(sys.argv[1:]),
    )
