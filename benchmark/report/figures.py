"""Curves as PNG."""

from __future__ import annotations

import io
from typing import Any


def _figure() -> tuple[Any, Any]:
    import matplotlib as mpl  # half a second that only reports pay

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 3.0), dpi=120, layout="constrained")
    axes.grid(alpha=0.3)
    axes.set_xlabel("optimizer step")
    return figure, axes


def _png(figure: Any) -> bytes:
    from matplotlib import pyplot

    buffer = io.BytesIO()
    # Without the date and version, the same numbers give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()


def losses(row: dict[str, Any]) -> bytes | None:
    """Generation and alignment loss by step; None without a log."""
    rows = row["losses"]
    if not rows:
        return None
    figure, axes = _figure()
    for key in ("generation", "alignment"):
        points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=key, linewidth=1)
    axes.set_ylabel("loss")
    axes.set_yscale("log")
    axes.legend()
    return _png(figure)


def curve(row: dict[str, Any]) -> bytes | None:
    """FID by step; None with fewer than two scored checkpoints."""
    points = row["curve"]
    if len(points) < 2:
        return None
    figure, axes = _figure()
    axes.plot([p["step"] for p in points], [p["fid"] for p in points], marker="o")
    for point in points:
        axes.annotate(f"{point['fid']:.1f} (N = {point['images']})", (point["step"], point["fid"]))
    axes.set_ylabel("FID")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.2)
    return _png(figure)
