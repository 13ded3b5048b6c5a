"""How far a run is, for whoever looks from elsewhere: the runner's sign of life, and `sra-bench status`.

OUT/run.json                              stages, those that are running, the runner's process and last sign of life
OUT/workers/<name>-<key>.json             the same of a runner of single stages (on a cluster)
OUT/stages/<name>-<key>/heartbeat.json    written by the job: step, total, rate, time left
"""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark.clusters.slurm.submitted import add_queue
from benchmark.plan.run_directory import RunDirectory, is_alive, is_done, read_json
from sra.common.errors import UserError

SILENT_SECONDS = 60.0
"""A runner of another machine that is silent for so long has stalled or died."""
STALL_SECONDS = 120.0
"""A job without progress for so long, and for ten times its usual step, has stalled."""


def show(root: Path, *, as_json: bool) -> str:
    """The state of a run and of each stage, as text or JSON.

    Raises:
        UserError: no run was ever started there.
    """
    document = examine(root, time.time())
    if as_json:
        return json.dumps(document, indent=2)
    lines = [f"{root}: {document['state']}, {document['done']} of {document['planned']} stages done"]
    if document["message"]:
        lines.append(f"  {document['message']}")
    lines += [f"  {row['state']:11} {row['stage']:36} {_progress(row)}".rstrip() for row in document["stages"]]
    return "\n".join(lines)


def examine(root: Path, now: float) -> dict[str, Any]:
    """The state of a run at a time (seconds of the epoch), JSON-ready (schema 1).

    Raises:
        UserError: no run was ever started there.
    """
    run, workers = read_json(root / "run.json"), _workers(root)
    on_cluster = bool(workers) or (root / "cluster" / "jobs.json").is_file()
    if (run is None or "stages" not in run) and not on_cluster:
        raise UserError(f"{root}: no run.json, or a damaged one; start it with `sra-bench run MANIFEST --out {root}`")
    signs = [sign for sign in (run, *workers) if sign is not None]
    stages = _planned(root) if on_cluster else signs[0]["stages"]
    last = {stage["directory"]: _newest(stage, signs) for stage in stages}
    rows = [_stage(RunDirectory(root).stages / s["directory"], s, last[s["directory"]], now) for s in stages]
    newest = max(signs, key=lambda sign: float(sign["time"]), default=NOBODY)
    document = {
        "schema": 1,
        "state": _run_state(newest, now),
        "message": newest["message"],
        "process": newest["pid"],
        "host": newest["host"],
        "seen": _clock(newest["time"]),
        "done": sum(row["state"] == "done" for row in rows),
        "planned": len(rows),
        "stages": rows,
    }
    if on_cluster:
        add_queue(root, rows)
        unfinished = [
            last[stage["directory"]] for stage, row in zip(stages, rows, strict=False) if row["state"] == "failed"
        ]
        messages = (sign["message"] for sign in unfinished)
        document |= {"state": _joint_state(rows), "message": next((m for m in messages if m), None)}
    return document


NOBODY: dict[str, Any] = {"state": "stopped", "message": None, "current": [], "pid": None, "host": None, "time": 0.0}
"""The sign of life of a stage that nobody has begun."""
JOINT = ("failed", "stalled", "cancelled", "running", "queued", "stopped", "waiting")
"""States of which the first that any stage has is that of a run on a cluster."""


def _workers(root: Path) -> list[dict[str, Any]]:
    documents = [read_json(path) for path in sorted(RunDirectory(root).workers.glob("*.json"))]
    return [document for document in documents if document is not None and "current" in document]


def _planned(root: Path) -> list[dict[str, str]]:
    """The stages of the saved plan."""
    return list((read_json(root / "plan.json") or {}).get("stages", []))


def _newest(stage: dict[str, str], signs: list[dict[str, Any]]) -> dict[str, Any]:
    """The last sign of life of whoever works on a stage."""
    own = [sign for sign in signs if any(other["key"] == stage["key"] for other in sign["stages"])]
    return max(own, key=lambda sign: float(sign["time"]), default=NOBODY)


def _joint_state(rows: list[dict[str, Any]]) -> str:
    states = {row["state"] for row in rows}
    return next((state for state in JOINT if state in states), "done")


def _run_state(run: dict[str, Any], now: float) -> str:
    """`done`, `running`, `stopped`, `failed`, `died`, or `silent` where only silence is known."""
    if run["state"] != "running":
        return "done" if run["state"] == "ended" else str(run["state"])
    if run["host"] == socket.gethostname():
        return "running" if is_alive(run["pid"], run["host"]) else "died"
    return "running" if now - run["time"] < SILENT_SECONDS else "silent"


def _stage(directory: Path, stage: dict[str, str], run: dict[str, Any], now: float) -> dict[str, Any]:
    state = _run_state(run, now)
    heart = read_json(directory / "heartbeat.json") or {}
    row = {"stage": stage["name"], "directory": str(directory), "since": None, "job": None}
    row |= {
        name: heart.get(name) for name in ("step", "total", "unit", "rate", "eta_seconds", "pid", "host", "message")
    }
    if is_done(directory, stage["key"]):
        return row | {"state": "done"}
    current = stage["name"] in run["current"]
    if current and state == "running":
        fresh = heart.get("time", 0.0) >= run["since"]
        limit = max(STALL_SECONDS, 10 / heart["rate"] if heart.get("rate") else 0.0)
        if fresh and heart["state"] == "running" and now - heart["time"] > limit:
            return row | {"state": "stalled", "since": _clock(heart["time"])}
        return row | {"state": "running"}
    if current and state == "silent":
        return row | {"state": "stalled", "since": _clock(run["time"])}
    if heart or (directory / "stage.json").is_file():
        failed = heart.get("state") == "failed" or (current and state == "failed")
        return row | {"state": "failed" if failed else "stopped"}
    return row | {"state": "waiting"}


def _progress(row: dict[str, Any]) -> str:
    parts = []
    if row["since"]:
        parts.append(f"since {row['since']}")
    if row["step"] is not None and row["state"] != "done":
        parts.append(f"{row['step']:,} of {row['total']:,} {row['unit']}")
    if row["state"] == "running" and row["rate"]:
        parts.append(f"{row['rate']:.3g} a second")
        parts.append(f"{row['eta_seconds']:,.0f} s left")
    if row["state"] == "failed" and row["message"]:
        parts.append(row["message"])
    if row["job"]:
        parts.append(row["job"])
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
