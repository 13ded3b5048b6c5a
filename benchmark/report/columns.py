"""The columns of every table and how numbers are printed, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """One number of one tool."""

    tool: str
    metric: str
    title: str
    digits: int


PROTOCOL = (
    Column("adm", "fid", "FID", 2),
    Column("adm", "sfid", "sFID", 2),
    Column("adm", "is", "IS", 2),
    Column("adm", "precision", "Prec.", 3),
    Column("adm", "recall", "Rec.", 3),
)
"""What papers print."""
COLUMNS = (
    *PROTOCOL,
    Column("clean_fid", "fid", "clean-fid FID", 2),
    Column("torch_fidelity", "fid", "torch-fidelity FID", 2),
    Column("torch_fidelity", "is", "torch-fidelity IS", 2),
)
OPTIONAL = (Column("adm_torch", "fid", "adm-torch FID", 2), Column("adm_torch", "is", "adm-torch IS", 2))
"""Of a tool that scores only where it is asked to."""
BY_METRIC = {column.metric: column for column in PROTOCOL}


def columns_of(run: dict[str, Any]) -> tuple[Column, ...]:
    """The columns of a report: the common ones, and those of the optional tool where it scored a row."""
    scored = {tool for row in run["rows"] for tool in row["metrics"]}
    return (*COLUMNS, *(column for column in OPTIONAL if column.tool in scored))


def cell(row: dict[str, Any], column: Column) -> str:
    """A number as printed; a dash where there is none."""
    return number(row["metrics"].get(column.tool, {}).get(column.metric), column.digits)


def number(value: float | None, digits: int) -> str:
    """Rounded to decimals; a dash for None."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int) -> str:
    """With its sign, a real minus; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def significant(value: float) -> str:
    """Three significant digits, large numbers in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def around(difference: float, interval: tuple[float, float]) -> tuple[str, str]:
    """A difference and its interval, to two significant digits of the interval's width."""
    width = interval[1] - interval[0]
    digits = min(6, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else 3
    low, high = (signed(value, digits) for value in interval)
    return signed(difference, digits), f"[{low}, {high}]"


def digits_of(metric: str, printed: str | None) -> int:
    """Decimals to show: the column's, or the source's where it prints more."""
    column = BY_METRIC[metric].digits
    if printed is None:
        return column
    exponent = Decimal(printed).as_tuple().exponent
    return max(column, -exponent) if isinstance(exponent, int) else column


COSTS = {
    "seconds_per_step": "s per step",
    "training_hours": "training, h",
    "processes": "processes",
    "device_hours": "device hours",
    "memory_gib": "GPU memory, GiB",
    "sample_seconds": "sampling, s",
    "images_per_second": "images/s",
}


def costs(row: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, measured value) of a row, as far as it was measured."""
    found = row["cost"]
    return [(title, significant(found[key])) for key, title in COSTS.items() if found.get(key) is not None]
