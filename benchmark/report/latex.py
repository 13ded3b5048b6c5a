"""The table as papers print it (needs the booktabs package)."""

from __future__ import annotations

import re
from typing import Any

from benchmark.report.columns import COLUMNS, cell


def render(run: dict[str, Any]) -> str:
    """A `tabular` of the rows; what is not comparable says so in a comment above it."""
    header = ["Variant", *(c.title for c in COLUMNS)]
    lines = [f"% {run['name']}: {run['headline'] or ''}", rf"\begin{{tabular}}{{l{'r' * len(COLUMNS)}}}", r"\toprule"]
    lines += [_line(header), r"\midrule"]
    lines += [_line([row["variant"], *(cell(row, c) for c in COLUMNS)]) for row in run["rows"]]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _line(cells: list[str]) -> str:
    return " & ".join(re.sub(r"([&%$#_{}])", r"\\\1", text).replace("–", "--") for text in cells) + r" \\"
