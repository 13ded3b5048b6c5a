"""FIDs of one sample set by several tools, held against each other: records in, sentences out.

The tools see the same images through the same network, each by its own code, so their FIDs must agree as far as their
definitions do. clean-fid's other modes resize differently and are not compared; nor is a FID against statistics that
the reference file stores with one against the reference's own images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

STORED, IMAGES = "the reference's stored statistics", "the reference's images"
TOLERANCES = {
    # Summation order of one protocol on one set of weights.
    "adm": 1e-3,
    "adm-torch": 1e-3,
    # The TensorFlow graph's resize, exactly.
    "torch-fidelity": 1e-3,
    # A resize of its own inside the network.
    "clean-fid": 1e-2,
}
"""Relative difference of FID that a tool's definition explains."""
ROUNDING = 1e-3
"""Absolute difference of FID that float32 features explain."""


@dataclass(frozen=True)
class Value:
    """A FID, whose it is, and what it was held against."""

    tool: str
    fid: float
    against: str


def disagreements(records: dict[str, dict[str, Any]]) -> list[str]:
    """One sentence for every FID that differs from the first tool's by more than the definitions explain.

    Args:
        records: by tool (`adm`, `adm-torch`, `clean-fid`, `torch-fidelity`), as the tools wrote them.
    """
    values = [value for tool in TOLERANCES if tool in records for value in _values(tool, records[tool])]
    found = []
    for against in (STORED, IMAGES):
        comparable = [value for value in values if value.against == against]
        found += [_sentence(comparable[0], other) for other in comparable[1:] if _differ(comparable[0], other)]
    return found


def _values(tool: str, record: dict[str, Any]) -> Iterator[Value]:
    metrics, settings = record.get("metrics", {}), record.get("settings", {})
    against = STORED if settings.get("stored_statistics") else IMAGES
    unresized = settings.get("modes", {}).get("clean", {}).get("resize") == "none needed"
    name = "fid_legacy_tensorflow" if tool == "clean-fid" and not unresized else "fid"
    for metric, reference in ((name, against), ("fid_images", IMAGES)):
        if metrics.get(metric) is not None:
            yield Value(tool, metrics[metric], reference)


def _allowed(a: Value, b: Value) -> float:
    return max(TOLERANCES[a.tool], TOLERANCES[b.tool]) * max(abs(a.fid), abs(b.fid)) + ROUNDING


def _differ(a: Value, b: Value) -> bool:
    return not abs(a.fid - b.fid) <= _allowed(a, b)


def _sentence(a: Value, b: Value) -> str:
    return (
        f"FID against {a.against}: {b.fid:.6g} by {b.tool}, {a.fid:.6g} by {a.tool}; they differ by "
        f"{abs(a.fid - b.fid):.3g}, and their definitions explain {_allowed(a, b):.3g}"
    )
