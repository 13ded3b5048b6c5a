"""`sra-bench plan --budget`: which rows of all manifests, or of one, can be afforded, from the cost table."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.commands.plan import plan_report
from benchmark.manifest.document import SHIPPED
from benchmark.plan.inputs import examine
from benchmark.plan.prepare import prepare, processes_for
from benchmark.plan.request import RunRequest
from benchmark.plan.stages import SAMPLE, TRAIN
from sra.common.errors import UserError, expected
from sra.common.tables import text_table

MANIFESTS = Path("manifests")
"""Folder of the manifests that are looked through where none is named; the suite's own where it is not there."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class AffordableRow(_Record):
    """One variant with everything that it needs and that is not done."""

    manifest: str
    variant: str
    published: str | None
    gpu_hours: float
    stages_of_unknown_hours: tuple[str, ...]
    fits: bool | None
    """None: what training or sampling costs is not in the table."""


class BudgetReport(_Record):
    """What `plan --budget` shows; `--json` is its dump."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    gpu_hours: float
    """The budget."""
    device: str
    source: str
    """Where the rates come from."""
    rows: tuple[AffordableRow, ...]
    refused: tuple[str, ...]
    """Manifests that cannot be planned here, and why."""


def gpu_hours_of(text: str, processes: int) -> float:
    """A budget in GPU hours: `100gpuh`, or `24h` of all processes.

    Raises:
        UserError: of another form.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gpuh|h)", text.strip().lower())
    if found is None or not float(found[1]):
        raise UserError(expected("--budget", "hours such as 24h, or GPU hours such as 100gpuh", text))
    return float(found[1]) * (processes if found[2] == "h" else 1)


def manifests_of(manifest: Path | None) -> list[Path]:
    """The given manifest, or every one of the folder `manifests`.

    Raises:
        UserError: there is none.
    """
    found = [manifest] if manifest else sorted((MANIFESTS if MANIFESTS.is_dir() else SHIPPED).glob("*.yaml"))
    if not found:
        raise UserError(f"--budget: expected a manifest, or a folder {MANIFESTS} here with some")
    return found


def show_budget(requests: Sequence[RunRequest], budget: str, *, as_json: bool) -> str:
    """The rows that a budget allows, cheapest first, then the others.

    Args:
        requests: one a manifest; of several, those that cannot be planned here are named.
        budget: see `gpu_hours_of`.
        as_json: as JSON.

    Raises:
        UserError: bad input, in one line.
    """
    report = _budget_report(requests, budget)
    if as_json:
        return report.model_dump_json(by_alias=True, indent=2)
    header = ["fits", "GPU hours", "manifest", "variant", "published row", "not in the table"]
    lines = [
        [
            {True: "yes", False: "no", None: "not known"}[row.fits],
            f"{row.gpu_hours:,.1f}",
            Path(row.manifest).name,
            row.variant,
            row.published or "-",
            ", ".join(row.stages_of_unknown_hours) or "-",
        ]
        for row in report.rows
    ]
    fitting = sum(row.fits is True for row in report.rows)
    return "\n".join(
        [
            text_table(header, lines, left=(0, 2, 3, 4, 5)),
            f"{fitting} of {len(lines)} rows fit in {report.gpu_hours:,.1f} hours of one {report.device} each, "
            f"as far as the table says; hours {report.source}",
            *(f"refused: {text}" for text in report.refused),
        ]
    )


def _budget_report(requests: Sequence[RunRequest], budget: str) -> BudgetReport:
    limit = gpu_hours_of(budget, processes_for(requests[0].processes))
    rows: list[AffordableRow] = []
    refused, source, device = [], "", ""
    look = functools.cache(examine)
    for one in requests:
        try:
            prepared = prepare(one, look=look)
        except UserError as error:
            if len(requests) == 1:
                raise
            refused.append(str(error))
            continue
        report = plan_report(prepared)
        source, device = report.cost.source, report.cost.device
        for run in prepared.plan.loaded.runs:
            pending = [row for row in report.stages if run.variant in row.variants and row.state != "done"]
            hours = sum(row.gpu_hours or 0.0 for row in pending)
            unknown = dict.fromkeys(row.kind for row in pending if row.gpu_hours is None)
            fits = None if {TRAIN.name, SAMPLE.name} & unknown.keys() else hours <= limit
            rows.append(
                AffordableRow(
                    manifest=str(one.manifest),
                    variant=run.variant,
                    published=run.published,
                    gpu_hours=hours,
                    stages_of_unknown_hours=tuple(unknown),
                    fits=fits,
                )
            )
    ordered = sorted(rows, key=lambda row: (row.fits is None, not row.fits, row.gpu_hours))
    return BudgetReport(gpu_hours=limit, device=device, source=source, rows=tuple(ordered), refused=tuple(refused))
