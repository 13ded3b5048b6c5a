"""`sra-bench diff`: the settings, provenance and numbers in which two runs differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from benchmark.published.comparability import show
from benchmark.report.collect import load_report
from benchmark.report.model import Record, Report, Row
from sra.common.validation import json_text

ABSENT = "absent"
SCHEMA = 1


class Change(Record):
    """A value that differs."""

    name: str
    first: Any
    second: Any
    difference: float | None = None
    """Of numbers: second minus first; None if one of them is absent."""

    def text(self) -> str:
        """As one line."""
        values = (f"{value:.6g}" if isinstance(value, float) else show(value) for value in (self.first, self.second))
        return f"{self.name}: {' -> '.join(values)}" + (f" ({self.difference:+.4g})" if self.difference else "")


class Diff(Record):
    """The differences of two runs."""

    schema_: int = Field(serialization_alias="schema")
    first: str
    second: str
    only_first: list[str]
    """Variants that one run alone has."""
    only_second: list[str]
    provenance: list[Change]
    variants: dict[str, dict[str, list[Change]]]
    """By variant, and by `settings`, `inputs`, `numbers` and `verdict`."""

    def text(self) -> str:
        """Everything that differs, a line each."""
        lines = [f"only in {self.first}: {name}" for name in self.only_first]
        lines += [f"only in {self.second}: {name}" for name in self.only_second]
        sections = {f"{name}, {part}": changes for name, row in self.variants.items() for part, changes in row.items()}
        for title, changes in {"provenance": self.provenance, **sections}.items():
            if changes:
                lines += [f"{title}:", *(f"  {change.text()}" for change in changes)]
        return "\n".join(lines) or "no difference"


def compare_runs(first: Path, second: Path, *, as_json: bool) -> str:
    """The differences of two run directories, variant by variant, as text or JSON.

    Raises:
        UserError: one of them holds no run.
    """
    found = differences(load_report(first), load_report(second), str(first), str(second))
    return json_text(found, by_alias=True, exclude_unset=True) if as_json else found.text()


def differences(a: Report, b: Report, first: str, second: str) -> Diff:
    """The differences of two reports, which are called `first` and `second`."""
    rows_a, rows_b = ({row.variant: row for row in report.rows} for report in (a, b))
    sessions = (report.provenance.model_dump(mode="json", exclude={"created"}) for report in (a, b))
    return Diff(
        schema_=SCHEMA,
        first=first,
        second=second,
        only_first=[name for name in rows_a if name not in rows_b],
        only_second=[name for name in rows_b if name not in rows_a],
        provenance=_changes(*sessions),
        variants={name: _row(row, rows_b[name]) for name, row in rows_a.items() if name in rows_b},
    )


def _row(a: Row, b: Row) -> dict[str, list[Change]]:
    numbers = _changes(*(row.model_dump(mode="json", include={"metrics", "cost"}) for row in (a, b)), absent=None)
    return {
        "settings": _changes(a.provenance.settings, b.provenance.settings),
        "inputs": _changes(_inputs(a), _inputs(b)),
        "numbers": [change.model_copy(update={"difference": _difference(change)}) for change in numbers],
        "verdict": _changes({"status": a.verdict.status}, {"status": b.verdict.status}),
    }


def _inputs(row: Row) -> dict[str, Any]:
    """What went in, by content: paths differ between machines and say nothing."""
    found = row.provenance.model_dump(
        mode="json", exclude={"settings", "stages", "training", "sampling"}, exclude_none=True
    )
    return {name: {k: v for k, v in facts.items() if k != "path"} for name, facts in found.items() if facts}


def _difference(change: Change) -> float | None:
    numbers = isinstance(change.first, (int, float)) and isinstance(change.second, (int, float))
    return change.second - change.first if numbers else None


def _changes(a: dict[str, Any], b: dict[str, Any], *, absent: Any = ABSENT) -> list[Change]:
    flat_a, flat_b = _flat(a), _flat(b)
    pairs = [(name, flat_a.get(name, absent), flat_b.get(name, absent)) for name in dict.fromkeys([*flat_a, *flat_b])]
    return [Change(name=name, first=x, second=y) for name, x, y in pairs if x != y]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts, by dotted name."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {k: v for name, inner in value.items() for k, v in _flat(inner, f"{prefix}.{name}".lstrip(".")).items()}
