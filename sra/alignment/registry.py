"""Names of the alignments and the module of each. Torch-free, so that manifests load at once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sra.common.errors import ConfigError, one_of

if TYPE_CHECKING:
    from sra.alignment.protocol import Alignment

# One line an alignment: its module holds `Settings`, whose `build` gives what training calls. The module must not
# import torch at its top: settings are read where torch is not wanted.
MODULES = {
    "sra": "sra.alignment.sra",
    "sra2": "sra.alignment.sra2",
    "self-flow": "sra.alignment.self_flow",
    "dts-as": "sra.alignment.dts_as",
}

# pydantic reads this from a plain dataclass: unknown keys are errors, docstrings under fields are descriptions.
STRICT = {"extra": "forbid", "use_attribute_docstrings": True, "allow_inf_nan": False}


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """What settings of an alignment may depend on."""

    family: str
    """`sit` or `dit`."""
    size: str
    """`S`, `B`, `L`, `XL` or `custom`."""
    depth: int
    """Number of blocks."""
    tokens: int
    """Tokens T of one image."""


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """What every alignment's settings have."""

    __pydantic_config__ = STRICT
    needs_teacher: ClassVar[bool] = True
    """Whether training keeps the averaged network at hand for it."""

    kind: str
    """Name in the registry."""

    def resolved(self, network: NetworkFacts) -> Self:
        """The same with every default of this network filled in.

        Raises:
            ConfigError: the setting does not fit the network, or has no default for its size.
        """
        raise NotImplementedError

    def build(self, resolution: int) -> Alignment:
        """What training calls; the settings must be resolved.

        Args:
            resolution: image edge in pixels (schedules of some public code depend on it).
        """
        raise NotImplementedError


def settings_class(kind: str) -> type[AlignSettings]:
    """The settings of one alignment.

    Raises:
        ConfigError: no such alignment.
    """
    if kind not in MODULES:
        raise ConfigError(one_of("align", kind, [*MODULES, "none"]))
    module: Any = import_module(MODULES[kind])
    settings: type[AlignSettings] = module.Settings
    return settings


def check_blocks(blocks: tuple[int, int] | None, network: NetworkFacts) -> tuple[int, int]:
    """Student's and teacher's block, given or by default.

    Raises:
        ConfigError: there is no default, or the blocks do not fit the depth.
    """
    if blocks is None:
        raise ConfigError(
            f"align.blocks has no published default for {network.family} of size {network.size!r}: give [m, n]"
        )
    m, n = blocks
    if not 1 <= m <= n <= network.depth:
        raise ConfigError(f"align.blocks must satisfy 1 <= m <= n <= {network.depth} (depth), found [{m}, {n}]")
    return blocks


def check_weight(weight: float) -> None:
    """Refuse a negative weight.

    Raises:
        ConfigError: it is negative.
    """
    if weight < 0:
        raise ConfigError(f"weight must not be negative, found {weight}")
