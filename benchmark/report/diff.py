"""`sra-bench diff`: what two runs have that is not the same: settings, provenance, numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmark.published.comparability import show
from benchmark.report.collect import load_report

ABSENT = "absent"


def compare_runs(first: Path, second: Path, *, as_json: bool) -> str:
    """The differences of two runs, variant by variant.

    Args:
        first: a run directory.
        second: another.
        as_json: as JSON rather than text.

    Raises:
        UserError: one of them holds no run.
    """
    document = differences(load_report(first), load_report(second))
    if as_json:
        return json.dumps({"schema": 1, "first": str(first), "second": str(second), **document}, indent=2)
    return "\n".join(_lines(document, first, second))


def differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Differences of two reports: `provenance`, and per variant `settings`, `inputs`, `numbers` and `verdict`."""
    rows_a, rows_b = ({row["variant"]: row for row in report["rows"]} for report in (a, b))
    shared = [name for name in rows_a if name in rows_b]
    return {
        "only_first": [name for name in rows_a if name not in rows_b],
        "only_second": [name for name in rows_b if name not in rows_a],
        "provenance": _changed(_without_time(a["provenance"]), _without_time(b["provenance"])),
        "variants": {name: _row(rows_a[name], rows_b[name]) for name in shared},
    }


def _without_time(provenance: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in provenance.items() if key != "created"}


def _row(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return {
        "settings": _changed(a["provenance"]["settings"], b["provenance"]["settings"]),
        "inputs": _changed(_inputs(a), _inputs(b)),
        "numbers": _numbers(a, b),
        "verdict": _changed({"status": a["verdict"]["status"]}, {"status": b["verdict"]["status"]}),
    }


def _inputs(row: dict[str, Any]) -> dict[str, Any]:
    """What went in, by content: places differ between machines and say nothing."""
    provenance = row["provenance"]
    names = ("images", "latents", "samples", "reference", "graph", "tools")
    found = {name: provenance[name] for name in names if provenance[name]}
    return {n: {k: v for k, v in facts.items() if k != "path"} for n, facts in found.items()}


def _numbers(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """Metrics of every tool and costs: (first, second, second - first)."""
    flat_a, flat_b = (_flat({"metrics": row["metrics"], "cost": row["cost"]}) for row in (a, b))
    found = []
    for name in dict.fromkeys([*flat_a, *flat_b]):
        x, y = flat_a.get(name), flat_b.get(name)
        if x != y:
            both = isinstance(x, (int, float)) and isinstance(y, (int, float))
            found.append({"name": name, "first": x, "second": y, "difference": y - x if both else None})  # type: ignore[operator]
    return found


def _changed(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    flat_a, flat_b = _flat(a), _flat(b)
    names = dict.fromkeys([*flat_a, *flat_b])
    pairs = [(name, flat_a.get(name, ABSENT), flat_b.get(name, ABSENT)) for name in names]
    return [{"name": name, "first": x, "second": y} for name, x, y in pairs if x != y]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        parts = [_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items()]
        return {k: v for part in parts for k, v in part.items()}
    return {prefix: value}


def _lines(document: dict[str, Any], first: Path, second: Path) -> list[str]:
    lines = [f"only in {first}: {name}" for name in document["only_first"]]
    lines += [f"only in {second}: {name}" for name in document["only_second"]]
    lines += _section("provenance", document["provenance"])
    for name, row in document["variants"].items():
        for part in ("settings", "inputs", "numbers", "verdict"):
            lines += _section(f"{name}, {part}", row[part])
    return lines or ["no difference"]


def _section(title: str, items: list[dict[str, Any]]) -> list[str]:
    if not items:
        return []
    return [f"{title}:", *(f"  {_text(item)}" for item in items)]


def _text(item: dict[str, Any]) -> str:
    shown = f"{item['name']}: {_shown(item['first'])} -> {_shown(item['second'])}"
    difference = item.get("difference")
    return f"{shown} ({difference:+.4g})" if difference is not None else shown


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else show(value)
