"""`sra-bench images`: build, list and verify container images."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.containers.build import REPOSITORY, Build

images_app = typer.Typer(help="Container images of the suite, with docker or podman.", no_args_is_help=True)

Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME...]", help="trainer, evaluator, all; default: all three.")
]
Engine = Annotated[
    str | None, typer.Option("--engine", metavar="NAME", help="docker or podman; default: whichever answers.")
]
Tag = Annotated[str | None, typer.Option("--tag", help="Tag of the images; default: the version of the suite.")]
Repository = Annotated[str, typer.Option("--repository", help="Prefix of the image names.")]


@images_app.command()
def build(
    names: Names = None,
    engine: Engine = None,
    base: Annotated[str | None, typer.Option(help="Base image; default: the pinned one.")] = None,
    cuda: Annotated[
        str, typer.Option(help="CUDA build of torch, from containers/requirements/torch-NAME.txt.")
    ] = "cu130",
    uid: Annotated[int, typer.Option(min=1, help="User id that the images run as.")] = 1000,
    tag: Tag = None,
    repository: Repository = REPOSITORY,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="OPT", help="Passed on to the engine's build.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the command lines and stop.")] = False,
) -> None:
    """Build images from this checkout, in order."""
    from benchmark.containers.build import build_images

    how = Build(base=base, cuda=cuda, uid=uid, tag=tag, repository=repository, options=tuple(option or ()))
    typer.echo(build_images(names or [], engine, how, dry_run=dry_run))


@images_app.command("list")
def list_(engine: Engine = None, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the images of the suite with their sizes and labels."""
    from benchmark.containers.build import list_images

    typer.echo(list_images(engine, as_json=as_json))


@images_app.command()
def verify(names: Names = None, engine: Engine = None, tag: Tag = None, repository: Repository = REPOSITORY) -> None:
    """Check images from inside: user, tools, versions, doctor, revision; exit code 1 if a check fails."""
    from benchmark.containers.checks import verify_images

    text, sound = verify_images(names or [], engine, tag, repository)
    typer.echo(text)
    raise typer.Exit(0 if sound else 1)
