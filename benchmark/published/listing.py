"""`sra-bench published`: the published rows as text, Markdown or JSON, every number with its source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, Literal

from pydantic import BaseModel

from benchmark.published.comparability import show
from benchmark.published.registry import load_registry
from benchmark.published.schema import METRICS, NO_ADDRESS, Registry, RegistryError, Row
from sra.common.errors import one_of
from sra.common.tables import text_table

Form = Literal["text", "json", "markdown"]
SIZE = ["row", "model", "align", "length", "px", "images"]
COLUMNS = [*SIZE, "FID", "sFID", "IS", "Prec.", "Rec.", "kind", "protocol", "changed"]
LINE = 120
"""Characters."""
MARKS = {"note": "note (!)"}
"""Of kinds of evidence that need a caution."""


def list_published(model: str | None, form: Form = "text") -> str:
    """Rows with source, protocol and settings.

    Args:
        model: only rows of this model, such as `SiT-XL/2`; None: all.
        form: Markdown is one table in which the source of every number is a link.

    Raises:
        RegistryError: no row of that model.
    """
    registry = load_registry()
    models = list(dict.fromkeys(row.model for row in registry.rows))
    if model is not None and model.lower() not in map(str.lower, models):
        raise RegistryError(one_of("--model", model, models))
    rows = [row for row in registry.rows if model is None or row.model.lower() == model.lower()]
    if form == "json":
        return json.dumps(_document(registry, rows), indent=2)
    return _markdown(registry, rows) if form == "markdown" else _text(registry, rows)


def reasons_against(registry: Registry, row: Row) -> list[str]:
    """Why no run can be compared with a row."""
    protocol = registry.protocols[row.protocol]
    reasons = [f"{', '.join(protocol.unknown)} of the sampler: {protocol.note}"] if protocol.unknown else []
    reasons += [reason for reason in (row.unsettled, registry.unsettled_alignments.get(row.align_kind or "")) if reason]
    if why := registry.foreign_alignments.get(row.align_kind or ""):
        reasons.append(f"{row.align_kind}: {why}")
    return reasons


def _document(registry: Registry, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "schema": 2,
        "rows": [_plain_row(registry, row) for row in rows],
        "papers": {
            key: {**_plain(paper), "url": paper.url, "bibtex": paper.bibtex(key)}
            for key, paper in registry.papers.items()
        },
        "spread": [{**_plain(spread), "deviation": spread.deviation} for spread in registry.spread],
        "claims": [
            {**claim.model_dump(mode="json", by_alias=True), "difference": str(registry.printed_change(claim))}
            for claim in registry.claims
        ],
        "changes": [_plain(change) for change in registry.changes],
        "unprinted": [_plain(unprinted) for unprinted in registry.unprinted],
        "cost": {"rows": registry.cost, **_plain(registry.cost_source)},
    }


def _plain_row(registry: Registry, row: Row) -> dict[str, Any]:
    return {
        **_plain(row),
        "metrics": {name: float(value) for name, value in row.printed.items()},
        "printed": {name: str(value) for name, value in row.printed.items()},
        "optimizer_steps": registry.steps(row),
        "images": registry.images(row),
        "settings": _plain(registry.protocols[row.protocol]),
        "training_settings": _plain(registry.training[row.training]) if row.training else None,
        "urls": [url for key in row.papers if (url := registry.papers[key].url)],
        "not_comparable": reasons_against(registry, row),
    }


def _plain(record: BaseModel) -> dict[str, Any]:
    """JSON-ready; decimals as the text that was printed."""
    return record.model_dump(mode="json")


def _cells(registry: Registry, row: Row) -> list[str]:
    align = row.align_kind or "-"
    if isinstance(row.align, dict):
        align = ", ".join([align, *(f"{k} {show(v)}" for k, v in row.align.items() if k != "kind")])
    length = f"{row.epochs} epochs" if row.epochs else f"{row.steps:,}" if row.steps else "-"
    printed = [str(row.printed.get(name, "-")) for name in METRICS]
    size = [str(row.resolution), f"{registry.images(row):,}"]
    kind = MARKS.get(row.kind, row.kind)
    return [row.id, row.model, align, length, *size, *printed, kind, row.protocol, str(row.changed)]


def _markdown(registry: Registry, rows: Sequence[Row]) -> str:
    titles = ["alignment" if title == "align" else title for title in [*COLUMNS, "printed in"]]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        address = registry.address(row)
        source = f"[{row.source}]({address})" if address else f"{row.source} ({NO_ADDRESS})"
        name, *cells = _cells(registry, row)
        lines.append(f"| {' | '.join([f'`{name}`', *cells, source])} |")
    lines += ["", "## Claims", "", "| claim | without | with | metric | difference | printed in |", "|---" * 6 + "|"]
    shown = {row.id for row in rows}
    for claim in registry.claims:
        if claim.with_ in shown:
            names = " | ".join(f"`{name}`" for name in (claim.id, claim.without, claim.with_))
            lines.append(f"| {names} | {claim.metric} | {registry.printed_change(claim):+} | {claim.source} |")
    lines += ["", "## Changes", ""]
    for change in registry.changes:
        lines += wrap(f"- {change.date}: {change.what}", LINE, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)


def _text(registry: Registry, rows: Sequence[Row]) -> str:
    header = [*COLUMNS, "source"]
    table = text_table(header, [[*_cells(registry, row), row.source] for row in rows], left=range(len(header)))
    models = {row.model for row in rows}
    sections = {
        "protocols": [_protocol(registry, name) for name in dict.fromkeys(row.protocol for row in rows)],
        "also printed": [f"{r.id}: {o.metric} {o.value} ({o.source})" for r in rows for o in r.also_printed],
        "never comparable": [f"{row.id}: {reason}" for row in rows for reason in reasons_against(registry, row)],
        "spread": [
            f"{s.what}, {s.model}{f' + {s.align}' if s.align else ''}, {s.metric}: {', '.join(map(str, s.values))} "
            f"({s.source}; {s.url})"
            for s in registry.spread
            if any(s.of(model) for model in models)
        ],
        "claims": [
            f"{c.id}: {c.with_} minus {c.without}: {registry.printed_change(c):+} {c.metric} ({c.source})"
            + (f"; {c.note}" if c.note else "")
            for c in registry.claims
            if registry.row(c.with_) in rows
        ],
        "read in a summary only (!)": [row.id for row in rows if row.kind == "note"],
        "papers": [_paper(registry, key) for key in dict.fromkeys(key for row in rows for key in row.papers)],
    }
    shown = [
        "\n".join(["", f"{title}:", *(f"  {line}" for line in lines)]) for title, lines in sections.items() if lines
    ]
    return "\n".join([table, *shown])


def _protocol(registry: Registry, name: str) -> str:
    protocol = registry.protocols[name]
    settings = protocol.model_dump(exclude={"note", "arithmetic"})
    shown = ", ".join(f"{key} {show(value)}" for key, value in settings.items() if value not in (None, {}))
    return f"{name}: {shown}" + (f" ({protocol.note})" if protocol.note else "")


def _paper(registry: Registry, key: str) -> str:
    paper = registry.papers[key]
    return f"{key}: {paper.title}: {', '.join(filter(None, (paper.url, paper.code))) or NO_ADDRESS}"
