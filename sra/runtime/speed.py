"""Named switches of speed: how the same numbers are computed. None of them changes a result beyond rounding.

Every switch is `auto` until the environment variable `SRA_BENCH_SPEED` says otherwise, e.g. `compile=on,ema=loop`;
`auto` is what the device does best. `REFERENCE` is what the authors' public code does. What would change numbers is
never here: it is a key of the manifest (`train.precision`, `align.teacher_precision`, `sample.precision`).
Torch-free.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from dataclasses import dataclass
from typing import Any, Literal

from sra.common.errors import ConfigError, did_you_mean

VARIABLE = "SRA_BENCH_SPEED"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The switches; `resolved` has no `auto` in it."""

    teacher: Literal["auto", "needed", "whole"] = "auto"
    """Blocks that the teacher computes: up to the one that is wanted, or all and the final layer too."""
    compile: Literal["auto", "on", "off"] = "auto"
    """`torch.compile` of the transformer's blocks, one compilation for all of them."""
    optimizer: Literal["auto", "fused", "plain"] = "auto"
    """AdamW in one kernel, or as torch does it when it is not asked."""
    ema: Literal["auto", "foreach", "loop"] = "auto"
    """The average of all parameters at once, or one after the other in Python."""
    losses: Literal["auto", "logged", "every-step"] = "auto"
    """When losses and gradient norm are read from the device; `training.nonfinite` says what `logged` guarantees."""
    buckets: Literal["auto", "views", "copies"] = "auto"
    """Several processes: gradients are views of what is sent, or copied into it."""
    transfer: Literal["auto", "pinned", "plain"] = "auto"
    """How a batch reaches the device: from pinned memory without waiting, or as it lies."""
    guidance: Literal["auto", "inside", "always"] = "auto"
    """Whether guidance doubles the batch only inside its interval."""
    writing: Literal["auto", "overlapped", "in-line"] = "auto"
    """Whether images are decoded and written while the network works on the next batch."""
    codec: Literal["auto", "channels-last", "contiguous"] = "auto"
    """Memory layout of the image decoder."""

    def resolved(self, device: str) -> Speed:
        """With every `auto` decided.

        Args:
            device: torch's name of its kind, `cuda` or `cpu`.

        Raises:
            ConfigError: losses are read late by an optimizer that cannot skip a step on the device.
        """
        best = CUDA if device == "cuda" else OTHER
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found = Speed(**{name: getattr(best, name) if v == "auto" else v for name, v in values.items()})
        if found.losses == "logged" and found.optimizer != "fused":
            if self.losses == "logged":
                raise ConfigError("speed: losses=logged needs optimizer=fused, which can skip a step on the device")
            found = dataclasses.replace(found, losses="every-step")
        return found

    def __str__(self) -> str:
        return ", ".join(f"{f.name} {getattr(self, f.name)}" for f in dataclasses.fields(self))


CUDA = Speed(
    teacher="needed",
    compile="on",
    optimizer="fused",
    ema="foreach",
    losses="logged",
    buckets="views",
    transfer="pinned",
    guidance="inside",
    writing="overlapped",
    codec="channels-last",
)
# On a CPU there is nothing to wait for.
OTHER = dataclasses.replace(
    CUDA,
    compile="off",
    losses="every-step",
    transfer="plain",
    writing="in-line",
    codec="contiguous",
)
REFERENCE = Speed(
    teacher="whole",
    compile="off",
    optimizer="plain",
    ema="loop",
    losses="every-step",
    buckets="copies",
    transfer="plain",
    guidance="always",
    writing="in-line",
    codec="contiguous",
)


def parse(text: str, start: Speed | None = None) -> Speed:
    """Switches from `name=value,...`, all others as in `start`.

    Raises:
        ConfigError: an unknown name or value.
    """
    hints = typing.get_type_hints(Speed)
    values: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        if name not in hints:
            raise ConfigError(f"speed: unknown switch {name!r}: one of {', '.join(hints)}{did_you_mean(name, hints)}")
        allowed = typing.get_args(hints[name])
        if value not in allowed:
            raise ConfigError(f"speed: {name} must be one of {', '.join(allowed)}, found {value!r}")
        values[name] = value
    return dataclasses.replace(start or Speed(), **values)


def chosen(device: str) -> Speed:
    """What the environment says, resolved for a device.

    Raises:
        ConfigError: the variable holds something else than switches.
    """
    return parse(os.environ.get(VARIABLE, "")).resolved(device)
