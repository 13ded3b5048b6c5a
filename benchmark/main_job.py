"""What `run` and `plan` do: load, plan, walk, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmark.collect import collect_report
from benchmark.manifest import ManifestError, load
from benchmark.plan import Plan, make_plan, state_of
from benchmark.published import load_registry
from benchmark.runner import StageError, disk_bytes, run_plan, visible_gpus
from benchmark.saved import record_session, resolved_manifest, save_plan
from benchmark.store import RunDirectory
from sra.files import write_bytes


def _prepare(
    manifest: Path, out: Path | None, overrides: list[str] | None, variants: list[str] | None
) -> tuple[Plan, RunDirectory, int]:
    loaded = load(manifest, overrides, variants)
    directory = RunDirectory((out or Path("runs") / loaded.name).absolute())
    processes = max(1, visible_gpus())
    for run in loaded.runs:
        if run.published:
            load_registry().row(run.published)
        if run.train and run.train.global_batch % (processes * run.train.accumulate):
            raise ManifestError(
                f"{manifest}: train.global_batch {run.train.global_batch} is not divisible by "
                f"{processes} processes x accumulate {run.train.accumulate}"
            )
    return make_plan(loaded, directory), directory, processes


def execute(
    manifest: Path,
    out: Path | None,
    overrides: list[str] | None,
    variants: list[str] | None,
    until: str,
    command: str,
) -> str:
    """Run a manifest up to a kind of stage; returns what to print at the end.

    Raises:
        UserError: bad input, in one line.
        StoppedError: on SIGINT or SIGTERM.
    """
    plan, directory, processes = _prepare(manifest, out, overrides, variants)
    directory.create()
    with directory.locked():
        write_bytes(directory.root / "manifest.resolved.yaml", resolved_manifest(plan.loaded).encode())
        save_plan(plan, directory, command)
        if not plan.absent and any(state_of(stage, directory)[0] != "done" for stage in plan.stages):
            record_session(directory)
        try:
            run_plan(plan, directory, until, processes)
        except StageError:
            # What failed, and where, is a result: the report says it. Without a started stage there is none.
            if any((stage.directory / "failed.json").is_file() for stage in plan.stages):
                _report(plan, directory, command)
            raise
        if until != "report":
            return f"done until {until}: {directory.root}"
        return f"{_report(plan, directory, command)}\nreport: {directory.report / 'report.html'}"


def _report(plan: Plan, directory: RunDirectory, command: str) -> str:
    """Write the report; returns its table."""
    # matplotlib and jinja2 are wanted only here.
    from benchmark.report import table, write_report

    document = collect_report(plan, directory, command)
    write_report(document, directory.report)
    return table(document)


def show_plan(
    manifest: Path, out: Path | None, overrides: list[str] | None, variants: list[str] | None, *, as_json: bool
) -> str:
    """The stages of a manifest as text or JSON; absent inputs are marked, nothing is refused for them."""
    plan, directory, processes = _prepare(manifest, out, overrides, variants)
    rows: list[dict[str, Any]] = []
    for stage in plan.stages:
        state, why = state_of(stage, directory)
        rows.append(
            {
                "stage": stage.name,
                "kind": stage.kind,
                "variants": list(stage.variants),
                "key": stage.key,
                "state": state,
                "why": why,
                "directory": str(stage.directory),
                "outputs": list(stage.outputs),
                "disk_bytes": disk_bytes(stage),
            }
        )
    if as_json:
        document = {"schema": 1, "name": plan.loaded.name, "processes": processes}
        return json.dumps({**document, "absent": list(plan.absent), "stages": rows}, indent=2)
    lines = [f"{plan.loaded.name}: {len(rows)} stages in {directory.root}"]
    lines += [f"  {r['state']:7} {r['stage']:36} {r['why']}  ({r['disk_bytes'] / 1e6:,.0f} MB)" for r in rows]
    lines += [f"  absent  {place}" for place in plan.absent]
    return "\n".join(lines)
