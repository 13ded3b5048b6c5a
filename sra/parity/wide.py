"""Check of networks as wide as the published ones, whose golden numbers would be too large to ship.

The heads of the golden networks are 8 wide; those of the published ones, 64 and 72, take other attention kernels. One
step of SRA, with the same weights and random numbers, is compared with the same step on a CPU in float32, which the
golden numbers prove. A CPU itself, in bf16 and fp16, and compiled in float32 and bf16, stays below 0.42 of each limit.
"""

from __future__ import annotations

import copy
import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from sra.config import CodecConfig, ModelConfig, Size, SraSettings, TrainConfig
from sra.parity.compare import Mode, Report, within
from sra.runtime.random_streams import Randoms
from sra.training.losses import TrainingModule

WIDTHS = (Size(depth=2, width=768, heads=12), Size(depth=2, width=1152, heads=16))
"""Heads of 64 (B, L) and of 72 (XL)."""
RESOLUTION = 256
IMAGES = 2
CPU = Mode(torch.device("cpu"))
whole = within(multiple=1e3)
"""Relative L2: single elements of such large gradients are sums that cancel."""


def check_wide(mode: Mode, report: Report) -> None:
    """Compare the velocity, losses and gradients of a mode with those of a CPU."""
    for size in WIDTHS:
        mode.forget()
        module, expected = _reference(size)
        for name, found in _numbers(copy.deepcopy(module), mode).items():
            report.compare(f"wide/{size.width}x{size.heads}/{name}", found, expected[name], whole)


@lru_cache
def _reference(size: Size) -> tuple[TrainingModule, dict[str, Tensor]]:
    """A module, and its numbers on a CPU in float32: computed once for all modes."""
    module = _module(size)
    return module, _numbers(copy.deepcopy(module), CPU)


def _module(size: Size) -> TrainingModule:
    model = ModelConfig(size=size, resolution=RESOLUTION, convention="sra")
    train = TrainConfig(steps=1, label_dropout=0.0)
    module = TrainingModule(model, CodecConfig(), train, SraSettings(blocks=(1, 2)))
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        # No gate is near zero, and activations neither grow nor vanish.
        nn.init.normal_(parameter, std=0.5 / math.sqrt(size.width), generator=generator)
    return module


def _numbers(module: TrainingModule, mode: Mode) -> dict[str, Tensor]:
    """What is compared, by name; the module moves to the mode's device."""
    teacher = mode.prepared(copy.deepcopy(module.network).requires_grad_(False))
    network, device = mode.prepared(module.network), mode.device
    positions = torch.arange(IMAGES)
    randoms = Drawn(Randoms(0, positions), device)
    x, y = randoms.normal("x", (4, RESOLUTION // 8, RESOLUTION // 8)), positions.to(device)
    module.zero_grad()
    with mode.autocast():
        losses = module(x, y, randoms, teacher)
        with torch.no_grad():
            velocity = network(x, randoms.uniform("t"), y)
    # Half-precision gradients of a mean would underflow.
    scale = 1024.0 if mode.precision == "fp16" else 1.0
    (losses.total * scale).backward()
    gradients = {f"grad/{name}": p.grad / scale for name, p in network.named_parameters() if p.grad is not None}
    assert isinstance(velocity, Tensor)
    return {"velocity": velocity, "generation": losses.generation, "alignment": losses.alignment, **gradients}


class Drawn:
    """Random numbers of a CPU on another device: a logarithm may differ in its last bit there."""

    def __init__(self, randoms: Randoms, device: torch.device) -> None:
        self.randoms, self.device = randoms, device

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """See `RandomSource`."""
        return self.randoms.uniform(name, shape).to(self.device)

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """See `RandomSource`."""
        return self.randoms.normal(name, shape).to(self.device)
