"""Rows to Markdown, HTML, JSON and LaTeX. Reads files only; needs no GPU."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmark.report import figures, html, latex, markdown, view
from benchmark.report.collect import load_report
from benchmark.report.columns import cell, columns_of
from sra.common.files import write_bytes, write_json

__all__ = ["render", "show_report", "table", "write_report"]


def write_report(run: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write report.json, report.md, report.html and the pictures beside them; returns what report.json holds.

    Args:
        run: the report's data; grids and nearest references are paths of PNG files.
        out: the report's folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = {**run, "rows": [_with_pictures(row, out) for row in run["rows"]], "figures": _curves(run, out)}
    write_json(out / "report.json", run)
    for name in ("md", "html"):
        write_bytes(out / f"report.{name}", render(run, name, out).encode())
    return run


def show_report(run_directory: Path, format: str) -> str:
    """The report of a run as text; made anew from its stages where they are, and then written, too.

    Args:
        run_directory: of a finished or failed run, on any machine.
        format: `md`, `html`, `json` or `latex`.

    Raises:
        UserError: there is no run.
    """
    document, folder = load_report(run_directory), run_directory / "report"
    if "figures" in document:
        return render(document, format, folder)
    if os.access(folder if folder.exists() else run_directory, os.W_OK):
        return render(write_report(document, folder), format, folder)
    with tempfile.TemporaryDirectory() as place:
        return render(write_report(document, Path(place)), format, Path(place))


def _with_pictures(row: dict[str, Any], out: Path) -> dict[str, Any]:
    """The row with its pictures beside the report, named relative to it."""
    pictures: dict[str, str | None] = {"grid": None, "nearest": None}
    for key in pictures:
        if row.get(key):
            pictures[key] = f"{key}-{row['variant']}.png"
            shutil.copyfile(row[key], out / str(pictures[key]))
    pictures["loss_figure"] = _written(out, f"losses-{row['variant']}.svg", figures.losses(row))
    pictures["probe_figure"] = _written(out, f"probe-{row['variant']}.svg", figures.probe(row))
    return {**row, **pictures}


def _curves(run: dict[str, Any], out: Path) -> dict[str, str | None]:
    return {
        f"curve_{by}": _written(out, f"fid-by-{by}.svg", figures.curves(run["rows"], by)) for by in ("step", "hours")
    }


def _written(out: Path, name: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    write_bytes(out / name, content)
    return name


def render(run: dict[str, Any], format: str, folder: Path) -> str:
    """The report as text; `folder` holds the pictures.

    Args:
        run: the report's data.
        format: `md`, `html`, `json` or `latex`.
        folder: of report.json and the pictures.
    """
    if format == "json":
        return json.dumps(run, indent=2)
    if format == "html":
        return html.render(run, folder)
    return markdown.render(run) if format == "md" else latex.render(run)


def table(run: dict[str, Any]) -> str:
    """A compact plain-text table for the terminal."""
    columns = columns_of(run)
    header = ["variant", *(column.title for column in columns), "verdict"]
    rows = [[row["variant"], *(cell(row, c) for c in columns), row["verdict"]["status"]] for row in run["rows"]]
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(text.rjust(w) if i else text.ljust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True)))
        for line in [header, *rows]
    ]
    remarks = [f"{row['variant']}: {text}" for row in run["rows"] for text in (*view.reasons(row), *view.remarks(row))]
    return "\n".join(["", *lines, "", *remarks, *curve_lines(run)])


def curve_lines(run: dict[str, Any]) -> list[str]:
    """FID by training step, where several checkpoints were scored."""
    lines = []
    for row in run["rows"]:
        if len(row["curve"]) > 1:
            points = ", ".join(f"{p['fid']:.2f} at step {p['step']} ({p['images']} images)" for p in row["curve"])
            lines.append(f"{row['variant']}: FID {points}")
    return lines
