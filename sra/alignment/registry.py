"""Names of the alignments and the module of each. Torch-free, so that manifests load at once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Self

from sra.errors import ConfigError, nearest

# One line an alignment: its module holds `Settings`, and what training calls. The module must not import torch
# at its top: settings are read where torch is not wanted.
MODULES = {
    "sra": "sra.alignment.sra",
}

# pydantic reads this from a plain dataclass: unknown keys are errors, docstrings under fields are descriptions.
STRICT = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """What every alignment's settings have."""

    __pydantic_config__ = STRICT

    kind: str
    """Name in the registry."""

    def resolved(self, family: str, size: str, depth: int) -> Self:
        """The same with every default of this model size filled in.

        Args:
            family: `sit` or `dit`.
            size: `S`, `B`, `L`, `XL` or `custom`.
            depth: number of blocks.

        Raises:
            ConfigError: the setting does not fit the network, or has no default for its size.
        """
        raise NotImplementedError


def settings_class(kind: str) -> type[AlignSettings]:
    """The settings of one alignment.

    Raises:
        ConfigError: no such alignment.
    """
    if kind not in MODULES:
        raise ConfigError(f"unknown alignment {kind!r}: one of {', '.join(MODULES)}, or none{nearest(kind, MODULES)}")
    module: Any = import_module(MODULES[kind])
    settings: type[AlignSettings] = module.Settings
    return settings
