"""DTS + AS: dual timesteps with attention separated by group, for student and teacher (arXiv 2607.02508)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sra.alignment.dual_timestep import DualTimestepSettings, Teacher


@dataclass(frozen=True, kw_only=True)
class Settings(DualTimestepSettings):
    """Settings of DTS + AS; defaults are those of its rows."""

    kind: Literal["dts-as"] = "dts-as"
    teacher: Teacher = "own-times"
    """See `DualTimestepSettings`."""
    separated: bool = True
    """See `DualTimestepSettings`."""
