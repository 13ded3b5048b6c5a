"""Checks of `dit.npz`: DiT with SRA: forward passes, losses and gradients, schedules, the sampler."""

from __future__ import annotations

import re
from functools import partial

import torch

from sra.config import Interval, SampleConfig, SraSettings, TrainConfig
from sra.objectives.ddpm import Diffusion, DiffusionObjective
from sra.parity.checks import DROPOUT, GUIDED, Check, Networks, for_dit, losses_and_gradients, run_sections
from sra.parity.compare import exact, guided, table
from sra.parity.golden import Scope
from sra.sampling.samplers import SamplerInputs, mixed, sample, with_null

WEIGHT = 0.04
"""Weight of the alignment loss in the golden numbers."""


def check(file: Scope) -> None:
    """Check every key of `dit.npz`."""
    networks = Networks(file, file.config.model("dit"))
    networks.constants()
    sections: dict[str, Check] = {
        "forward": partial(forward, networks),
        "sra_loss": partial(sra_loss, networks),
        "sampler": partial(sampler, networks),
    }
    run_sections(file, sections)


def forward(networks: Networks, scope: Scope) -> None:
    """The prediction, the output of the student's block, and the prediction with guidance on three channels."""
    network = networks.load()
    y = scope.labels("y")
    x, t = scope.latents("x", len(y)), scope.shaped("t", len(y))
    with torch.no_grad(), scope.mode.autocast():
        prediction, hidden = network(x, t, y, taps=(scope.config.block_out_s,))
        inputs, labels = with_null(x, y, network.null_label)
        doubled = network(inputs, torch.cat([t, t]), labels)
    scope.compare("output", prediction)
    scope.compare("hidden_at_s", hidden)
    scale = scope.config.cfg_scale
    scope.compare("output_cfg", mixed(doubled, scale, GUIDED), guided(scale))


def sra_loss(networks: Networks, scope: Scope) -> None:
    """Both terms of the loss, and the step as training computes it."""
    config = scope.config
    align = SraSettings(blocks=config.blocks, interval=Interval(random=config.t_max), weight=WEIGHT)
    module = networks.module(TrainConfig(steps=1, label_dropout=DROPOUT), align)
    losses = losses_and_gradients(scope, module, networks.load("teacher"), for_dit(scope))
    assert losses.alignment is not None
    scope.compare("loss", losses.generation)
    scope.compare("align_loss", losses.alignment)
    objective = module.objective
    assert isinstance(objective, DiffusionObjective)
    y, t = scope.labels("labels_after_dropout"), scope.given("t")
    x, noise = scope.latents("images", len(y)), scope.latents("noise", len(y))
    with torch.no_grad(), scope.mode.autocast():
        prediction = module.network(objective.corrupt(x, noise, t), t, y)
    for name, found in zip(("mse", "vb"), objective.terms(prediction, x, noise, t), strict=True):
        scope.compare(name, found)


def sampler(networks: Networks, scope: Scope) -> None:
    """Respaced schedules, and final latents without and with guidance."""
    schedules(scope)
    config, network = scope.config, networks.load()
    labels, count = scope.labels("labels"), len(scope.labels("labels"))
    latents = scope.latents("latents", count)
    # Guidance doubles the batch; the second half's noise never reaches the first.
    for name, drawn, size, scale in (("nocfg", "noise", count, 1.0), ("cfg", "noise_cfg", 2 * count, config.cfg_scale)):
        noise = scope.latents(drawn, config.dit_respacing, size)[:, :count]
        settings = SampleConfig(sampler="ddpm", steps=config.dit_respacing, cfg=scale, cfg_channels=GUIDED)
        with scope.mode.autocast():
            found = sample(network, settings, networks.model, SamplerInputs(labels, latents, noise.__getitem__))
        scope.compare(name, found, guided(scale))


def schedules(scope: Scope) -> None:
    """`timestep_map` and `betas` of the sampler's own number of steps, and of those in a key's name."""
    for name in scope.children:
        match = re.fullmatch(r"(timestep_map|betas)(?:_(\d+))?", name)
        if match:
            diffusion = Diffusion(int(match[2] or scope.config.dit_respacing))
            found, judge = (diffusion.betas, table) if match[1] == "betas" else (diffusion.timestep_map, exact)
            scope.compare(name, found, judge)
