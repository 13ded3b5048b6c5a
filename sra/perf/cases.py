"""Networks, modes and alignments to measure, from command-line options."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Literal

from sra.common.errors import ConfigError, expected
from sra.config import SIZES, SRA_BLOCKS, AlignSettings, CodecConfig, ModelConfig, parse_model_name, settings_class
from sra.runtime.speed import REFERENCE, VARIABLE, Speed, parse_speed


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A way to compute the same numbers."""

    name: str
    speed: Speed
    reference: bool
    """Whether to do as the authors' code also beyond the switches: a file per latent, PNG files, a float32 teacher."""


def mode_of(text: str, device: str) -> Mode:
    """Mode `fast` or `reference`, with switches after a colon: `reference:ema=foreach,teacher=needed`.

    Raises:
        ConfigError: unknown mode or switch.
    """
    name, _, switches = text.partition(":")
    if name not in ("fast", "reference"):
        raise ConfigError(expected("--mode", "fast or reference, with switches after a colon", text))
    start = REFERENCE if name == "reference" else parse_speed(os.environ.get(VARIABLE, ""))
    return Mode(name=text, speed=parse_speed(switches, start).resolved(device), reference=name == "reference")


def model_of(text: str, family: Literal["sit", "dit"], resolution: int) -> ModelConfig:
    """Network of a name `[SiT-|DiT-]SIZE/PATCH`, where SIZE is S, B, L, XL or DEPTHxWIDTHxHEADS.

    Raises:
        ConfigError: not of this form, or no such network.
    """
    try:
        name = parse_model_name(text)
    except ConfigError as error:
        raise ConfigError(f"--model: {error}") from error
    family = name.family or family
    convention: Literal["sra", "vanilla-dit"] = "sra" if family == "sit" else "vanilla-dit"
    return ModelConfig(family=family, size=name.size, patch=name.patch, resolution=resolution, convention=convention)


def align_of(kind: str, blocks: list[int] | None, model: ModelConfig, mode: Mode) -> AlignSettings | None:
    """Settings of an alignment, None for `none`; in mode `reference` its teacher runs outside autocast.

    Raises:
        ConfigError: no such alignment, or one whose settings only a manifest can give.
    """
    if kind == "none":
        return None
    cls = settings_class(kind)
    names = {field.name for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    if "blocks" in names and (blocks is not None or model.size_label not in SRA_BLOCKS[model.family]):
        # A size without published blocks: at the same relative depth as in B.
        first, second = (b * model.dimensions.depth // SIZES["B"].depth for b in SRA_BLOCKS[model.family]["B"])
        values["blocks"] = tuple(blocks or (max(1, first), max(2, second)))
    if mode.reference and "teacher_precision" in names:
        values["teacher_precision"] = "fp32"
    return cls(kind=kind, **values).resolved(model, CODEC)


CODEC = CodecConfig()
"""Latent shape of the published networks."""
