"""Draw curves as SVG that adapts to light and dark mode."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

from benchmark.report.model import CurvePoint, Row

# (light, dark) of text, grid and each series; colour-blind readers can tell the series apart.
INK, GRID = ("#1c2128", "#e6e9ed"), ("#c9ced6", "#454c56")
SERIES = (
    ("#0072b2", "#58aef0"),
    ("#c2500a", "#ff9350"),
    ("#007a5a", "#3ecf9f"),
    ("#a8447f", "#ea9cca"),
    ("#8a6d00", "#f0c84a"),
    ("#5b4fc9", "#a79cff"),
)
UNITS, MOST = (("seconds", 3600), ("minutes", 60), ("hours", 1)), 600
"""Units of training time and how many are an hour: the first one in which no curve is longer than this."""
DASHES = ("-", "--", ":", "-.")
# matplotlib draws in placeholder colours, which are replaced by CSS variables; the style sheet gives them their values.
_NAMES = {"ink": INK, "grid": GRID, **{f"s{i}": pair for i, pair in enumerate(SERIES)}}
_CODES = {name: f"#0000{16 + i:02x}" for i, name in enumerate(_NAMES)}


def losses(row: Row) -> bytes | None:
    """Generation and alignment loss by step; None without a log."""
    if not row.losses:
        return None
    figure, axes = _figure(f"losses {row.variant}")
    series = {
        "generation": [(p.step, p.generation) for p in row.losses if p.generation is not None],
        "alignment": [(p.step, p.alignment) for p in row.losses if p.alignment is not None],
    }
    for number, (label, points) in enumerate(series.items()):
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2, color=_color(number))
    values = [value for points in series.values() for _, value in points if value > 0]
    if values and max(values) > 10 * min(values):
        axes.set_yscale("log")
    return _svg(figure, axes, "optimizer step", "loss")


def curves(rows: Sequence[Row], by: Literal["step", "hours"]) -> bytes | None:
    """FID of every variant with at least two scored checkpoints; None if there is none.

    Args:
        rows: of the report.
        by: `step`, or `hours` of measured training.
    """
    found = ((row, [(float(x), p) for p in row.curve if (x := getattr(p, by)) is not None]) for row in rows)
    drawn = [(row, points) for row, points in found if len(points) > 1]
    if not drawn:
        return None
    figure, axes = _figure(f"fid by {by}")
    label = "optimizer step"
    if by == "hours":
        longest = max(x for _, points in drawn for x, _ in points)
        unit, per_hour = next(((u, n) for u, n in UNITS if longest * n < MOST), UNITS[-1])
        drawn = [(row, [(x * per_hour, point) for x, point in points]) for row, points in drawn]
        label = f"{unit} of training, measured"
    # One line style and one label for all seeds of a variant.
    groups = list(dict.fromkeys(row.group for row, _ in drawn))
    labelled: set[str] = set()
    for row, points in drawn:
        _curve(axes, points, groups.index(row.group), None if row.group in labelled else row.group)
        labelled.add(row.group)
    axes.set_ylim(bottom=0)
    return _svg(figure, axes, label, "FID")


def _curve(axes: Any, points: Sequence[tuple[float, CurvePoint]], number: int, label: str | None) -> None:
    """One variant; only points of equally many images are joined, and those with fewer than the last are hollow."""
    color, dash = _color(number), DASHES[number // len(SERIES) % len(DASHES)]
    for images in dict.fromkeys(point.images for _, point in points):
        x, y = zip(*((x, p.fid) for x, p in points if p.images == images), strict=True)
        axes.plot(x, y, label=label, color=color, linestyle=dash, linewidth=1.4)
        label = None
    for place, point in points:
        face = color if point.images == points[-1][1].images else "none"
        axes.plot([place], [point.fid], marker="o", markersize=5, color=color, markerfacecolor=face)
        if point.fid_interval:
            axes.plot([place] * 2, point.fid_interval, color=color, linewidth=1.0)


def probe(row: Row) -> bytes | None:
    """Accuracy of linear probes by block, a line for each time; None without probes."""
    if not row.probe:
        return None
    figure, axes = _figure(f"probe {row.variant}")
    for number, t in enumerate(dict.fromkeys(p.t for p in row.probe)):
        points = sorted((p.block, p.accuracy) for p in row.probe if p.t == t)
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=f"t = {t:g}", color=_color(number))
    return _svg(figure, axes, "block", "accuracy of a linear probe")


def _color(number: int) -> str:
    return _CODES[f"s{number % len(SERIES)}"]


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


def _svg(figure: Any, axes: Any, x: str, y: str) -> bytes:
    """The finished figure: labels, few ticks from zero on, a legend where there is more than one line."""
    from matplotlib import pyplot

    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        axes.legend(handles, labels, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = buffer.getvalue().decode()
    for name, code in _CODES.items():
        text = text.replace(code, f"var(--{name})")
    light, dark = ("".join(f"--{name}:{pair[scheme]};" for name, pair in _NAMES.items()) for scheme in (0, 1))
    style = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>\n "
    head, _, rest = text.replace("'DejaVu Sans'", "system-ui").partition("<defs>")
    return f"{head}{style}<defs>{rest}".encode()
