"""The report as Markdown."""

from __future__ import annotations

from typing import Any

from benchmark.report.columns import COLUMNS, cell, costs


def render(run: dict[str, Any]) -> str:
    """Verdict table first, then each row's reasons, pictures, cost and settings."""
    parts = [f"# {run['name']}", ""]
    if run["headline"]:
        parts += [f"**{run['headline']}**", ""]
    header = ["variant", *(c.title for c in COLUMNS), "verdict"]
    parts += [_line(header), _line(["---", *(["---:"] * len(COLUMNS)), "---"])]
    parts += [_line([r["variant"], *(cell(r, c) for c in COLUMNS), r["verdict"]["status"]]) for r in run["rows"]]
    for row in run["rows"]:
        parts += ["", *_row(row)]
    parts += ["", "## Redo it", "", *(f"    {command}" for command in run["commands"])]
    parts += ["", "## Resolved manifest", "", "```yaml", run["manifest"].rstrip(), "```", ""]
    return "\n".join(parts)


def _row(row: dict[str, Any]) -> list[str]:
    lines = [f"## {row['variant']}: {row['verdict']['status']}", ""]
    lines += [f"- {reason}" for reason in row["verdict"]["reasons"]]
    lines += [f"- {tool} could not run: {text}" for tool, text in row["errors"].items()]
    lines += ["", ", ".join(f"{title}: {value}" for title, value in costs(row))]
    if row["curve"]:
        lines += ["", "| step | images | FID | IS |", "|---:|---:|---:|---:|"]
        for point in row["curve"]:
            score = f"{point['is']:.2f}" if point["is"] is not None else "–"
            lines.append(f"| {point['step']} | {point['images']} | {point['fid']:.2f} | {score} |")
    for key, title in (("grid", "samples"), ("loss_figure", "losses"), ("curve_figure", "FID by step")):
        if row.get(key):
            lines += ["", f"![{title} of {row['variant']}]({row[key]})"]
    return lines


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
