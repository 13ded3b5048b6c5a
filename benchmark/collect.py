"""From the files of a run directory to the rows of its report. Every number is read, none is typed in."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark import provenance
from benchmark.manifest import Run
from benchmark.plan import Plan, Stage, state_of
from benchmark.store import RunDirectory, read_json
from sra.config import to_plain

TOOL_KEYS = {"adm": "adm", "clean-fid": "clean_fid", "torch-fidelity": "torch_fidelity"}
PUBLISHED_IMAGES = 50_000


def collect_report(plan: Plan, directory: RunDirectory, command: str) -> dict[str, Any]:
    """The whole report as JSON-ready data (schema 1).

    Args:
        plan: the plan whose stages were run.
        directory: where they were run.
        command: the command line that redoes it.
    """
    rows = [_row(plan, directory, run) for run in plan.loaded.runs]
    notes = sorted({reason for row in rows for reason in row["verdict"]["reasons"] if "features" in reason})
    return {
        "schema": 1,
        "name": plan.loaded.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "headline": notes[0] if notes else None,
        "rows": rows,
        "manifest": plan.loaded.resolved_yaml(),
        "commands": [command],
        "provenance": provenance.collect(),
        "notes": list(plan.loaded.notes),
    }


def _row(plan: Plan, directory: RunDirectory, run: Run) -> dict[str, Any]:
    stages = [s for s in plan.stages if run.variant in s.variants]
    last = _last_step(stages)
    records = {
        TOOL_KEYS[s.inputs["tool"]]: record
        for s in stages
        if s.kind == "score" and s.step == last and (record := read_json(s.directory / "scores.json"))
    }
    grid = next((s.directory / "grid.png" for s in stages if s.kind == "sample" and s.step == last), None)
    return {
        "variant": run.variant,
        "metrics": {tool: record.get("metrics", {}) for tool, record in records.items()},
        "errors": {tool: record["error"] for tool, record in records.items() if record.get("error")},
        "intervals": {tool: record["intervals"] for tool, record in records.items() if record.get("intervals")},
        "verdict": {"status": "not comparable", "reasons": _reasons(run, records)},
        "cost": _cost(stages, last),
        "provenance": _row_provenance(run, stages, records, directory),
        "curve": _curve(stages),
        "losses": _losses(stages),
        "grid": str(grid) if grid and grid.is_file() else None,
        "published": None,
    }


def _last_step(stages: list[Stage]) -> int | None:
    steps = [s.step for s in stages if s.kind == "sample" and s.step is not None]
    return max(steps) if steps else None


def _reasons(run: Run, records: dict[str, dict[str, Any]]) -> list[str]:
    """Why this row cannot be held against a paper's; the suite holds no published rows yet."""
    graphs = {str(record.get("graph", {}).get("name") or run.score.graph) for record in records.values()}
    reasons = []
    for graph in sorted(graphs):
        if graph.startswith("embedded:"):
            features = graph.removeprefix("embedded:")
            reasons.append(f"{features} features: not comparable with ImageNet numbers")
    if run.sample.images != PUBLISHED_IMAGES:
        reasons.append(f"{run.sample.images:,} images were scored, published rows use {PUBLISHED_IMAGES:,}")
    if run.published is None:
        reasons.append("the manifest names no published row for this variant")
    else:
        reasons.append(f"published row {run.published!r}: this version of the suite does not check rows yet")
    return reasons


def _cost(stages: list[Stage], last: int | None) -> dict[str, float | None]:
    """Seconds measured by the runner, per kind; None where a stage did not run to its end."""
    done = [(s, read_json(s.directory / "done.json")) for s in stages]
    spent = [(s, float(d["seconds"])) for s, d in done if d]
    train = sum(t for s, t in spent if s.kind == "train") or None
    sample = sum(t for s, t in spent if s.kind == "sample" and s.step == last) or None
    images = next((s.config["sample"]["images"] for s in stages if s.kind == "sample" and s.step == last), None)
    return {
        "train_seconds": train,
        "seconds_per_step": _seconds_per_step(stages),
        "sample_seconds": sample,
        "images_per_second": images / sample if images and sample else None,
        "score_seconds": sum(t for s, t in spent if s.kind == "score") or None,
    }


def _log_rows(stages: list[Stage]) -> list[dict[str, Any]]:
    directory = next((s.directory for s in stages if s.kind == "train"), None)
    log = directory / "log.jsonl" if directory else None
    if log is None or not log.is_file():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]


def _seconds_per_step(stages: list[Stage]) -> float | None:
    """Median over the log's intervals, so that a pause or a restart does not count."""
    rows = [r for r in _log_rows(stages) if "seconds" in r]
    pairs = itertools.pairwise(rows)
    rates = sorted((b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairs if b["step"] > a["step"])
    rates = [rate for rate in rates if rate > 0]
    return rates[len(rates) // 2] if rates else None


def _losses(stages: list[Stage]) -> list[dict[str, Any]]:
    keys = ("step", "loss", "generation", "alignment", "grad_norm")
    return [{k: row.get(k) for k in keys} for row in _log_rows(stages)]


def _curve(stages: list[Stage]) -> list[dict[str, Any]]:
    """FID and IS of every scored set of weights, by training step."""
    points = []
    for stage in stages:
        if stage.kind != "score" or stage.inputs["tool"] != "adm" or stage.step is None:
            continue
        record = read_json(stage.directory / "scores.json") or {}
        metrics = record.get("metrics", {})
        if "fid" in metrics:
            images = record.get("samples", {}).get("count")
            points.append({"step": stage.step, "images": images, "fid": metrics["fid"], "is": metrics.get("is")})
    return sorted(points, key=lambda point: point["step"])


def _row_provenance(
    run: Run, stages: list[Stage], records: dict[str, dict[str, Any]], directory: RunDirectory
) -> dict[str, Any]:
    latents = next((read_json(s.directory / "latents.json") for s in stages if s.kind == "latents"), None)
    images = next((read_json(s.directory / "images.json") for s in stages if s.kind == "images"), None)
    record = next(iter(records.values()), {})
    return {
        "settings": to_plain(run),
        "stages": {s.name: {"key": s.key, "state": state_of(s, directory)[0]} for s in stages},
        "images": images,
        "latents": latents,
        "samples": record.get("samples"),
        "reference": record.get("reference"),
        "graph": record.get("graph"),
        "tools": {tool: r.get("version") for tool, r in records.items()},
    }


def load_report(run_directory: Path) -> dict[str, Any] | None:
    """The report data of a finished run; None where there is none."""
    return read_json(run_directory / "report" / "report.json")
