"""The columns of every table, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """One number of one tool."""

    tool: str
    metric: str
    title: str
    digits: int


COLUMNS = (
    Column("adm", "fid", "FID", 2),
    Column("adm", "sfid", "sFID", 2),
    Column("adm", "is", "IS", 2),
    Column("adm", "precision", "Prec.", 4),
    Column("adm", "recall", "Rec.", 4),
    Column("clean_fid", "fid", "clean-fid FID", 2),
    Column("torch_fidelity", "fid", "torch-fidelity FID", 2),
    Column("torch_fidelity", "is", "torch-fidelity IS", 2),
)


def cell(row: dict[str, Any], column: Column) -> str:
    """A number as printed; a dash where there is none."""
    value = row["metrics"].get(column.tool, {}).get(column.metric)
    return ABSENT if value is None else f"{value:.{column.digits}f}"


COSTS = {
    "train_seconds": "training, s",
    "seconds_per_step": "per step, s",
    "sample_seconds": "sampling, s",
    "images_per_second": "images/s",
    "score_seconds": "scoring, s",
}


def costs(row: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, measured value) of a row; a dash where it was not measured."""
    found = row["cost"]
    return [(title, ABSENT if found.get(key) is None else f"{found[key]:.3g}") for key, title in COSTS.items()]
