"""What a run cost and how it went, read from its stages' logs: seconds, hours, memory, losses, FID over time."""

from __future__ import annotations

import contextlib
import itertools
import json
from bisect import bisect_left
from pathlib import Path
from typing import Any

from benchmark.plan.run_directory import read_json
from benchmark.plan.stages import SAMPLE, TRAIN, Stage

HOUR = 3600.0
POINTS = 1000
"""Of a curve, about."""
LOSSES = ("step", "loss", "generation", "alignment", "grad_norm")


def cost_of(stages: list[Stage], last: int | None) -> dict[str, float | None]:
    """Measured cost of one row; None where a stage did not run to its end or did not record it.

    Args:
        stages: those of the row.
        last: optimizer step of the weights that count.
    """
    sampled = next((s for s in stages if s.kind is SAMPLE and s.step == last), None)
    took = (read_json(sampled.directory / "seconds.json") or {}) if sampled else {}
    rows, processes = log_rows(stages), processes_of(stages)
    hours = rows[-1]["seconds"] / HOUR if rows else None
    return {
        "seconds_per_step": seconds_per_step(rows),
        "training_hours": hours,
        "processes": processes,
        "device_hours": hours * processes if hours is not None and processes is not None else None,
        "memory_gib": max((row["memory_bytes"] / 2**30 for row in rows if "memory_bytes" in row), default=None),
        "sample_seconds": took.get("seconds"),
        "images_per_second": took["images"] / took["seconds"] if took.get("seconds") else None,
    }


def log_rows(stages: list[Stage]) -> list[dict[str, Any]]:
    """The training log, oldest step first; `seconds` are those of training alone, pauses left out."""
    directory = next((s.directory for s in stages if s.kind is TRAIN), None)
    log = directory / "log.jsonl" if directory else None
    if log is None or not log.is_file():
        return []
    rows = []
    for line in log.read_text(encoding="utf-8").splitlines():
        # A killed job, or a copy that was cut short, leaves a part of a line.
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return [row for row in rows if "seconds" in row]


def processes_of(stages: list[Stage]) -> int | None:
    """How many processes trained, over all nodes, as the stage's command line says."""
    directory = next((s.directory for s in stages if s.kind is TRAIN), None)
    argv = (read_json(directory / "stage.json") or {}).get("argv", []) if directory else []
    if not argv:
        return None
    option = "--processes"
    return int(argv[argv.index(option) + 1]) if option in argv else 1


def seconds_per_step(rows: list[dict[str, Any]]) -> float | None:
    """Median over the log's intervals, so that a pause or a restart does not count."""
    pairs = itertools.pairwise(rows)
    rates = sorted((b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairs if b["step"] > a["step"])
    rates = [rate for rate in rates if rate > 0]
    return rates[len(rates) // 2] if rates else None


def losses_of(stages: list[Stage]) -> list[dict[str, Any]]:
    """Losses by step, thinned evenly: a report shows a curve, the log holds every line."""
    rows = log_rows(stages)
    stride = max(1, len(rows) // POINTS)
    return [{key: row.get(key) for key in LOSSES} for row in rows[:-1:stride] + rows[-1:]]


def curve_of(stages: list[Stage]) -> list[dict[str, Any]]:
    """FID and IS of every scored set of weights, by optimizer step and by measured hours of training."""
    points, log = [], log_rows(stages)
    for stage in stages:
        if stage.tool != "adm" or stage.step is None:
            continue
        record = read_json(stage.directory / "scores.json") or {}
        metrics = record.get("metrics", {})
        if "fid" in metrics:
            images = record.get("samples", {}).get("count")
            facts = {"step": stage.step, "hours": hours_at(log, stage.step), "images": images}
            interval = record.get("intervals", {}).get("fid")
            points.append({**facts, "fid": metrics["fid"], "is": metrics.get("is"), "fid_interval": interval})
    return sorted(points, key=lambda point: point["step"])


def probe_of(root: Path, variant: str) -> list[dict[str, Any]]:
    """Accuracy of linear probes by block and time, where somebody has put them: RUN_DIR/probe/VARIANT/probe.json."""
    rows = (read_json(root / "probe" / variant / "probe.json") or {}).get("rows", [])
    return [{key: row[key] for key in ("t", "block", "accuracy")} for row in rows]


def hours_at(log: list[dict[str, Any]], step: int) -> float | None:
    """Hours of training until a step, between two logged steps by proportion; None outside the log."""
    steps = [row["step"] for row in log]
    place = bisect_left(steps, step)
    if place == len(steps):
        return None
    after = log[place]
    before = log[place - 1] if place else {"step": 0, "seconds": 0.0}
    share = (step - before["step"]) / (after["step"] - before["step"])
    return float(before["seconds"] + share * (after["seconds"] - before["seconds"])) / HOUR
