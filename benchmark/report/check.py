"""`sra-bench check`: one line a row, and an exit code for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.published.verdict import COMPARED
from benchmark.report.collect import load_report

HOLDS, BROKEN, NOTHING = 0, 1, 3


def check(run_directory: Path) -> tuple[str, int]:
    """What the verdicts of a run say, and the exit code: 0 every compared row holds, 1 one does not, 3 none compared.

    Raises:
        UserError: no run there.
    """
    rows = judged_rows(load_report(run_directory))
    lines = [f"{name}: {verdict['status']}{_why(verdict)}" for name, verdict in rows]
    return "\n".join(lines), exit_code([verdict["status"] for _, verdict in rows])


def judged_rows(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name, verdict) of what counts: the mean over its seeds for a variant that has several."""
    grouped = {name: group for group in report["groups"] for name in group["runs"]}
    found: dict[str, dict[str, Any]] = {}
    for row in report["rows"]:
        group = grouped.get(row["variant"])
        found[group["variant"] if group else row["variant"]] = group["verdict"] if group else row["verdict"]
    return list(found.items())


def exit_code(statuses: list[str]) -> int:
    """See `check`; a failed row breaks a check even where nothing could be compared."""
    if any(status in ("worse", "failed") for status in statuses):
        return BROKEN
    return HOLDS if any(status in COMPARED for status in statuses) else NOTHING


def _why(verdict: dict[str, Any]) -> str:
    reasons = verdict["reasons"]
    if not reasons:
        return f" ({verdict['row']})" if verdict["row"] else ""
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return f": {reasons[0]}{more}"
