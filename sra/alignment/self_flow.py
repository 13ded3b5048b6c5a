"""Self-Flow: two noise levels in one image, a teacher that sees all tokens at the lower one (arXiv 2603.06507)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sra.alignment.dual_timestep import DualTimestepSettings


@dataclass(frozen=True, kw_only=True)
class Settings(DualTimestepSettings):
    """Settings of Self-Flow; defaults are those of its rows."""

    kind: Literal["self-flow"] = "self-flow"
