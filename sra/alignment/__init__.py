"""Alignment losses of SRA and its successors; their settings are in `sra.config.alignment`.

`base` is the interface; `sra`, `sra2`, `dual_timestep` (Self-Flow, DTS-AS), `layersync` and `dispersive` are the
losses; `distances` compares features.
"""

from __future__ import annotations

from sra.alignment.base import Alignment
from sra.alignment.dispersive import Dispersive
from sra.alignment.dual_timestep import DualTimestep
from sra.alignment.layersync import LayerSync
from sra.alignment.sra import SelfRepresentation
from sra.alignment.sra2 import CleanLatent
from sra.config import AlignSettings

LOSSES: dict[str, type[Alignment]] = {
    "sra": SelfRepresentation,
    "sra2": CleanLatent,
    "self-flow": DualTimestep,
    "dts-as": DualTimestep,
    "layersync": LayerSync,
    "dispersive": Dispersive,
}
"""Loss of each alignment, by the `kind` of its settings; called with the settings and the resolution in pixels."""


def build_alignment(settings: AlignSettings, resolution: int) -> Alignment:
    """The loss of an alignment.

    Args:
        settings: resolved for the network.
        resolution: image edge in pixels (schedules of some public code depend on it).
    """
    return LOSSES[settings.kind](settings, resolution)
