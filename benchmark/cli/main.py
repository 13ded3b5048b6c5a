"""The `sra-bench` command: parse options, call the command, print, set the exit code. Imports no framework."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn, cast

import typer
from typer.exceptions import TyperException

from benchmark import __version__
from benchmark.cli.cluster import cluster_app, render_app
from benchmark.cli.images import images_app
from benchmark.cli.jobs import jobs_app, latents_app
from benchmark.cli.options import AcceptMoved, Json, ManifestPath, Only, Out, Processes, RunDir, Set, Smoke, request
from benchmark.plan.request import RunRequest
from evaluator.tools import TOOL_MODULES
from sra.common.errors import BAD_INPUT, Stopped, UserError
from sra.common.files import check_place, write_json
from sra.common.program import expand_home, program

app = typer.Typer(
    name="sra-bench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(cluster_app)
app.add_typer(jobs_app)
app.add_typer(latents_app, name="latents")
app.add_typer(images_app, name="images")
app.add_typer(render_app, name="render")

INTERRUPTED = 130
"""Typer's exit code after Ctrl-C."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Reproducibility benchmark of Self-Representation Alignment (SRA) on SiT and DiT."""


class Backend(StrEnum):
    """Where the stages of a run are started."""

    local = "local"
    container = "container"


On = Annotated[Backend, typer.Option("--executor", help="Start stages as local processes, or in containers.")]
InContainer = Annotated[
    list[str] | None,
    typer.Option(
        "--container",
        metavar="K=V",
        help="Container settings: engine, repository, tag, one, shared_memory, other_revision.",
    ),
]


class Until(StrEnum):
    """Kinds of stages, in order."""

    images = "images"
    latents = "latents"
    train = "train"
    sample = "sample"
    score = "score"
    report = "report"


class Extractor(StrEnum):
    """Inception networks for clean-fid and torch-fidelity."""

    own = "own"
    graph = "graph"


class Format(StrEnum):
    """Report formats."""

    md = "md"
    html = "html"
    json = "json"
    latex = "latex"


@app.command()
def run(
    manifest: ManifestPath,
    out: Out = None,
    overrides: Set = None,
    variant: Only = None,
    until: Annotated[Until, typer.Option(help="Last kind of stage to run.")] = Until.report,
    processes: Processes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    smoke: Smoke = False,
    accept_moved: AcceptMoved = False,
    executor: On = Backend.local,
    containers: InContainer = None,
) -> None:
    """Prepare, train, sample, score and report; the same command again continues."""
    asked = request(
        manifest,
        out,
        overrides,
        variant,
        smoke=smoke,
        processes=processes,
        until=until.value,
        accept_moved=accept_moved,
    )
    if dry_run:
        _show_plan(asked, executor, containers, as_json=False)
        return
    from benchmark.commands.run import execute
    from benchmark.containers.executor import choose_executor

    typer.echo(execute(asked, choose_executor(executor.value, containers)))


@app.command()
def plan(
    manifest: Annotated[Path | None, typer.Argument(metavar="[MANIFEST]", help="Optional with --budget.")] = None,
    out: Out = None,
    overrides: Set = None,
    variant: Only = None,
    processes: Processes = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    smoke: Smoke = False,
    accept_moved: AcceptMoved = False,
    executor: On = Backend.local,
    containers: InContainer = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="HOURS", help="Which rows fit in 24h here, or in 100gpuh."),
    ] = None,
) -> None:
    """Show which stages are done or will run and why, outputs, GPU hours, memory and disk space; runs nothing."""
    if budget is not None:
        from benchmark.commands.budget import manifests_of, show_budget

        found = [
            request(path, out, overrides, variant, smoke=smoke, processes=processes, accept_moved=accept_moved)
            for path in manifests_of(manifest)
        ]
        typer.echo(show_budget(found, budget, as_json=as_json))
        return
    if manifest is None:
        raise typer.BadParameter("expected one, or --budget", param_hint="'MANIFEST'")
    asked = request(manifest, out, overrides, variant, smoke=smoke, processes=processes, accept_moved=accept_moved)
    _show_plan(asked, executor, containers, as_json=as_json)


def _show_plan(asked: RunRequest, executor: Backend, containers: list[str] | None, *, as_json: bool) -> None:
    from benchmark.commands.plan import show_plan
    from benchmark.containers.executor import choose_executor

    chosen = choose_executor(executor.value, containers)
    typer.echo(show_plan(asked, chosen if executor is Backend.container else None, as_json=as_json))


@app.command()
def status(
    run_directory: RunDir,
    as_json: Json = False,
) -> None:
    """Show the progress of a run: done, running, stalled, stopped; reads files only."""
    from benchmark.commands.status import show

    typer.echo(show(run_directory, as_json=as_json))


@app.command()
def evaluate(
    samples: Annotated[Path, typer.Option(help="Samples: .npz, folder or zip of images, tar or parquet.")],
    reference: Annotated[
        list[Path], typer.Option(help="Reference (repeatable): .npz batch or statistics, folder or zip of real images.")
    ],
    graph: Annotated[
        str, typer.Option(help="Frozen Inception graph (.pb), asset:NAME or embedded:digits.")
    ] = "asset:inception-graph",
    tool: Annotated[
        list[str] | None, typer.Option(help=f"Tool (repeatable): {', '.join(TOOL_MODULES)}; default: the first three.")
    ] = None,
    extractor: Annotated[
        Extractor, typer.Option(help="Inception of clean-fid and torch-fidelity: their own, or the graph's.")
    ] = Extractor.own,
    assets: Annotated[Path | None, typer.Option(help="Folder of their weights; default: $SRA_BENCH_ASSETS.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="More metrics of adm (repeatable), such as kid or fid@50000.")
    ] = None,
    training: Annotated[
        Path | None, typer.Option(help="Images that the model was trained on: are samples copies of them?")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Real images that it was not trained on, for comparison.")
    ] = None,
    views: Annotated[Path | None, typer.Option(help="Write class histograms and nearest references here.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the scores here.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Cache features here: a stopped run continues.")] = None,
    expect_images: Annotated[int | None, typer.Option(help="Reject samples with another number of images.")] = None,
    trust_statistics: Annotated[
        bool, typer.Option("--trust-statistics", help="Use mu, sigma of the sample file.")
    ] = False,
    allow_other_size: Annotated[bool, typer.Option("--allow-other-size", help="Allow another image size.")] = False,
    intervals: Annotated[bool, typer.Option(help="Estimate 95 % intervals.")] = True,
) -> None:
    """Score samples against a reference or several, each tool in a separate process."""
    from benchmark.commands.evaluate import ToolOptions, score_samples

    if json_path:
        check_place(json_path, "--json")
    options = ToolOptions(
        cache=cache,
        expect_images=expect_images,
        trust_statistics=trust_statistics,
        allow_other_size=allow_other_size,
        intervals=intervals,
        metrics=tuple(metrics or ()),
        training=training,
        validation=validation,
        extractor=extractor.value,
        assets=assets,
        views=views,
    )
    results, text = score_samples(samples, reference, graph, tool, options)
    typer.echo(text)
    if json_path:
        write_json(json_path, results[0] if len(results) == 1 else {"schema": 2, "references": results})
    for result in results:
        if result["errors"] and (tool or len(result["errors"]) == len(result["metrics"])):
            raise UserError(f"--tool: could not run: {', '.join(result['errors'])}")


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Samples: .npz, folder or zip of images.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Other samples.")],
    reference: Annotated[Path, typer.Option(help="Reference: .npz batch, folder or zip of real images.")],
    graph: Annotated[
        str, typer.Option(help="Frozen Inception graph (.pb), asset:NAME or embedded:digits.")
    ] = "asset:inception-graph",
    cache: Annotated[Path | None, typer.Option(help="Cache features here: a stopped run continues.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the differences here.")] = None,
) -> None:
    """Compare two sample sets: the difference of every metric, its interval and a permutation test."""
    from benchmark.commands.compare import compare_samples

    if json_path:
        check_place(json_path, "--json")
    found, text = compare_samples(first, second, reference, graph, cache)
    typer.echo(text)
    if json_path:
        write_json(json_path, found.model_dump(mode="json"))


@app.command()
def convert_inception(
    graph: Annotated[
        str, typer.Argument(metavar="GRAPH", help="Frozen Inception graph (.pb), asset:NAME or embedded:digits.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .safetensors.")],
) -> None:
    """Convert the Inception network of a frozen TensorFlow graph for --tool adm-torch."""
    from benchmark.commands.evaluate import convert_inception as convert_graph

    typer.echo(convert_graph(graph, out))


@app.command()
def report(
    run_directories: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Finished runs.")],
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.md,
) -> None:
    """Print the report of finished runs; reads files only."""
    from benchmark.report.render import show_report

    for directory in run_directories:
        typer.echo(show_report(directory, format.value))


@app.command()
def check(run_directory: RunDir) -> None:
    """Exit code 0: every compared row is reproduced or better; 1: one is not; 3: nothing was compared."""
    from benchmark.report.check import check as check_run

    text, code = check_run(run_directory)
    typer.echo(text)
    raise typer.Exit(code)


@app.command()
def published(
    model: Annotated[str | None, typer.Option(help="Only this model, e.g. SiT-XL/2.")] = None,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a Markdown table with links.")] = False,
) -> None:
    """List the published rows: numbers, settings, protocol, source."""
    from benchmark.published.listing import list_published
    from benchmark.published.schema import RegistryError

    if as_json and markdown:
        raise RegistryError("--json, --markdown: expected one of the two, got both")
    typer.echo(list_published(model, "json" if as_json else "markdown" if markdown else "text"))


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another run.")],
    as_json: Json = False,
) -> None:
    """Show the settings, provenance and numbers in which two runs differ."""
    from benchmark.report.diff import compare_runs

    typer.echo(compare_runs(first, second, as_json=as_json))


@app.command()
def bundle(
    run_directory: RunDir,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Archive; default: RUN_DIR.zip.")] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Include the samples.")] = False,
    features: Annotated[bool, typer.Option("--features", help="Include Inception features, 8 KB per image.")] = False,
) -> None:
    """Pack the evidence of a result: manifest, scores, statistics, provenance; exit code 3 if one is missing."""
    from benchmark.report.bundle import make_bundle

    text, code = make_bundle(run_directory, out, samples=samples, features=features)
    typer.echo(text)
    raise typer.Exit(code)


@app.command()
def verify(bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An archive made by bundle.")]) -> None:
    """Recompute what a bundle contains; exit code 1 if it contradicts itself, 3 if nothing inside proves a score."""
    from benchmark.report.verify import verify_bundle

    text, code = verify_bundle(bundle)
    typer.echo(text)
    raise typer.Exit(code)


@app.command()
def site(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Archives made by bundle.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the pages.")],
) -> None:
    """Verify bundles and write static pages of all of them: by published row, with verdicts, claims, cost."""
    from benchmark.commands.site import make_site

    typer.echo(make_site(bundles, out))


@app.command()
def publish(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An archive made by bundle.")],
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="hf://datasets/USER/NAME.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent, without a network.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Verify a bundle, list what is inside, ask, and send it to a data set of the Hugging Face hub, once."""
    from benchmark.commands.publish import prepare

    upload = prepare(bundle, to)
    typer.echo(upload.text)
    if dry_run:
        typer.echo(f"nothing was sent; it would go to {upload.address}")
        return
    if upload.is_there():
        typer.echo(f"there already: {upload.address}")
        return
    if not yes and not sys.stdin.isatty():
        raise UserError("publish: expected --yes where nobody can be asked")
    if not yes and not typer.confirm(f"Send it to {upload.address}?"):
        typer.echo("nothing was sent")
        return
    upload.send()
    typer.echo(f"sent: {upload.address}")


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Tables of all keys instead.")] = False,
) -> None:
    """Print the JSON schema of manifests, for editors; or tables of all keys with defaults and meaning."""
    from benchmark.manifest.reference import reference
    from benchmark.manifest.schema import schema as manifest_schema

    typer.echo(reference() if markdown else json.dumps(manifest_schema(), indent=2))


@app.command()
def doctor(
    manifest: Annotated[
        Path | None, typer.Option(help="Check what this manifest needs; exit code 1 if something is missing.")
    ] = None,
) -> None:
    """Show devices, versions, which assets are present, and how to place missing ones by hand."""
    from benchmark.commands.doctor import examine

    text, complete = examine(manifest)
    typer.echo(text)
    if not complete:
        raise typer.Exit(1)


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Assets; default: list them.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Everything that this manifest needs.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Folder; default: $SRA_BENCH_ASSETS.")] = None,
) -> None:
    """Download checkpoints, codec, graph and reference batches, verified; the same command again resumes."""
    from benchmark.commands.fetch import fetch_named

    typer.echo(fetch_named(names or [], manifest, to))


@app.command()
def clean(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete; by default files are only listed.")] = False,
) -> None:
    """List checkpoints and shards that are no longer needed, with sizes; delete them with --yes."""
    from benchmark.commands.clean import clean as clean_run

    typer.echo(clean_run(run_directory, delete=yes))


@app.command("from-sra", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def from_sra(
    context: typer.Context,
    processes: Annotated[int | None, typer.Option(help="GPUs of the command; default: from its launcher.")] = None,
    tables: Annotated[bool, typer.Option("--tables", help="Print the tables of all flags instead.")] = False,
) -> None:
    """Convert a command line of the authors' code to a manifest: sra-bench from-sra -- COMMAND."""
    from benchmark.manifest.from_sra import from_command
    from benchmark.manifest.sra_flags import tables as all_tables

    typer.echo(all_tables() if tables else from_command(context.args, processes), nl=tables)


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point: bad input is one line and exit code 2; a bug is a traceback."""
    with program():
        try:
            code = app(argv and expand_home(argv), standalone_mode=False)
        except TyperException as error:
            if usage := _usage_error(error):
                typer.echo(f"error: {usage}", err=True)
            code = BAD_INPUT
        if code == INTERRUPTED:
            raise Stopped
    sys.exit(code)


def _usage_error(error: TyperException) -> str:
    """The error in the command line; empty if help has been shown instead."""
    # Typer's own classes between this one and BadParameter have no public name.
    usage = cast("typer.BadParameter", error)
    message = " ".join(usage.format_message().split()).replace(": Value error, ", ": ")
    return f"{usage.ctx.command_path}: {message}" if message and usage.ctx else message


if __name__ == "__main__":
    main()
