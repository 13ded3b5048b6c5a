"""The report as one self-contained HTML file: no network, light and dark, wide and narrow."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from benchmark.report import view
from benchmark.report.columns import costs

TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def render(run: dict[str, Any], folder: Path) -> str:
    """HTML with every picture embedded; `folder` holds them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["view"] = view
    environment.filters["slug"] = lambda text: text.replace(" ", "-")
    template = environment.get_template("report.html.j2")
    pictures = {name: _data_uri(folder / name) for name in _pictures(run)}
    return template.render(
        run=run,
        lines=view.verdict_table(run),
        numbers=view.numbers(run),
        pictures=pictures,
        costs=costs,
        dump=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    )


def _pictures(run: dict[str, Any]) -> list[str]:
    """File names of all pictures."""
    keys = ("grid", "nearest", "loss_figure", "probe_figure")
    names = [*run["figures"].values(), *(row.get(key) for row in run["rows"] for key in keys)]
    return [name for name in names if name]


def _data_uri(path: Path) -> str:
    return f"data:{TYPES[path.suffix]};base64," + base64.b64encode(path.read_bytes()).decode()
