"""What `run` and `plan` do: load, plan, walk, report."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import zipfile
from pathlib import Path
from typing import Any

from benchmark.assets.catalogue import Pins, folder, located, remedy, used_by, verify
from benchmark.manifest.schema import Loaded, ManifestError, load
from benchmark.manifest.smoke_form import DIGITS, scaled
from benchmark.plan.cost import Table, load_table
from benchmark.plan.plan import Plan, make_plan, state_of
from benchmark.plan.run_directory import RunDirectory
from benchmark.plan.saved_plan import record_session, resolved_manifest, save_plan
from benchmark.plan.stages import label_of
from benchmark.published.registry import load_registry
from benchmark.report.collect import collect_report
from benchmark.run.command import command_of
from benchmark.run.executor import Executor
from benchmark.run.runner import HERE, Session, StageError, processes_for, run_plan
from sra.common.errors import DataError
from sra.common.files import write_bytes
from sra.config import check_codec_folder


def prepare(
    manifest: Path,
    out: Path | None,
    overrides: list[str] | None,
    variants: list[str] | None,
    *,
    smoke: bool,
    processes: int | None = None,
    elsewhere: int | None = None,
) -> tuple[Plan, RunDirectory, int]:
    """The plan of a manifest or of its smoke form, its run directory, and how many processes a job gets.

    Args:
        manifest: YAML file.
        out: run directory.
        overrides: `a.b=value` items.
        variants: names to keep.
        smoke: its smoke form.
        processes: of training and sampling; checked against the GPUs of this machine.
        elsewhere: of training and sampling on other machines, whose GPUs cannot be counted here.

    Raises:
        UserError: bad input, in one line.
    """
    loaded = load(manifest, overrides, variants)
    loaded = scaled(loaded) if smoke else loaded
    directory = RunDirectory((out or Path("runs") / loaded.name).absolute())
    count = elsewhere or processes_for(1 if smoke and processes is None else processes)
    for run in loaded.runs:
        if run.published:
            load_registry().row(run.published)
    check_split(loaded, count)
    _check_codecs(loaded)
    _check_places(loaded)
    return make_plan(loaded, directory), directory, count


def check_split(loaded: Loaded, processes: int) -> None:
    """Refuse a batch that so many processes cannot share evenly.

    Raises:
        ManifestError: of a run that is trained.
    """
    for run in loaded.runs:
        if run.train and run.train.global_batch % (processes * run.train.accumulate):
            raise ManifestError(
                f"{loaded.path}: train.global_batch {run.train.global_batch} is not divisible by "
                f"{processes} processes x accumulate {run.train.accumulate}"
            )


def _check_codecs(loaded: Loaded) -> None:
    """Codec folders that are there and are none, before hours are spent on what comes before them."""
    for place in dict.fromkeys(located(run.codec.path) for run in loaded.runs if run.samples is None):
        try:
            check_codec_folder(Path(place))
        except DataError as error:
            how = remedy(place)
            raise ManifestError(f"{loaded.path}: {error}{f' ({how})' if how else ''}") from error


def _check_places(loaded: Loaded) -> None:
    """What scoring reads, as far as its first bytes tell: it comes last, and must not be refused only then."""
    named = [(key, located(getattr(run.score, key))) for run in loaded.runs for key in ("graph", "reference")]
    for key, place in dict.fromkeys(named):
        if place.startswith("embedded:") and place != DIGITS:
            raise ManifestError(f"{loaded.path}: score.{key} {place}: not embedded; allowed: {DIGITS}")
        fits, formats = (_is_graph, ".pb, .safetensors") if key == "graph" else (zipfile.is_zipfile, ".npz, .zip")
        if Path(place).is_file() and not fits(place):
            raise ManifestError(f"{loaded.path}: score.{key} {place}: a file of {formats} is needed")


def _is_graph(place: str) -> bool:
    """A frozen graph begins with the tag of its first node, safetensors with a length and a JSON object."""
    with Path(place).open("rb") as handle:
        start = handle.read(9)
    return start[:1] == b"\n" or start[8:] == b"{"


def verify_assets(loaded: Loaded) -> None:
    """Check the assets that are there against what is known of them; record those used for the first time.

    Raises:
        AssetError: a file is not the one that was recorded.
    """
    pins = Pins(folder())
    for asset in used_by([place for run in loaded.runs for place in run.places], []):
        verify(asset, pins)


def register(plan: Plan, directory: RunDirectory, command: str) -> None:
    """Write what a run directory says of its plan, and check the plan's assets.

    Raises:
        AssetError: a file is not the one that was recorded.
    """
    write_bytes(directory.root / "manifest.resolved.yaml", resolved_manifest(plan.loaded).encode())
    save_plan(plan, directory, command)
    if not plan.loaded.smoke and not plan.absent:
        verify_assets(plan.loaded)


def execute(
    manifest: Path,
    out: Path | None,
    overrides: list[str] | None,
    variants: list[str] | None,
    until: str,
    command: str,
    *,
    smoke: bool = False,
    processes: int | None = None,
    executor: Executor = HERE,
) -> str:
    """Run a manifest, or its smoke form, up to a kind of stage; returns what to print at the end.

    Raises:
        UserError: bad input, in one line.
        StoppedError: on SIGINT, SIGTERM or SIGUSR1.
    """
    plan, directory, count = prepare(manifest, out, overrides, variants, smoke=smoke, processes=processes)
    directory.create()
    with directory.locked() as lock:
        register(plan, directory, command)
        if not plan.absent and any(state_of(stage, directory)[0] != "done" for stage in plan.stages):
            record_session(plan, directory)
        try:
            run_plan(plan, Session(directory=directory, executor=executor, processes=count, lock=lock), until)
        except StageError:
            # What failed, and where, is a result: the report says it. Without a started stage there is none.
            if any((stage.directory / "failed.json").is_file() for stage in plan.stages):
                # A full disk has no room for a report either: what failed first is what is to be said.
                with contextlib.suppress(OSError):
                    write_reports(plan, directory, command)
            raise
        if until != "report":
            return f"done until {until}: {directory.root}"
        return write_reports(plan, directory, command)


def write_reports(plan: Plan, directory: RunDirectory, command: str) -> str:
    """Write the report; returns its table and where it is."""
    # matplotlib and jinja2 are imported only for the report.
    from benchmark.report.render import write_report
    from benchmark.report.tables import terminal_summary

    report = collect_report(plan, directory, command)
    write_report(report, directory.report)
    return f"{terminal_summary(report)}\nreport: {directory.report / 'report.html'}"


def show_plan(
    manifest: Path,
    out: Path | None,
    overrides: list[str] | None,
    variants: list[str] | None,
    *,
    as_json: bool,
    smoke: bool = False,
    processes: int | None = None,
    executor: Executor | None = None,
) -> str:
    """The stages of a manifest and their cost, as text or JSON; absent inputs are marked, none is refused.

    With an executor, the command line of each batch that is to run, too.
    """
    plan, directory, count = prepare(manifest, out, overrides, variants, smoke=smoke, processes=processes)
    costs = load_table()
    rows = [_plan_row(plan, index, directory, costs, count) for index in range(len(plan.stages))]
    commands = _commands(plan, directory, count, executor) if executor else []
    if as_json:
        document = {
            "schema": 1,
            "name": plan.loaded.name,
            "processes": count,
            "absent": list(plan.absent),
            "remedies": {place: how for place in plan.absent if (how := remedy(place))},
            "cost": {"source": costs.source, "device": costs.device, **_totals(rows)},
            "stages": rows,
            **({"commands": [{"batch": label, "argv": argv} for label, argv in commands]} if executor else {}),
        }
        return json.dumps(document, indent=2)
    lines = [f"[{label}] {shlex.join(argv)}" for label, argv in commands]
    return "\n".join([*_plan_lines(plan, directory, costs, rows, count), *lines])


def _commands(plan: Plan, directory: RunDirectory, processes: int, executor: Executor) -> list[tuple[str, list[str]]]:
    """Label and command line of each batch that is to run."""
    found = []
    for _, group in itertools.groupby(plan.stages, key=lambda stage: stage.batch):
        pending = [stage for stage in group if state_of(stage, directory)[0] != "done"]
        if pending:
            found.append((label_of(pending), executor.argv(command_of(pending, directory, processes))))
    return found


def _plan_row(plan: Plan, index: int, directory: RunDirectory, costs: Table, processes: int) -> dict[str, Any]:
    stage = plan.stages[index]
    state, why = state_of(stage, directory)
    cost = stage.kind.cost(stage.job, stage.step, costs, processes)
    return {
        "stage": stage.name,
        "kind": stage.kind.name,
        "variants": list(stage.variants),
        "key": stage.key,
        "state": state,
        "why": why,
        "directory": str(stage.directory),
        "outputs": list(stage.outputs),
        "disk_bytes": stage.disk.bytes,
        "disk_at_most": stage.disk.is_upper_bound,
        "gpu_hours": cost.gpu_hours,
        "gpu_memory_bytes": cost.memory_bytes,
        "cost_source": cost.how,
    }


def _totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the stages that are to run; what is not known is counted, not guessed."""
    todo = [r for r in rows if r["state"] != "done"]
    hours = [r["gpu_hours"] for r in todo]
    return {
        "gpu_hours": sum(h for h in hours if h is not None),
        "stages_of_unknown_hours": hours.count(None),
        "disk_bytes": sum(r["disk_bytes"] or 0 for r in todo),
        "gpu_memory_bytes": max((r["gpu_memory_bytes"] for r in todo if r["gpu_memory_bytes"]), default=None),
    }


def _plan_lines(
    plan: Plan, directory: RunDirectory, costs: Table, rows: list[dict[str, Any]], processes: int
) -> list[str]:
    shared = f"training and sampling on {processes} process{'es' if processes > 1 else ''}"
    lines = [f"{plan.loaded.name}: {len(rows)} stages in {directory.root}, {shared}"]
    for row in rows:
        lines.append(f"  {row['state']:7} {row['stage']:36} {row['why']}  ({_cost_text(row)})")
    totals = _totals(rows)
    unknown = totals["stages_of_unknown_hours"]
    lines.append(
        f"to run: {totals['gpu_hours']:,.2f} hours of one {costs.device}"
        + (f" and {unknown} stages of unknown hours" if unknown else "")
        + f", at most {totals['disk_bytes'] / 1e9:,.1f} GB of disk; hours {costs.source}"
    )
    lines += [f"    {how}" for how in dict.fromkeys(row["cost_source"] for row in rows if row["kind"] != "images")]
    for place in plan.absent:
        lines.append(f"  absent  {place}" + (f"  ({how})" if (how := remedy(place)) else ""))
    return lines


def _cost_text(row: dict[str, Any]) -> str:
    size = row["disk_bytes"]
    parts = ["disk unknown" if size is None else f"{'at most ' if row['disk_at_most'] else ''}{size / 1e6:,.0f} MB"]
    if row["gpu_hours"] is None:
        parts.append("hours unknown")
    elif row["gpu_hours"]:
        parts.append(f"{row['gpu_hours']:,.2f} h")
    if row["gpu_memory_bytes"]:
        parts.append(f"{row['gpu_memory_bytes'] / 1e9:,.1f} GB a GPU")
    return ", ".join(parts)
