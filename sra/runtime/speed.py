"""Speed switches: faster ways to compute the same numbers, up to rounding. Torch-free.

Every switch is `auto` unless the environment variable `SRA_BENCH_SPEED` sets it, e.g. `compile=on,ema=loop`; `auto` is
the fastest value for the device. `REFERENCE` is what the authors' public code does. What changes numbers is a key of
the manifest instead (`train.precision`, `align.teacher_precision`, `sample.precision`).
"""

from __future__ import annotations

import dataclasses
import os
import typing
from dataclasses import dataclass
from typing import Any, Literal

from sra.common.errors import ConfigError, one_of

VARIABLE = "SRA_BENCH_SPEED"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The switches; after `resolved`, none is `auto`."""

    teacher: Literal["auto", "needed", "whole"] = "auto"
    """Blocks that the teacher computes: up to the aligned one, or all and the final layer."""
    compile: Literal["auto", "on", "combined", "max-autotune", "off"] = "auto"
    """`torch.compile` of the transformer blocks, one compilation for all; see `model.transformer.COMPILE_OPTIONS`."""
    optimizer: Literal["auto", "fused", "plain"] = "auto"
    """AdamW in one fused kernel, or torch's default implementation."""
    ema: Literal["auto", "foreach", "loop"] = "auto"
    """Average all parameters with foreach kernels, or one by one."""
    losses: Literal["auto", "logged", "every-step"] = "auto"
    """When losses and gradient norm are read from the device; see `training.nonfinite` for `logged`."""
    buckets: Literal["auto", "views", "copies"] = "auto"
    """With several processes: gradients are views of DDP's buckets, or copied into them."""
    transfer: Literal["auto", "pinned", "plain"] = "auto"
    """How a batch is copied to the device: from pinned memory without blocking, or from pageable memory."""
    writing: Literal["auto", "overlapped", "in-line"] = "auto"
    """Whether images are decoded and written while the network samples the next batch."""
    codec: Literal["auto", "contiguous", "channels-last", "compiled"] = "auto"
    """Memory layout of the image decoder; `compiled`: channels-last, and its own kernels by `torch.compile`."""
    attention: Literal["auto", "torch", "cudnn", "flash", "efficient", "math"] = "auto"
    """Kernel of the attention; `torch` leaves the choice to torch. A number format it cannot take goes to another."""
    graph: Literal["auto", "step", "off"] = "auto"
    """Record training's step as a CUDA graph, with one process; see `runtime.cuda_graph`."""

    def resolved(self, device: str) -> Speed:
        """Copy with every `auto` replaced by the best value for a device.

        Args:
            device: torch device type, `cuda` or `cpu`.

        Raises:
            ConfigError: losses are read late by an optimizer that cannot skip a step on the device, or a step is
                recorded that needs the host.
        """
        best = CUDA if device == "cuda" else CPU
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found = Speed(**{name: getattr(best, name) if v == "auto" else v for name, v in values.items()})
        if found.losses == "logged" and found.optimizer != "fused":
            if self.losses == "logged":
                raise ConfigError(f"{VARIABLE}: losses=logged: expected optimizer=fused, got {found.optimizer}")
            found = dataclasses.replace(found, losses="every-step")
        if found.graph == "step" and (device, found.losses) != ("cuda", "logged"):
            got = f"{device} and losses={found.losses}"
            raise ConfigError(f"{VARIABLE}: graph=step: expected a GPU and losses=logged, got {got}")
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
    writing="overlapped",
    # ATen's group norm makes its input contiguous: with channels-last every one of them would cost two copies.
    codec="contiguous",
    attention="torch",
    graph="off",
)
# A CPU computes synchronously: there is nothing to overlap.
CPU = dataclasses.replace(
    CUDA,
    compile="off",
    losses="every-step",
    transfer="plain",
    writing="in-line",
)
REFERENCE = dataclasses.replace(CPU, teacher="whole", optimizer="plain", ema="loop", buckets="copies")


def parse_speed(text: str, start: Speed | None = None) -> Speed:
    """Parse switches from `name=value,...`; the others are those of `start`.

    Raises:
        ConfigError: unknown name or value.
    """
    hints = typing.get_type_hints(Speed)
    values: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        if name not in hints:
            raise ConfigError(one_of(VARIABLE, name, hints))
        allowed = typing.get_args(hints[name])
        if value not in allowed:
            raise ConfigError(one_of(f"{VARIABLE}: {name}", value, allowed))
        values[name] = value
    return dataclasses.replace(start or Speed(), **values)


def speed_from_environment(device: str) -> Speed:
    """Switches of the environment variable, resolved for a device type.

    Raises:
        ConfigError: unknown switch or value.
    """
    return parse_speed(os.environ.get(VARIABLE, "")).resolved(device)
