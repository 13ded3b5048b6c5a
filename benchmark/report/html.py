"""The report as one self-contained HTML file."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from benchmark.report.columns import COLUMNS, cell, costs

PICTURES = (("grid", "First samples"), ("loss_figure", "Losses"), ("curve_figure", "FID by training step"))


def render(run: dict[str, Any], folder: Path) -> str:
    """HTML with every picture embedded; `folder` holds them."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    template = environment.get_template("report.html.j2")
    rows = [
        {
            **row,
            "cells": [cell(row, column) for column in COLUMNS],
            "costs": costs(row),
            "pictures": [(title, _data_uri(folder / row[key])) for key, title in PICTURES if row.get(key)],
            "provenance_text": json.dumps(row["provenance"], indent=2),
        }
        for row in run["rows"]
    ]
    titles = [column.title for column in COLUMNS]
    provenance = json.dumps(run["provenance"], indent=2)
    return template.render(run=run, rows=rows, titles=titles, provenance=provenance)


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
