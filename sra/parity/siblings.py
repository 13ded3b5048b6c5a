"""Checks of the numbers of other methods' code: `layersync.npz` and `dispersive.npz`, one training step each."""

from __future__ import annotations

from functools import partial

import torch

from sra.config import AlignSettings, DispersiveSettings, LayerSyncSettings, TrainConfig
from sra.parity.checks import Check, GoldenRandoms, Networks, attempt, compare_gradients, run_sections
from sra.parity.golden import Scope
from sra.training.losses import StepLosses, objective_of

STEP = TrainConfig(steps=1, label_dropout=0.0)


def check_layersync(file: Scope) -> None:
    """Check every key of `layersync.npz`."""
    networks = Networks(file, file.config.model("sit"))
    networks.constants()
    attempt(file, partial(layersync, networks))
    run_sections(file, {})


def layersync(networks: Networks, scope: Scope) -> None:
    """The velocity, both losses and the gradients."""
    k, later = (int(block) for block in scope.shaped("blocks", 2))
    losses = _step(networks, scope, LayerSyncSettings(blocks=(k, later), weight=float(scope.shaped("weight"))))
    assert losses.alignment is not None
    scope.compare("align_loss", losses.alignment)
    y = scope.labels("y")
    x, noise, t = scope.latents("x", len(y)), scope.latents("noise", len(y)), scope.shaped("t", len(y))
    with torch.no_grad(), scope.mode.autocast():
        x_t = objective_of(networks.model, STEP).corrupt(x, noise, t)
        scope.compare("velocity", networks.load()(x_t, t, y))


def check_dispersive(file: Scope) -> None:
    """Check every key of `dispersive.npz`; each section has settings of its own."""
    networks = Networks(file, file.config.model("sit"))
    networks.constants()
    sections: dict[str, Check] = {
        name: partial(dispersive, networks) for name in file.children if file.at(name).has("block")
    }
    run_sections(file, sections)


def dispersive(networks: Networks, scope: Scope) -> None:
    """Both losses and the gradients; the whole batch is one local batch."""
    block, tau, weight = (scope.shaped(name).item() for name in ("block", "tau", "weight"))
    count = len(scope.labels("y"))
    align = DispersiveSettings(block=int(block), tau=tau, weight=weight, local_batch=count)
    losses = _step(networks, scope, align)
    assert losses.alignment is not None
    scope.compare("align_loss", losses.alignment.squeeze())


def _step(networks: Networks, scope: Scope, align: AlignSettings) -> StepLosses:
    """One step forward and back, without dropout; compare the generation loss and the gradients."""
    y = scope.labels("y")
    count = len(y)
    uniform = {"t": scope.shaped("t", count), "dropout": torch.ones(count, device=scope.mode.device)}
    randoms = GoldenRandoms(uniform, {"noise": scope.latents("noise", count)})
    module = networks.module(STEP, align.resolved(networks.model, scope.config.codec))
    with scope.mode.autocast():
        losses: StepLosses = module(scope.latents("x", count), y, randoms, None)
    compare_gradients(scope, module, losses)
    scope.compare("gen_loss", losses.generation)
    return losses
