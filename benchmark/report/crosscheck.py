"""FIDs of one sample set by several tools, compared with each other.

The tools see the same images through the same network, each with its own code, so their FIDs must agree as far as their
definitions do. The other modes of clean-fid resize differently and are not compared; nor is a FID against the
statistics stored in the reference file with one against the images of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evaluator.tools.score_record import AdmSettings, CleanFidSettings, ScoreRecord

STORED, IMAGES = "the reference's stored statistics", "the reference's images"
TOLERANCES = {
    # Summation order of the same protocol with the same weights.
    "adm": 1e-3,
    "adm-torch": 1e-3,
    # Exactly the resize of the TensorFlow graph.
    "torch-fidelity": 1e-3,
    # Its own resize inside the network.
    "clean-fid": 1e-2,
}
"""By tool: relative difference of FID that its definition explains."""
ROUNDING = 1e-3
"""Absolute difference of FID that float32 features explain."""


@dataclass(frozen=True)
class Value:
    """A FID by one tool."""

    tool: str
    fid: float
    against: str
    """STORED or IMAGES."""

    def tolerance(self, other: Value) -> float:
        """The difference from another FID that the definitions of both tools explain."""
        return max(TOLERANCES[self.tool], TOLERANCES[other.tool]) * max(abs(self.fid), abs(other.fid)) + ROUNDING


def disagreements(records: Mapping[str, ScoreRecord]) -> list[str]:
    """One sentence for every FID that differs from that of the first tool by more than the definitions explain.

    Args:
        records: by tool.
    """
    values = [value for tool in TOLERANCES if tool in records for value in _values(tool, records[tool])]
    found = []
    for against in (STORED, IMAGES):
        comparable = [value for value in values if value.against == against]
        for other in comparable[1:]:
            first = comparable[0]
            if abs(first.fid - other.fid) > first.tolerance(other):
                found.append(
                    f"FID against {against}: {other.fid:.6g} by {other.tool}, {first.fid:.6g} by {first.tool}; they "
                    f"differ by {abs(first.fid - other.fid):.3g}, of which {first.tolerance(other):.3g} is explained"
                )
    return found


def _values(tool: str, record: ScoreRecord) -> Iterator[Value]:
    settings, name, against = record.settings, "fid", IMAGES
    if isinstance(settings, AdmSettings) and settings.stored_statistics:
        against = STORED
    if isinstance(settings, CleanFidSettings):
        resize = settings.modes["clean"].resize if "clean" in settings.modes else None
        name = "fid" if resize == "none needed" else "fid_legacy_tensorflow"
    for metric, reference in ((name, against), ("fid_images", IMAGES)):
        if metric in record.metrics:
            yield Value(tool, record.metrics[metric], reference)
