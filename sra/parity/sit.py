"""Checks of `sit.npz` (SiT with and without SRA) and of `vanilla_sit.npz` (a published SiT)."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import TypeVar, get_args

import torch
from torch import Tensor, nn

from sra.common.errors import DataError, one_of
from sra.config import (
    PUBLIC_DISTANCES,
    Distance,
    EmaConfig,
    Interval,
    SampleConfig,
    Sampler,
    SelfFlowSettings,
    SraSettings,
    TeacherInput,
    TrainConfig,
)
from sra.model.transformer import DiffusionTransformer
from sra.objectives.flow import Path, Times
from sra.parity.checks import (
    DROPOUT,
    GUIDED,
    Check,
    Networks,
    attempt,
    for_groups,
    for_sit,
    images_and_labels,
    labels_after_dropout,
    losses_and_gradients,
    run_sections,
)
from sra.parity.compare import Amplification, exact, guided, table, trained
from sra.parity.golden import Scope
from sra.sampling.samplers import SamplerInputs, mixed, sample, velocity_of, with_null
from sra.training.ema import update_ema
from sra.training.losses import StepLosses
from sra.training.optimizer import make_optimizer

V = TypeVar("V")

# Names in the golden file, and the suite's.
SAMPLERS: dict[str, Sampler] = {
    "ode_euler": "euler",
    "ode_heun": "heun",
    "sde": "euler-maruyama",
}
TEACHERS: dict[str, TeacherInput] = {
    "sra_masked": "own-times",
    "self_flow_clean": "all-at-min",
    "self_flow_masked": "min-and-clean",
}
ATTENTION = {"full": False, "separated": True}
PATHS: dict[str, Path] = {name: name for name in get_args(Path)}
TIMES: dict[str, Times] = {name: name for name in get_args(Times)}

# Settings of the golden numbers.
WEIGHT, DUAL_WEIGHT = 0.2, 0.5
STEP = TrainConfig(steps=1, label_dropout=DROPOUT)
TRAINING = replace(STEP, lr=1e-3, ema=EmaConfig(decay=0.9), clip=1.0)


def check(file: Scope) -> None:
    """Check every key of `sit.npz`."""
    networks = Networks(file, file.config.model("sit"))
    networks.constants()
    sections: dict[str, Check] = {
        "forward": partial(forward, networks),
        "sra_loss": partial(sra_loss, networks),
        "samplers": partial(samplers, networks),
        "dual_timestep": partial(dual_timestep, networks),
        "training": partial(training, networks),
    }
    run_sections(file, sections)


def forward(networks: Networks, scope: Scope) -> None:
    """The velocity with labels and without, and the output of the student's block."""
    network = networks.load()
    y = scope.labels("y")
    x, t = scope.latents("x", len(y)), scope.shaped("t", len(y))
    with torch.no_grad(), scope.mode.autocast():
        velocity, hidden = network(x, t, y, taps=(scope.config.block_out_s,))
        null = network(x, t, torch.full_like(y, network.null_label))
    scope.compare("velocity", velocity)
    scope.compare("velocity_null", null)
    scope.compare("hidden_at_s", hidden)


def sra_loss(networks: Networks, scope: Scope) -> None:
    """Losses and gradients by distance, distribution of t, and path."""
    teacher = networks.load("teacher")
    for case in _cases(scope, 3):
        attempt(case, partial(_sra_case, networks, teacher))


def _sra_case(networks: Networks, teacher: DiffusionTransformer, case: Scope) -> None:
    distance, times, path = case.prefix.split("/")[1:]
    model = replace(networks.model, interpolant=_named(PATHS, path))
    align = _sra(case, _named(PUBLIC_DISTANCES, distance))
    module = networks.module(replace(STEP, times=_named(TIMES, times)), align, model)
    losses = losses_and_gradients(case, module, teacher, for_sit(case, path))
    _compare_losses(case, losses)


def _sra(scope: Scope, distance: Distance = "smooth-l1") -> SraSettings:
    config = scope.config
    return SraSettings(blocks=config.blocks, interval=Interval(random=config.t_max), distance=distance, weight=WEIGHT)


def _compare_losses(case: Scope, losses: StepLosses) -> None:
    assert losses.alignment is not None
    case.compare("gen_loss", losses.generation)
    case.compare("align_loss", losses.alignment)


def samplers(networks: Networks, scope: Scope) -> None:
    """Final latents by path, sampler and guidance."""
    network = networks.load()
    for case in _cases(scope, 2):
        attempt(case, partial(_sampler_case, networks, network))


def _sampler_case(networks: Networks, network: DiffusionTransformer, case: Scope) -> None:
    path, sampler = case.prefix.split("/")[1:]
    model = replace(networks.model, interpolant=_named(PATHS, path))
    labels = case.labels("labels")
    latents = case.latents("latents", len(labels))
    for guidance in case.children:
        config = replace(_named(_guidances(case), guidance), sampler=_named(SAMPLERS, sampler))
        with case.mode.autocast():
            found = sample(network, config, model, SamplerInputs(labels, latents, partial(_noise, case)))
        case.compare(guidance, found, guided(config.cfg))


def _noise(case: Scope, step: int) -> Tensor:
    return case.latents("sde_noise", case.config.num_steps - 1, len(case.labels("labels")))[step]


def _guidances(scope: Scope) -> dict[str, SampleConfig]:
    config = scope.config
    plain = SampleConfig(steps=config.num_steps)
    always = replace(plain, cfg=config.cfg_scale)
    interval = replace(always, guidance_interval=(config.guidance_low, config.guidance_high))
    return {"nocfg": plain, "cfg": always, "cfg_interval": interval}


def dual_timestep(networks: Networks, scope: Scope) -> None:
    """Two groups of tokens with a time each: losses and gradients by attention and kind of teacher."""
    teacher = networks.load("teacher")
    for case in _cases(scope, 2):
        attempt(case, partial(_dual_case, networks, teacher))


def _dual_case(networks: Networks, teacher: DiffusionTransformer, case: Scope) -> None:
    attention, kind = case.prefix.split("/")[1:]
    align = SelfFlowSettings(
        blocks=case.config.blocks,
        teacher=_named(TEACHERS, kind),
        separated=_named(ATTENTION, attention),
        interval=case.config.t_max,
        weight=DUAL_WEIGHT,
    )
    losses = losses_and_gradients(case, networks.module(STEP, align), teacher, for_groups(case))
    _compare_losses(case, losses)


def training(networks: Networks, scope: Scope) -> None:
    """Steps of AdamW from `model`, with the averaged weights as the teacher."""
    student = networks.fresh()
    average = scope.mode.prepared(copy.deepcopy(student).eval().requires_grad_(False))
    module = networks.module(TRAINING, _sra(scope), network=scope.mode.prepared(student))
    optimizer = make_optimizer(module, TRAINING)
    amplification = Amplification(module.network, optimizer)
    steps = sorted((name for name in scope.children if name.isdigit()), key=int)
    for index, name in enumerate(steps):
        case = scope.at(name)
        case.compare("labels_after_dropout", labels_after_dropout(case), exact)
        with scope.mode.autocast():
            losses = module(*images_and_labels(case), for_sit(case, "linear"), average)
        optimizer.zero_grad()
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), TRAINING.clip)
        optimizer.step()
        update_ema(average, module.network, TRAINING.ema, index)
        amplification.after_step()
        case.compare("gen_loss", losses.generation.mean())
        case.compare("align_loss", losses.alignment.mean())
        case.compare("grad_norm", norm)
    for kind, network in (("final_ema", average), ("final_model", module.network)):
        _compare_weights(scope.at(kind), network.state_dict(), amplification)


def _compare_weights(scope: Scope, found: dict[str, Tensor], amplification: Amplification) -> None:
    for name in scope.arrays.state(scope.prefix):
        if name not in found:
            raise DataError(f"{scope.key(name)}: expected a weight of the network")
        factor = amplification.of(name)
        scope.compare(name, found[name], table if factor is None else trained(factor))


def _cases(scope: Scope, depth: int) -> list[Scope]:
    """Scopes `depth` levels deeper; inputs shared by all cases are not cases."""
    if depth == 0:
        return [scope]
    return [case for name in scope.children if not scope.has(name) for case in _cases(scope.at(name), depth - 1)]


def _named(known: dict[str, V], name: str) -> V:
    if name not in known:
        raise DataError(one_of("key", name, known))
    return known[name]


def check_vanilla(file: Scope) -> None:
    """Check every key of `vanilla_sit.npz`, whose t = 1 is data and whose second half of the output is dropped."""
    networks = Networks(file, file.config.model("sit", convention="vanilla-sit"))
    networks.constants()
    run_sections(file, {"forward": partial(forward_vanilla, networks)})


def forward_vanilla(networks: Networks, scope: Scope) -> None:
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
