"""`sra-bench check`: one line per row, and an exit code for CI."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmark.published.verdict import COMPARED, RowVerdict, Status
from benchmark.report.collect import load_report
from benchmark.report.model import Report
from benchmark.report.tables import claim_lines, first_reason

ALL_REPRODUCED, NOT_REPRODUCED, NOTHING_COMPARED = 0, 1, 3
"""Exit codes."""


def check(run_directory: Path) -> tuple[str, int]:
    """The verdicts of a run as text, and the exit code: 0 all compared rows hold, 1 one does not, 3 not known.

    Raises:
        UserError: no run there.
    """
    report = load_report(run_directory)
    verdicts = verdicts_of(report)
    lines = []
    for name, verdict in verdicts.items():
        why = f": {first_reason(verdict)}" if verdict.reasons else f" ({verdict.row})" if verdict.row else ""
        caution = f"; caution: {verdict.caution}" if verdict.caution else ""
        lines.append(f"{name}: {verdict.status}{why}{caution}")
    lines += [f"claim: {line.text}" for line in claim_lines(report) if line.claim.claim]
    return "\n".join(lines), exit_code(verdict.status for verdict in verdicts.values())


def verdicts_of(report: Report) -> dict[str, RowVerdict]:
    """The verdict of each variant: for one with several seeds, that on their mean."""
    groups = {name: group for group in report.groups for name in group.runs}
    verdicts = {}
    for row in report.rows:
        group = groups.get(row.variant)
        verdicts[group.variant if group else row.variant] = group.verdict if group else row.verdict
    return verdicts


def exit_code(statuses: Iterable[Status]) -> int:
    """See `check`; a failed row fails the check even if nothing could be compared."""
    found = set(statuses)
    if found & {"worse", "failed"}:
        return NOT_REPRODUCED
    return ALL_REPRODUCED if found & set(COMPARED) and "not finished" not in found else NOTHING_COMPARED
