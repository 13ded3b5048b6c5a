"""`sra-bench published`: the registry as text or JSON, every number with where it stands."""

from __future__ import annotations

import json
from dataclasses import asdict
from decimal import Decimal
from typing import Any, Literal

from benchmark.published.comparability import show
from benchmark.published.registry import load_registry
from benchmark.published.schema import METRICS, NO_ADDRESS, Registry, RegistryError, Row, Spread
from sra.common.errors import did_you_mean
from sra.config import ConfigError, settings_class

Form = Literal["text", "json", "markdown"]
TITLES = {"fid": "FID", "sfid": "sFID", "is": "IS", "precision": "Prec.", "recall": "Rec."}


def list_published(model: str | None, form: Form = "text") -> str:
    """Rows with source, protocol and settings.

    Args:
        model: only rows of this model, such as `SiT-XL/2`; None: all.
        form: Markdown is one table in which every number's source is a link.

    Raises:
        RegistryError: no row of that model.
    """
    registry = load_registry()
    models = list(dict.fromkeys(row.model for row in registry.rows))
    if model is not None and model.lower() not in map(str.lower, models):
        raise RegistryError(
            f"--model {model!r}: no published row; allowed: {', '.join(models)}{did_you_mean(model, models)}"
        )
    rows = [row for row in registry.rows if model is None or row.model.lower() == model.lower()]
    if form == "json":
        return json.dumps(_document(registry, rows), indent=2)
    return "\n".join(_markdown(registry, rows) if form == "markdown" else _lines(registry, rows))


def _document(registry: Registry, rows: list[Row]) -> dict[str, Any]:
    return {
        "schema": 1,
        "rows": [_plain_row(registry, row) for row in rows],
        "papers": {
            key: {**_plain(asdict(paper)), "url": paper.url, "bibtex": paper.bibtex(key)}
            for key, paper in registry.papers.items()
        },
        "spread": [{**_plain(asdict(s)), "width": str(s.width)} for s in registry.spread],
        "unprinted": [_plain(asdict(u)) for u in registry.unprinted],
        "cost": {"rows": registry.cost, **_plain(asdict(registry.cost_source))},
    }


def _plain_row(registry: Registry, row: Row) -> dict[str, Any]:
    training = registry.training[row.training] if row.training else None
    return {
        **_plain(asdict(row)),
        "metrics": {name: float(value) for name, value in row.printed.items()},
        "printed": {name: str(value) for name, value in row.printed.items()},
        "optimizer_steps": registry.steps(row),
        "images": registry.images(row),
        "settings": _plain(asdict(registry.protocols[row.protocol])),
        "training_settings": _plain(asdict(training)) if training else None,
        "urls": [url for key in row.papers if (url := registry.papers[key].url)],
        "not_comparable": reasons_against(registry, row),
    }


def reasons_against(registry: Registry, row: Row) -> list[str]:
    """Why nothing can be compared with a row, whatever the run."""
    protocol = registry.protocols[row.protocol]
    reasons = [f"{', '.join(protocol.unknown)} of the sampler: {protocol.note}"] if protocol.unknown else []
    unsettled = registry.unsettled_alignments.get(row.align_kind or "")
    return reasons + [reason for reason in (row.unsettled, unsettled, _unknown(row.align_kind)) if reason]


def _unknown(kind: str | None) -> str | None:
    """Why an alignment cannot be run here."""
    try:
        _ = settings_class(kind) if kind else None
    except ConfigError as error:
        return str(error)
    return None


def _plain(value: Any) -> Any:
    """Decimals as the text that was printed."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Decimal) else value


def _lines(registry: Registry, rows: list[Row]) -> list[str]:
    header = ["row", "model", "align", "length", "px", "images", *TITLES.values(), "kind", "protocol", "source"]
    table = [header, *(_cells(registry, row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in table]
    lines += _section("protocols", _protocols(registry, rows))
    lines += _section(
        "also printed", [f"{r.id}: {o.metric} {o.value} ({o.source})" for r in rows for o in r.also_printed]
    )
    against = [f"{row.id}: {reason}" for row in rows for reason in reasons_against(registry, row)]
    lines += _section("never comparable", against)
    models = {row.model for row in rows}
    spread = [s for s in registry.spread if s.model in models]
    lines += _section("spread", [_spread(s) for s in spread])
    return lines + _section("papers", _papers(registry, rows))


def _markdown(registry: Registry, rows: list[Row]) -> list[str]:
    titles = ["row", "model", "alignment", "length", "px", "images", *TITLES.values(), "kind", "protocol", "printed in"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        name, *cells, _ = _cells(registry, row)
        lines.append(f"| `{name}` | {' | '.join([*cells, _linked(registry, row)])} |")
    return lines


def _linked(registry: Registry, row: Row) -> str:
    address = registry.address(row)
    return f"[{row.source}]({address})" if address else f"{row.source} ({NO_ADDRESS})"


def _cells(registry: Registry, row: Row) -> list[str]:
    align = row.align_kind or "-"
    if isinstance(row.align, dict):
        align = ", ".join([align, *(f"{k} {show(v)}" for k, v in row.align.items() if k != "kind")])
    length = f"{row.epochs} epochs" if row.epochs else f"{row.steps:,}" if row.steps else "-"
    printed = [str(row.printed.get(name, "-")) for name in METRICS]
    size = [str(row.resolution), f"{registry.images(row):,}"]
    return [row.id, row.model, align, length, *size, *printed, row.kind, row.protocol, row.source]


def _protocols(registry: Registry, rows: list[Row]) -> list[str]:
    lines = []
    for name in dict.fromkeys(row.protocol for row in rows):
        settings = {k: v for k, v in asdict(registry.protocols[name]).items() if k not in ("note", "arithmetic")}
        shown = ", ".join(f"{k} {show(v)}" for k, v in settings.items())
        note = registry.protocols[name].note
        lines.append(f"{name}: {shown}" + (f" ({note})" if note else ""))
    return lines


def _spread(spread: Spread) -> str:
    values = ", ".join(map(str, spread.values))
    aligned = f" + {spread.align}" if spread.align else ""
    return f"{spread.what}, {spread.model}{aligned}, {spread.metric}: {values} ({spread.source}; {spread.url})"


def _papers(registry: Registry, rows: list[Row]) -> list[str]:
    lines = []
    for key in dict.fromkeys(key for row in rows for key in row.papers):
        paper = registry.papers[key]
        places = [place for place in (paper.url, paper.code) if place] or [NO_ADDRESS]
        lines.append(f"{key}: {paper.title}: {', '.join(places)}")
    return lines


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []
