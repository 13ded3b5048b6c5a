"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.published.schema import NO_ADDRESS
from benchmark.report import view
from benchmark.report.columns import costs

PICTURES = (
    ("grid", "First samples"),
    ("nearest", "Worst and best samples beside their nearest references"),
    ("loss_figure", "Losses"),
    ("probe_figure", "Linear probes"),
)


def render(run: dict[str, Any]) -> str:
    """Verdicts first, then variants beside each other, each row, sources, and how to redo it."""
    parts = [f"# {run['name']}", ""]
    if run["headline"]:
        parts += [f"**{run['headline']}**", ""]
    parts += [f"- {note}" for note in run["notes"]]
    parts += ["## Verdicts", "", *_verdicts(run), "", view.INTERVAL, ""]
    parts += ["## Every tool's numbers", "", *table(*view.numbers(run))]
    parts += _pairs(run)
    for row in run["rows"]:
        parts += ["", *_row(run, row)]
    parts += _sources(run)
    parts += ["", "## Redo it", "", *(f"    {command}" for command in run["commands"])]
    return "\n".join([*parts, "", "## Resolved manifest", "", "```yaml", run["manifest"].rstrip(), "```", ""])


def _verdicts(run: dict[str, Any]) -> list[str]:
    lines = view.verdict_table(run)
    header = ["variant", "verdict", *(cell.title for cell in lines[0].cells), "published row"]
    rows = []
    for line in lines:
        cells = [_cell(cell) for cell in line.cells]
        source = line.source or ""
        if line.urls:
            source = f"[{source}]({line.urls[0]})"
        row = f"{line.row}: {source}" if line.row else "none"
        rows.append([f"— {line.name}" if line.part else line.name, line.status, *cells, row])
    reasons = [f"- {line.name}: {line.why}" for line in lines if line.why]
    return [*table(header, rows), "", *reasons]


def _cell(cell: view.Cell) -> str:
    if cell.difference is None:
        return cell.measured + (f" (published {cell.published})" if cell.published else "")
    return f"{cell.measured} (published {cell.published}, {cell.difference} in {cell.interval}: {cell.status})"


def _pairs(run: dict[str, Any]) -> list[str]:
    if not run["pairs"]:
        return []
    parts = ["", "## Beside each other", ""]
    for pair in run["pairs"]:
        parts += [f"### {pair['with']} against {pair['without']}", "", *(f"- {n}" for n in view.pair_notes(pair)), ""]
        header = ["metric", pair["without"], pair["with"], "difference", "95 % interval"]
        parts += [*table(header, view.pair_metrics(pair)), ""]
        lines = view.pair_costs(pair)
        if lines:
            parts += [*table(["cost", pair["without"], pair["with"], "ratio"], lines), ""]
    for key, title in (("curve_step", "FID by step"), ("curve_hours", "FID by measured hours of training")):
        if run["figures"].get(key):
            parts += [f"![{title}]({run['figures'][key]})", ""]
    return parts


def _row(run: dict[str, Any], row: dict[str, Any]) -> list[str]:
    verdict, against = row["verdict"], view.against(run, row)
    lines = [f"## {row['variant']}: {verdict['status']}", "", *([against, ""] if against else [])]
    lines += [f"- {reason}" for reason in view.reasons(row)]
    lines += [f"- {remark}" for remark in view.remarks(row)]
    if view.terms(row):
        lines += ["", *table(view.TERMS, view.terms(row))]
    if verdict["settings"]:
        lines += ["", f"Settings against {verdict['row']}:", "", *table(view.SETTINGS, view.settings(row))]
    if costs(row):
        lines += ["", "Cost: " + ", ".join(f"{title} {value}" for title, value in costs(row))]
    if view.curve(row):
        lines += ["", *table(view.CURVE, view.curve(row))]
    for key, title in PICTURES:
        if row.get(key):
            lines += ["", f"![{title} of {row['variant']}]({row[key]})"]
    return (
        [*lines, "", "Commands:", "", *(f"    {command}" for command in row["commands"])] if row["commands"] else lines
    )


def _sources(run: dict[str, Any]) -> list[str]:
    if not run["papers"]:
        return []
    parts = ["", "## Sources", ""]
    for paper in run["papers"].values():
        places = [place for place in (paper["url"], paper["code"]) if place] or [NO_ADDRESS]
        parts.append(f"- {paper['title']}: {', '.join(places)}")
    entries = [paper["bibtex"] for paper in run["papers"].values() if paper["bibtex"]]
    return [*parts, "", "```bibtex", "\n\n".join(entries), "```"] if entries else parts


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table: the first column to the left, the others to the right."""
    ruler = ["---", *(["---:"] * (len(header) - 1))]
    return [_line(header), _line(ruler), *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in cells) + " |"
