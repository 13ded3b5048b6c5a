"""`sra-bench published`: the published rows as text, Markdown or JSON, every number with its source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from benchmark.published.comparability import show
from benchmark.published.registry import load_registry
from benchmark.published.schema import METRICS, NO_ADDRESS, Registry, RegistryError, Row
from sra.common.errors import one_of
from sra.common.tables import text_table
from sra.config import ConfigError, settings_class

Form = Literal["text", "json", "markdown"]
COLUMNS = ["row", "model", "align", "length", "px", "images", "FID", "sFID", "IS", "Prec.", "Rec.", "kind", "protocol"]


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
    try:
        if row.align_kind:
            settings_class(row.align_kind)
    except ConfigError as error:
        reasons.append(str(error))
    return reasons


def _document(registry: Registry, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "schema": 1,
        "rows": [_plain_row(registry, row) for row in rows],
        "papers": {
            key: {**_plain(paper), "url": paper.url, "bibtex": paper.bibtex(key)}
            for key, paper in registry.papers.items()
        },
        "spread": [{**_plain(spread), "width": str(spread.width)} for spread in registry.spread],
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
    return [row.id, row.model, align, length, *size, *printed, row.kind, row.protocol]


def _markdown(registry: Registry, rows: Sequence[Row]) -> str:
    titles = ["alignment" if title == "align" else title for title in [*COLUMNS, "printed in"]]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        address = registry.address(row)
        source = f"[{row.source}]({address})" if address else f"{row.source} ({NO_ADDRESS})"
        name, *cells = _cells(registry, row)
        lines.append(f"| {' | '.join([f'`{name}`', *cells, source])} |")
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
            if s.model in models
        ],
        "papers": [_paper(registry, key) for key in dict.fromkeys(key for row in rows for key in row.papers)],
    }
    shown = [
        "\n".join(["", f"{title}:", *(f"  {line}" for line in lines)]) for title, lines in sections.items() if lines
    ]
    return "\n".join([table, *shown])


def _protocol(registry: Registry, name: str) -> str:
    protocol = registry.protocols[name]
    settings = protocol.model_dump(exclude={"note", "arithmetic"})
    shown = ", ".join(f"{key} {show(value)}" for key, value in settings.items())
    return f"{name}: {shown}" + (f" ({protocol.note})" if protocol.note else "")


def _paper(registry: Registry, key: str) -> str:
    paper = registry.papers[key]
    return f"{key}: {paper.title}: {', '.join(filter(None, (paper.url, paper.code))) or NO_ADDRESS}"
