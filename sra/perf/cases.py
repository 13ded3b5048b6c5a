"""What is measured: networks, modes and their settings."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from typing import Any, Literal

from sra.common.errors import ConfigError
from sra.config import SIZES, SRA_BLOCKS, AlignSettings, CodecConfig, ModelConfig, Size, settings_class
from sra.runtime.speed import REFERENCE, VARIABLE, Speed, parse


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A way to compute the same thing."""

    name: str
    speed: Speed
    reference: bool
    """Whether what is no switch of speed is the authors' too: a file per latent, PNG files, a teacher in float32."""


def mode_of(text: str, device: str) -> Mode:
    """`fast` or `reference`, with switches behind a colon: `reference:ema=foreach,teacher=needed`.

    Raises:
        ConfigError: another name, or a switch that does not exist.
    """
    name, _, switches = text.partition(":")
    if name not in ("fast", "reference"):
        raise ConfigError(f"--mode: must be fast or reference, with switches behind a colon, found {text!r}")
    start = REFERENCE if name == "reference" else parse(os.environ.get(VARIABLE, ""))
    return Mode(name=text, speed=parse(switches, start).resolved(device), reference=name == "reference")


def model_of(text: str, family: Literal["sit", "dit"], resolution: int) -> ModelConfig:
    """A network from `SIZE/PATCH`, where SIZE is S, B, L, XL or DEPTHxWIDTHxHEADS.

    Raises:
        ConfigError: not of this form, or no such network.
    """
    found = re.fullmatch(r"(S|B|L|XL|(\d+)x(\d+)x(\d+))/(\d+)", text)
    if found is None:
        raise ConfigError(f"--model: needed SIZE/PATCH, e.g. B/2 or 2x64x4/2, found {text!r}")
    name, *numbers, patch = found.groups()
    size: Any = name
    if numbers[0] is not None:
        depth, width, heads = map(int, numbers)
        size = Size(depth=depth, width=width, heads=heads)
    return ModelConfig(
        family=family,
        size=size,
        patch=int(patch),
        resolution=resolution,
        classes=1000,
        convention="sra" if family == "sit" else "vanilla-dit",
    )


def align_of(kind: str, blocks: list[int] | None, model: ModelConfig, mode: Mode) -> AlignSettings | None:
    """Settings of an alignment, `none` for none; in reference mode its teacher runs outside autocast.

    Raises:
        ConfigError: no such alignment, or one that needs settings which only a manifest has.
    """
    if kind == "none":
        return None
    cls = settings_class(kind)
    names = {field.name for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    if "blocks" in names and (blocks is not None or model.size_label not in SRA_BLOCKS[model.family]):
        # Of a size without published blocks: as deep in it as B's are in B.
        first, second = (b * model.dimensions.depth // SIZES["B"].depth for b in SRA_BLOCKS[model.family]["B"])
        values["blocks"] = tuple(blocks or (max(1, first), max(2, second)))
    if mode.reference and "teacher_precision" in names:
        values["teacher_precision"] = "fp32"
    return cls(kind=kind, **values).resolved(model, CODEC)


CODEC = CodecConfig()
"""Shape of the latents: that of the published networks."""
