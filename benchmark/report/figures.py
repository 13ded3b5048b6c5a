"""Curves as SVG that follows the reader's light or dark setting, alone or in a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

# (light, dark) of text, grid, and each series; chosen to differ for colour-blind readers, too.
INK, GRID = ("#1c2128", "#e6e9ed"), ("#c9ced6", "#454c56")
SERIES = (
    ("#0072b2", "#58aef0"),
    ("#c2500a", "#ff9350"),
    ("#007a5a", "#3ecf9f"),
    ("#a8447f", "#ea9cca"),
    ("#8a6d00", "#f0c84a"),
    ("#5b4fc9", "#a79cff"),
)
DASHES = ("-", "--", ":", "-.")
# matplotlib draws in colours that stand for CSS variables; the file's style sheet gives them their values.
_NAMES = {"ink": INK, "grid": GRID, **{f"s{i}": pair for i, pair in enumerate(SERIES)}}
_CODES = {name: f"#0000{16 + i:02x}" for i, name in enumerate(_NAMES)}


def losses(row: dict[str, Any]) -> bytes | None:
    """Generation and alignment loss by step; None without a log."""
    rows = row["losses"]
    if not rows:
        return None
    figure, axes = _figure(f"losses {row['variant']}")
    for number, key in enumerate(("generation", "alignment")):
        points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=key, linewidth=1.2, color=_CODES[f"s{number}"])
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    _scale(axes, [r[key] for r in rows for key in ("generation", "alignment") if r.get(key) is not None])
    _finish(axes)
    return _svg(figure)


def curves(rows: Sequence[dict[str, Any]], by: str) -> bytes | None:
    """FID of every variant with two scored checkpoints or more; None where there is no such.

    Args:
        rows: of the report.
        by: `step`, or `hours` of measured training.
    """
    drawn = [row for row in rows if len([p for p in row["curve"] if p[by] is not None]) > 1]
    if not drawn:
        return None
    figure, axes = _figure(f"fid by {by}")
    groups = list(dict.fromkeys(row["group"] for row in drawn))
    labelled: set[str] = set()
    for row in drawn:
        # One line style and one name for all seeds of a variant.
        label = None if row["group"] in labelled else row["group"]
        labelled.add(row["group"])
        _curve(axes, row, by, groups.index(row["group"]), label)
    axes.set_xlabel("optimizer step" if by == "step" else "hours of training, measured")
    axes.set_ylabel("FID")
    axes.set_ylim(bottom=0)
    _finish(axes)
    return _svg(figure)


def probe(row: dict[str, Any]) -> bytes | None:
    """Accuracy of linear probes by block, a line for each time; None without probes."""
    if not row["probe"]:
        return None
    figure, axes = _figure(f"probe {row['variant']}")
    for number, t in enumerate(dict.fromkeys(r["t"] for r in row["probe"])):
        points = sorted((r["block"], r["accuracy"]) for r in row["probe"] if r["t"] == t)
        color = _CODES[f"s{number % len(SERIES)}"]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=f"t = {t:g}", color=color)
    axes.set_xlabel("block")
    axes.set_ylabel("accuracy of a linear probe")
    _finish(axes)
    return _svg(figure)


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Logarithmic where the values span more than a decade."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 10 * min(positive):
        axes.set_yscale("log")


def _curve(axes: Any, row: dict[str, Any], by: str, number: int, label: str | None) -> None:
    """One variant; hollow where fewer images were scored than at the end."""
    points = [p for p in row["curve"] if p[by] is not None]
    color, most = _CODES[f"s{number % len(SERIES)}"], points[-1]["images"]
    dash = DASHES[number // len(SERIES) % len(DASHES)]
    x, y = [p[by] for p in points], [p["fid"] for p in points]
    axes.plot(x, y, label=label, color=color, linestyle=dash, linewidth=1.4)
    for point in points:
        filled = point["images"] == most
        face = color if filled else "none"
        axes.plot([point[by]], [point["fid"]], marker="o", markersize=5, color=color, markerfacecolor=face)
        if point["fid_interval"]:
            axes.plot([point[by]] * 2, point["fid_interval"], color=color, linewidth=1.0)


def _figure(name: str) -> tuple[Any, Any]:
    import matplotlib as mpl  # half a second that only reports pay

    mpl.use("Agg")
    from matplotlib import pyplot

    ink, grid = _CODES["ink"], _CODES["grid"]
    style = {
        "svg.fonttype": "none",
        # Ids are made of this: the same numbers give the same bytes.
        "svg.hashsalt": name,
        "font.size": 11,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": grid,
        "xtick.color": ink,
        "ytick.color": ink,
        "legend.frameon": False,
    }
    mpl.rcParams.update(style)
    figure, axes = pyplot.subplots(figsize=(5.6, 3.3), layout="constrained")
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.grid(color=grid, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _finish(axes: Any) -> None:
    """Few ticks from zero on, and a legend where there is something to tell apart."""
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        axes.legend(handles, labels, fontsize=10)


def _svg(figure: Any) -> bytes:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = buffer.getvalue().decode()
    for name, code in _CODES.items():
        text = text.replace(code, f"var(--{name})")
    text = text.replace("'DejaVu Sans'", "system-ui")
    head, _, rest = text.partition("<defs>")
    return f"{head}{_style()}<defs>{rest}".encode()


def _style() -> str:
    light, dark = ("".join(f"--{name}:{pair[scheme]};" for name, pair in _NAMES.items()) for scheme in (0, 1))
    return f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>\n "
