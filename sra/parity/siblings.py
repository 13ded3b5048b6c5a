"""Checks of the numbers of other methods' code.

`layersync.npz` and `dispersive.npz` hold one training step each, `self_flow.npz` a published network and its sampler,
`dopri5.npz` the ODE command of SiT.
"""

from __future__ import annotations

import re
from functools import cache, partial

import torch
from torch import Tensor, nn

from sra.config import AlignSettings, DispersiveSettings, LayerSyncSettings, SampleConfig, TrainConfig
from sra.model.token_groups import Groups
from sra.parity.checks import GUIDED, Check, GoldenRandoms, Networks, attempt, compare_gradients, run_sections
from sra.parity.compare import exact, solved
from sra.parity.golden import Scope
from sra.sampling.samplers import DOPRI5, SamplerInputs, sample, velocity_of
from sra.training.losses import StepLosses, objective_of

STEP = TrainConfig(steps=1, label_dropout=0.0)
RERUNS = 12
"""Of an adaptive solver, with other rounding errors."""


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


def check_self_flow(file: Scope) -> None:
    """Check every key of `self_flow.npz`: the network in its own names, and its sampler."""
    networks = Networks(file, file.config.model("sit", convention="vanilla-sit"))
    networks.constants()
    attempt(file, partial(self_flow, networks))
    run_sections(file, {"sampler": partial(self_flow_sampler, networks)})


def self_flow(networks: Networks, scope: Scope) -> None:
    """Its output, which is the velocity in this suite's convention, with a time per image and with one per token."""
    network, tokens, y = networks.load(), scope.config.tokens, scope.labels("y")
    count = len(y)
    x, t, each = scope.latents("x_t", count), scope.shaped("t", count), scope.shaped("t_tokens", count, tokens)
    velocity = velocity_of(network, networks.model)
    groups = Groups(torch.arange(tokens, device=x.device).expand(count, tokens), (1,) * tokens)
    with torch.no_grad(), scope.mode.autocast():
        scope.compare("output", torch.cat([velocity(x[i : i + 1], t[i], y[i : i + 1]) for i in range(count)]))
        scope.compare("output_tokens", -network(x, (1 - each).T, y, groups=groups)[:, : scope.config.in_channels])


def self_flow_sampler(networks: Networks, scope: Scope) -> None:
    """Final latents of the vanilla SDE without guidance."""
    y, steps = scope.labels("y"), int(scope.shaped("steps"))
    initial, noise = scope.latents("initial", len(y)), scope.latents("noise", steps - 1, len(y))
    config = SampleConfig(sampler="euler-maruyama", steps=steps)
    with scope.mode.autocast():
        inputs = SamplerInputs(y, initial, noise.__getitem__)
        scope.compare("final", sample(networks.load(), config, networks.model, inputs))


def check_dopri5(file: Scope) -> None:
    """Check every key of `dopri5.npz`; the output grid of a section changes nothing."""
    networks = Networks(file, file.config.model("sit", convention="vanilla-sit"))
    networks.constants()
    for name in ("atol", "rtol"):
        file.compare(name, torch.tensor(DOPRI5[name], dtype=torch.float64), exact)
    sections: dict[str, Check] = {
        name: partial(dopri5, networks) for name in file.children if file.at(name).has("evaluations")
    }
    run_sections(file, sections)


def dopri5(networks: Networks, scope: Scope) -> None:
    """Final latents, and in float32 how often the network was called; `cfgW` is guided with W in three channels."""
    guidance = re.fullmatch(r"cfg(\d+(?:\.\d+)?)", scope.prefix)
    config = SampleConfig(sampler="dopri5", cfg=float(guidance[1]) if guidance else 1.0, cfg_channels=GUIDED)
    network, y = networks.load(), scope.labels("y")
    inputs = SamplerInputs(y, scope.latents("initial", len(y)), _no_noise)

    def run(rerun: int = 0) -> tuple[Tensor, int]:
        """Samples and calls; reruns have rounding errors of their own, of 1, 2 or 4 units in the last place."""
        calls, generator = [], torch.Generator().manual_seed(rerun)

        def rounded(_network: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
            calls.append(1)
            size = 2 ** (rerun % 3) * torch.finfo(output.dtype).eps
            signs = torch.randint(0, 2, output.shape, generator=generator).to(output.device) * 2 - 1
            return output * (1 + size * signs) if rerun else None

        hook = network.register_forward_hook(rounded)
        with scope.mode.autocast():
            samples = sample(network, config, networks.model, inputs)
        hook.remove()
        return samples, len(calls)

    reruns = cache(lambda: [run(k) for k in range(1, RERUNS + 1)])
    (found, calls), expected = run(), scope.shaped("evaluations")
    if scope.mode.precision == "fp32":
        if calls != int(expected):
            # Rounding may decide whether a step is one too many.
            found, calls = next((run for run in reruns() if run[1] == int(expected)), (found, calls))
        scope.compare("evaluations", torch.tensor(calls, dtype=expected.dtype), exact)
    scope.compare("final", found, solved(lambda: [x for x, count in reruns() if count == calls and x is not found]))


def _no_noise(step: int) -> Tensor:
    raise AssertionError(f"an ODE has no noise, but step {step} asked for it")
