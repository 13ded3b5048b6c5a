"""Tables on the terminal."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNLIMITED_COLUMNS = 10_000
"""Width where nobody looks: what is piped or saved is not wrapped."""


def aligned(rows: Iterable[Sequence[str]], header: Sequence[str] = (), right: Sequence[int] = ()) -> str:
    """Rows as aligned columns; on a terminal, cells that are too wide are wrapped.

    Args:
        rows: cells of each row.
        header: titles of the columns; empty: none.
        right: numbers of the columns that are aligned to the right.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    table = Table(box=None, show_header=bool(header), pad_edge=False, padding=(0, 2, 0, 0))
    for number in range(len(cells[0])):
        title = header[number] if header else ""
        table.add_column(title, justify="right" if number in right else "left", overflow="fold", header_style="")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED_COLUMNS
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
