"""Plain-text tables for the terminal, and sizes in them."""

from __future__ import annotations

import io
from collections.abc import Sequence

MAX_WIDTH = 10_000
"""Columns of text: a table that is piped into a file must not be cut at the width of a terminal."""


def size_text(size: float) -> str:
    """A number of bytes in MB, or in GB from one on."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Aligned columns, two spaces apart.

    Args:
        header: title of each column; empty: no line of titles.
        rows: cells of each line.
        left: numbers of the columns that are aligned to the left; the others are to the right.
    """
    from rich.console import Console  # rich takes 50 ms to import
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="", show_header=bool(header))
    for number in range(len(rows[0]) if rows else len(header)):
        table.add_column(header[number] if header else "", justify="left" if number in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=MAX_WIDTH, color_system=None, markup=False, highlight=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
