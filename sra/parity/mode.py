"""How parity computes its numbers: device, precision, eager or compiled."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from sra.model.transformer import DiffusionTransformer
from sra.parity.tolerance import limit_of
from sra.runtime.device import autocast, set_tf32


@dataclass(frozen=True)
class Mode:
    """One way of computing the same numbers."""

    device: torch.device
    """Where networks run."""
    precision: str = "fp32"
    """As the manifest's keys: fp32, tf32, fp16, bf16; all but fp32 and tf32 by autocast, as in training."""
    compiled: bool = False
    """Whether networks go through torch.compile."""

    @property
    def limit(self) -> float:
        """Relative L2 distance that is allowed."""
        return limit_of(self.device.type, self.precision, compiled=self.compiled)

    def start(self) -> None:
        """Set what holds for the whole process."""
        set_tf32(self.precision)

    def forget(self) -> None:
        """Before other shapes come: torch compiles a function for few of them, and runs the rest eagerly."""
        if self.compiled:
            torch.compiler.reset()

    def autocast(self) -> AbstractContextManager[object]:
        """Around the network's forward passes."""
        return autocast(self.precision, self.device.type)

    def prepared(self, network: DiffusionTransformer) -> DiffusionTransformer:
        """The network on the device, compiled where asked."""
        network.to(self.device)
        if self.compiled:
            network.compile()
            network.hidden = torch.compile(network.hidden)  # type: ignore[method-assign]
        return network
