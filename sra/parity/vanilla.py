"""`vanilla_sit.npz`: a published SiT, in which t = 1 is data and half of the output channels are dropped."""

from __future__ import annotations

from functools import partial

import torch

from sra.parity.checks import GUIDED, Networks, run_sections
from sra.parity.golden import Scope
from sra.parity.tolerance import guided
from sra.sampling.samplers import mixed, velocity_of, with_null


def check(file: Scope) -> None:
    """Every key of `vanilla_sit.npz`."""
    networks = Networks(file, file.config.model("sit", convention="vanilla-sit"))
    networks.constants()
    run_sections(file, {"forward": partial(forward, networks)})


def forward(networks: Networks, scope: Scope) -> None:
    """The network's own output without and with guidance, and the velocity in this suite's convention."""
    network, channels = networks.load(), scope.config.in_channels
    y = scope.labels("y")
    x, t = scope.latents("x", len(y)), scope.shaped("t_vanilla", len(y))
    velocity = velocity_of(network, networks.model)
    with torch.no_grad(), scope.mode.autocast():
        inputs, labels = with_null(x, y, network.null_label)
        doubled = network(inputs, torch.cat([t, t]), labels)[:, :channels]
        own = network(x, t, y)[:, :channels]
        ours = [velocity(x[i : i + 1], t[i], y[i : i + 1]) for i in range(len(x))]
    scope.compare("output_vanilla", own)
    scale = scope.config.cfg_scale
    scope.compare("output_cfg_vanilla", mixed(doubled, scale, GUIDED), guided(scale))
    scope.compare("velocity", torch.cat(ours))
