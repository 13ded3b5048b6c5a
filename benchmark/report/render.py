"""The report as HTML, Markdown, LaTeX and JSON, from the files in templates/; reads files only."""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context, select_autoescape
from jinja2.runtime import Context
from pydantic import BaseModel

from benchmark.published.schema import NO_ADDRESS
from benchmark.report import figures, tables
from benchmark.report.collect import load_report
from benchmark.report.model import PICTURE_TYPES, Figures, Report, Row
from sra.common.errors import UserError
from sra.common.files import write_bytes

EMBEDDED_BYTES, EMBEDDED_PIXELS = 1_000_000, 1280
"""Larger pictures are made this wide or high inside a page: 64 photographs of 256 px are eight megabytes as PNG."""
TEMPLATES = {"html": "report.html.j2", "md": "report.md.j2", "latex": "report.tex.j2"}
ESCAPED = {c: f"\\{c}" for c in "&%$#_{}"}
NAMED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX = str.maketrans(
    ESCAPED | NAMED | {"–": "--", "±": r"$\pm$", "−": "$-$", "↓": r"$\downarrow$", "↑": r"$\uparrow$"}
)


def write_report(report: Report, out: Path) -> Report:
    """Write report.json, report.md, report.html and the pictures next to them; return what report.json holds.

    Args:
        report: as collected, its pictures given as paths of PNG files.
        out: the report's folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    curves = {
        f"curve_{by}": _write(out, f"fid-by-{by}.svg", figures.curves(report.rows, by)) for by in ("step", "hours")
    }
    rows = [_with_pictures(row, out) for row in report.rows]
    report = report.model_copy(update={"rows": rows, "figures": Figures(**curves)})
    report.write(out / "report.json")
    for format in ("md", "html"):
        write_bytes(out / f"report.{format}", render(report, format, out).encode(errors="backslashreplace"))
    return report


def show_report(run_directory: Path, format: str) -> str:
    """The report of a run as text; collected again and written if the stages exist.

    Args:
        run_directory: of a finished or failed run, on any machine.
        format: `md`, `html`, `json` or `latex`.

    Raises:
        UserError: there is no run.
    """
    report, folder = load_report(run_directory), run_directory / "report"
    if report.figures is not None:
        return render(report, format, folder)
    if os.access(folder if folder.exists() else run_directory, os.W_OK):
        return render(write_report(report, folder), format, folder)
    with tempfile.TemporaryDirectory() as place:
        return render(write_report(report, Path(place)), format, Path(place))


def render(report: Report, format: str, folder: Path) -> str:
    """The report as text.

    Args:
        report: as written, its pictures given as file names.
        format: `md`, `html`, `json` or `latex`.
        folder: of the pictures.
    """
    if format == "json":
        return report.json_text()
    template = environment().get_template(TEMPLATES[format])
    return template.render(report=report, lines=tables.verdict_lines(report), folder=folder)


@functools.cache
def environment() -> Environment:
    """The templates, with the functions and filters that they use."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=select_autoescape(["html.j2"]),
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(tables=tables, no_address=NO_ADDRESS)
    found.filters.update(slug=_slug, cell=_markdown_cell, tex=latex_text, dump=_dump, data_uri=_data_uri)
    return found


def _slug(status: str) -> str:
    return status.replace(",", "").replace(" ", "-")


@pass_context
def _finalized(context: Context, value: Any) -> Any:
    """In Markdown, a value without HTML or links of its own; code is marked as safe."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    if not is_text or not str(context.name).endswith(".md.j2"):
        return value
    return value.replace("<", "&lt;").replace("](", "]\\(")


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def latex_text(text: str) -> str:
    """Text with every special character of LaTeX escaped."""
    return text.translate(LATEX)


def _dump(record: BaseModel) -> str:
    return json.dumps(record.model_dump(mode="json"), indent=2)


def _data_uri(name: str, folder: Path) -> str:
    path = folder / name
    try:
        content, kind = path.read_bytes(), PICTURE_TYPES[path.suffix]
    except OSError as error:
        raise UserError(f"{path}: expected a picture of the report: {error.strerror}") from error
    if path.suffix == ".png" and len(content) > EMBEDDED_BYTES:
        content, kind = _smaller(content), "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _smaller(picture: bytes) -> bytes:
    """A picture as a JPEG for the page; the whole one lies beside it."""
    from PIL import Image

    image, small = Image.open(io.BytesIO(picture)).convert("RGB"), io.BytesIO()
    image.thumbnail((EMBEDDED_PIXELS, EMBEDDED_PIXELS))
    image.save(small, "JPEG", quality=85)
    return small.getvalue()


def _with_pictures(row: Row, out: Path) -> Row:
    """The row with its pictures copied or drawn next to the report, and their file names."""
    names: dict[str, Any] = {
        "grid": _copy(out, f"grid-{row.variant}.png", row.grid),
        "nearest": _copy(out, f"nearest-{row.variant}.png", row.nearest),
        "loss_figure": _write(out, f"losses-{row.variant}.svg", figures.losses(row)),
        "probe_figure": _write(out, f"probe-{row.variant}.svg", figures.probe(row)),
    }
    return row.model_copy(update=names)


def _copy(out: Path, name: str, source: str | None) -> str | None:
    if source is None:
        return None
    shutil.copyfile(source, out / name)
    return name


def _write(out: Path, name: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    write_bytes(out / name, content)
    return name
