"""`sra-bench site`: a static site of bundles; each is verified again while its pages are made.

index.html                 every scored row of every bundle, and every claim
reproductions.json         the same rows as data
rows/<id>.html             one published row: all reproductions of it, and their spread
bundles/<hash>/            the report of one bundle, and what its verification said
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmark.published.verdict import COMPARED, TOOL
from benchmark.report import tables
from benchmark.report.model import PublishedRow, Report, Row
from benchmark.report.render import environment, write_report
from benchmark.report.verify import NOT_PROVED, SOUND, examine
from sra.common.errors import UserError, expected
from sra.common.files import check_place, write_bytes, write_json

STATES = {SOUND: "verified", NOT_PROVED: "not proved"}
REFUSED = "does not verify"
SHOWN = ("fid", "is")
"""Metrics of the table; the others stand in the reports."""
DIGEST_CHARACTERS = 12
"""Of a bundle's hash, in names of pages."""


@dataclass(frozen=True)
class Entry:
    """One line of the table: a row of a report."""

    bundle: Bundle
    line: tables.Line
    again: Bundle | None = None
    """An earlier bundle that has the same samples: then this entry does not count a second time."""

    @property
    def row(self) -> Row:
        """Of the report."""
        return self.line.row

    @property
    def counts(self) -> bool:
        """Whether it is a reproduction: proved by its bundle, compared, and not listed before."""
        return self.bundle.state == "verified" and self.row.verdict.status in COMPARED and not self.again

    @property
    def record(self) -> dict[str, Any]:
        """The line as data."""
        row, report = self.row, self.bundle.report
        return {
            "published": row.published.id if row.published else None,
            "variant": row.variant,
            "what": row.what,
            "bundle": self.bundle.digest,
            "state": self.bundle.state,
            "counts": self.counts,
            "verdict": row.verdict.status,
            **row.adm,
            "intervals": row.intervals.get(TOOL, {}),
            "device_hours": row.cost.device_hours,
            "machines": report.machines if report else [],
            "page": f"{self.bundle.page}/report.html#{row.variant}",
        }


@dataclass(frozen=True)
class Bundle:
    """One archive."""

    file: str
    state: str
    """`verified`, `not proved`, `does not verify`."""
    findings: str
    """What verification said, a line each."""
    digest: str = ""
    report: Report | None = None

    @property
    def page(self) -> str:
        """Folder of its pages; empty where no report could be read."""
        return f"bundles/{self.digest[:DIGEST_CHARACTERS]}" if self.report else ""

    @property
    def name(self) -> str:
        """Of the run, or of the file."""
        return self.report.name if self.report else self.file


@dataclass(frozen=True)
class Reproductions:
    """All entries of one published row."""

    row: PublishedRow
    entries: list[Entry]

    @property
    def counted(self) -> int:
        """How many of them are reproductions."""
        return sum(entry.counts for entry in self.entries)

    @property
    def spread(self) -> list[list[str]]:
        """Metric, printed value, number of entries that count; their mean, deviation, smallest and largest."""
        found = []
        for column in tables.PRINTED_METRICS:
            measured = (entry.row.value(TOOL, column.metric) for entry in self.entries if entry.counts)
            if values := [value for value in measured if value is not None]:
                spread = stdev(values) if len(values) > 1 else None
                numbers = (fmean(values), spread, min(values), max(values))
                shown = (tables.number(value, column.digits) for value in numbers)
                printed = self.row.metrics.get(column.metric, tables.ABSENT)
                found.append([column.heading, printed, str(len(values)), *shown])
        return found


def make_site(bundles: Sequence[Path], out: Path) -> str:
    """Verify bundles and write the site; returns what to print.

    Args:
        bundles: archives; one that cannot be read is listed with the reason.
        out: the site's folder; pages of an earlier one are replaced.

    Raises:
        UserError: no bundle was given, or `out` cannot be written.
    """
    if not bundles:
        raise UserError(expected("site", "one or more archives made by sra-bench bundle", "none"))
    check_place(out / "index.html", "--out")
    found: dict[str, Bundle] = {}
    for number, path in enumerate(bundles):
        bundle = _examined(path, out)
        found.setdefault(bundle.digest or f"unread {number}", bundle)
    entries = list(_entries(found.values()))
    published = {entry.row.published.id: entry.row.published for entry in entries if entry.row.published}
    rows = [
        Reproductions(row, [e for e in entries if e.row.published and e.row.published.id == name])
        for name, row in sorted(published.items())
    ]
    shared = {"bundles": list(found.values()), "rows": rows, "columns": [tables.BY_METRIC[metric] for metric in SHOWN]}
    write_json(out / "reproductions.json", [entry.record for entry in entries])
    _write(out / "index.html", "site.html.j2", root="", only=None, entries=entries, **shared)
    for row in rows:
        _write(out / "rows" / f"{row.row.id}.html", "site.html.j2", root="../", only=row, entries=row.entries, **shared)
    states = [bundle.state for bundle in found.values()] + ["given twice"] * (len(bundles) - len(found))
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{out / 'index.html'}: {len(bundles)} bundles ({counted}), {sum(e.counts for e in entries)} reproductions"


def _examined(path: Path, out: Path) -> Bundle:
    """Verify one archive, and write the pages of its report."""
    name = path.resolve().name
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = examine(path, Path(folder))
            state = STATES.get(found.code, REFUSED)
            bundle = Bundle(name, state, found.findings.text(), found.contents.digest, found.report)
            if found.report is not None:
                write_report(found.report, out / bundle.page)
                for file in (out / bundle.page).glob("report.*"):
                    write_bytes(file, file.read_bytes().replace(f"{folder}/".encode(), b""))
    except UserError as error:
        return Bundle(name, REFUSED, str(error).replace(str(path), name))
    if bundle.report is not None:
        _write(out / bundle.page / "index.html", "site_bundle.html.j2", root="../../", bundle=bundle)
    return bundle


def _entries(bundles: Iterable[Bundle]) -> Iterator[Entry]:
    """A line for every row; one whose samples an earlier verified bundle has is marked."""
    seen: dict[tuple[str, str | None], Bundle] = {}
    for bundle in bundles:
        for line in tables.verdict_lines(bundle.report) if bundle.report else ():
            if line.name != line.row.variant:
                continue  # the mean over seeds, which have lines of their own
            samples, published = line.row.provenance.samples, line.row.published
            again = None
            if samples and samples.sha256 and bundle.state == "verified":
                first = seen.setdefault((samples.sha256, published.id if published else None), bundle)
                again = first if first is not bundle else None
            yield Entry(bundle, line, again)


def _write(path: Path, template: str, **values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, environment().get_template(template).render(**values).encode(errors="backslashreplace"))
