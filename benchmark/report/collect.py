"""From the files of a run directory to the rows of its report. Every number is read, none is typed in."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.assets.catalogue import known_hashes
from benchmark.machine import provenance
from benchmark.manifest.schema import Run
from benchmark.plan.plan import Plan, state_of
from benchmark.plan.run_directory import RunDirectory, read_json
from benchmark.plan.saved_plan import load_plan, resolved_manifest, sessions_of
from benchmark.plan.stages import SAMPLE, SCORE, Stage
from benchmark.published.comparability import Evidence
from benchmark.published.registry import load_registry
from benchmark.published.schema import Registry
from benchmark.published.verdict import TOOL, judge
from benchmark.report.comparisons import base_name, groups_of, pairs_of
from benchmark.report.crosscheck import disagreements
from benchmark.report.measured import cost_of, curve_of, losses_of, probe_of
from sra.common.errors import UserError
from sra.config import SampleJob, to_plain

SCHEMA = 2


def collect_report(plan: Plan, directory: RunDirectory, command: str) -> dict[str, Any]:
    """The whole report as JSON-ready data (schema 2).

    Args:
        plan: the plan whose stages were run.
        directory: where they were run.
        command: the command line that redoes it.

    Raises:
        UserError: a variant names a published row that does not exist.
    """
    registry = load_registry()
    sessions = sessions_of(directory) or [{**provenance.collect(), "assets": {}}]
    rows = [_row(registry, plan, directory, run, sessions[-1].get("assets", {})) for run in plan.loaded.runs]
    return {
        "schema": SCHEMA,
        "name": plan.loaded.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "headline": _headline(rows),
        "rows": rows,
        "groups": groups_of(registry, plan.loaded.runs, rows),
        "pairs": pairs_of(registry, plan.loaded.runs, rows),
        "papers": _papers(registry, rows),
        "manifest": resolved_manifest(plan.loaded),
        "commands": [command],
        "provenance": sessions[-1],
        "sessions": len(sessions),
        "notes": list(plan.loaded.notes),
    }


def load_report(run_directory: Path) -> dict[str, Any]:
    """The report of a run directory: made anew from its stages where they are, else as it was written.

    Raises:
        UserError: neither is there, or they cannot be read by this version.
    """
    directory = RunDirectory(run_directory)
    saved = load_plan(directory)
    if saved is not None:
        return collect_report(saved[0], directory, saved[1])
    document = read_json(directory.report / "report.json")
    if document is None:
        raise UserError(
            f"{run_directory}: no report/report.json; run `sra-bench run MANIFEST --out {run_directory}` first"
        )
    if document.get("schema") != SCHEMA:
        raise UserError(
            f"{directory.report / 'report.json'}: schema {document.get('schema')}, this version reads {SCHEMA}; "
            "run the same command again"
        )
    return document


def _headline(rows: list[dict[str, Any]]) -> str | None:
    """What a reader must know before any number."""
    graphs = sorted({str((row["provenance"]["graph"] or {}).get("name")) for row in rows})
    embedded = [graph.removeprefix("embedded:") for graph in graphs if graph.startswith("embedded:")]
    return f"{embedded[0]} features: not comparable with ImageNet numbers" if embedded else None


def _row(registry: Registry, plan: Plan, directory: RunDirectory, run: Run, assets: dict[str, str]) -> dict[str, Any]:
    stages = [s for s in plan.stages if run.variant in s.variants]
    last = _last_step(stages)
    records = {
        str(s.tool).replace("-", "_"): record
        for s in stages
        if s.kind is SCORE and s.step == last and (record := read_json(s.directory / "scores.json"))
    }
    metrics = {tool: record.get("metrics", {}) for tool, record in records.items()}
    failure = _failure(stages, records, last)
    verdict = judge(registry, run, _evidence(stages, records, last, assets), metrics.get(TOOL, {}), failure)
    sample = next((s for s in stages if s.kind is SAMPLE and s.step == last), None)
    grid = sample.directory / "grid.png" if sample else None
    return {
        "variant": run.variant,
        "group": base_name(run),
        "metrics": metrics,
        "errors": {tool: record["error"] for tool, record in records.items() if record.get("error")},
        "intervals": {tool: record["intervals"] for tool, record in records.items() if record.get("intervals")},
        "warnings": _warnings(records),
        "verdict": verdict.plain(),
        "cost": cost_of(stages, last),
        "provenance": _provenance(run, stages, records, directory),
        "curve": curve_of(stages),
        "losses": losses_of(stages),
        "probe": probe_of(directory.root, run.variant),
        "grid": str(grid) if grid and grid.is_file() else None,
        "nearest": _nearest(records),
        "published": _published(registry, run),
        "commands": _commands(stages),
    }


def _warnings(records: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """What a reader must know of the numbers, by tool and of all of them together."""
    found = {tool: record["warnings"] for tool, record in records.items() if record.get("warnings")}
    between = disagreements({tool.replace("_", "-"): record for tool, record in records.items()})
    return {**found, "cross-check": between} if between else found


def _nearest(records: dict[str, dict[str, Any]]) -> str | None:
    """The picture of the worst and best samples and their nearest references, where a tool has drawn it."""
    drawn = [record.get("views", {}).get("nearest") for record in records.values()]
    return next((place for place in drawn if place and Path(place).is_file()), None)


def _last_step(stages: list[Stage]) -> int | None:
    steps = [s.step for s in stages if s.kind is SAMPLE and s.step is not None]
    return max(steps) if steps else None


def _failure(stages: list[Stage], records: dict[str, dict[str, Any]], last: int | None) -> str | None:
    """Where a row failed; None where its ADM numbers are there."""
    record = records.get(TOOL)
    if record is not None and not record.get("error"):
        return None
    if record is not None:
        return f"score-{TOOL}: {record['error']}"
    for stage in stages:
        failed = read_json(stage.directory / "failed.json")
        if failed is not None and failed.get("key") == stage.key:
            return f"{stage.name}: {failed['message']}"
    score = next((s for s in stages if s.step == last and s.tool == TOOL), None)
    if score is None:
        return f"score.tools does not name {TOOL}, whose numbers the papers print"
    waiting = next((s for s in stages if s.kind is not SCORE and not (s.directory / "done.json").is_file()), score)
    return f"{waiting.name}: has not run to its end"


def _evidence(
    stages: list[Stage], records: dict[str, dict[str, Any]], last: int | None, assets: dict[str, str]
) -> Evidence:
    sample = next((s.job for s in stages if isinstance(s.job, SampleJob) and s.step == last), None)
    data = _facts(stages, "latents") or _facts(stages, "images") or {}
    return Evidence(
        record=records.get(TOOL, {}),
        codec=sample.codec.path if sample else None,
        checkpoint=sample.checkpoint if sample and last is None else None,
        images=data.get("count"),
        classes=data.get("classes"),
        pins=known_hashes(),
        files=assets,
    )


def _facts(stages: list[Stage], kind: str) -> dict[str, Any] | None:
    """What a data stage wrote about its data set."""
    return next((read_json(s.directory / f"{kind}.json") for s in stages if s.kind.name == kind), None)


def _published(registry: Registry, run: Run) -> dict[str, Any] | None:
    """The row that a run names, as the report shows it."""
    if run.published is None:
        return None
    row = registry.row(run.published)
    return {
        "id": row.id,
        "model": row.model,
        "source": row.source,
        "kind": row.kind,
        "papers": list(row.papers),
        "metrics": {name: str(value) for name, value in row.printed.items()},
    }


def _papers(registry: Registry, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every paper behind the rows that are named, with its links and BibTeX entry."""
    used = dict.fromkeys(key for row in rows if row["published"] for key in row["published"]["papers"])
    return {
        key: {
            "title": registry.papers[key].title,
            "url": registry.papers[key].url,
            "code": registry.papers[key].code,
            "bibtex": registry.papers[key].bibtex(key),
        }
        for key in used
    }


def _commands(stages: list[Stage]) -> list[str]:
    """The command line of each stage that has started, as its directory records it; shared ones once."""
    found = [read_json(stage.directory / "stage.json") for stage in stages]
    return list(dict.fromkeys(shlex.join(document["argv"]) for document in found if document and "argv" in document))


def _provenance(
    run: Run, stages: list[Stage], records: dict[str, dict[str, Any]], directory: RunDirectory
) -> dict[str, Any]:
    record = records.get(TOOL) or next(iter(records.values()), {})
    return {
        "settings": json.loads(json.dumps(to_plain(run))),
        "stages": {s.name: {"key": s.key, "state": state_of(s, directory)[0]} for s in stages},
        "images": _facts(stages, "images"),
        "latents": _facts(stages, "latents"),
        "samples": record.get("samples"),
        "reference": record.get("reference"),
        "graph": record.get("graph"),
        "tools": {tool: r.get("version") for tool, r in records.items()},
    }
