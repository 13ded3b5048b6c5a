"""Samplers with classifier-free guidance: Euler, Heun, dopri5 and Euler-Maruyama for SiT, DDPM for DiT."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sra.common.errors import DataError
from sra.config import ModelConfig, SampleConfig, check_sampler
from sra.model.transformer import DiffusionTransformer
from sra.objectives.ddpm import Diffusion
from sra.objectives.flow import score_from_velocity

Drift = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (N, C, H, W) float64, t scalar float64, y (N,)) to the drift (N, C, H, W) float64."""


@dataclass(frozen=True)
class SamplerInputs:
    """Labels and noise of one batch."""

    labels: Tensor
    """(N,) classes."""
    initial: Tensor
    """(N, C, H, W) standard normal."""
    step_noise: Callable[[int], Tensor]
    """Noise (N, C, H, W) of the k-th step; the SDE and DDPM ask for it, except in their last step."""


def sample(
    network: DiffusionTransformer,
    config: SampleConfig,
    model: ModelConfig,
    inputs: SamplerInputs,
) -> Tensor:
    """Sample latents (N, C, H, W).

    Args:
        network: in eval mode, on the device of the inputs.
        config: sampler, steps, guidance.
        model: interpolant and convention.
        inputs: labels and noise.

    Raises:
        ConfigError: the sampler does not fit the family.
    """
    check_sampler(config, model)
    with torch.no_grad():
        if config.sampler == "ddpm":
            return _ddpm(network, config, inputs)
        velocity = velocity_of(network, model)
        if config.sampler == "euler-maruyama":
            return _euler_maruyama(velocity, config, model, inputs, network.null_label)
        if config.sampler == "dopri5":
            return _dopri5(velocity, config, inputs, network.null_label)
        return _ode(velocity, config, inputs, network.null_label)


def velocity_of(network: DiffusionTransformer, model: ModelConfig) -> Drift:
    """Velocity in this suite's convention (t = 1 is noise), float64 in and out."""
    dtype = next(network.parameters()).dtype
    vanilla = model.convention == "vanilla-sit"
    channels = network.shape.channels

    def velocity(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        times = torch.full((len(x),), float(1 - t if vanilla else t), dtype=dtype, device=x.device)
        out = network(x.to(dtype), times, y)
        assert isinstance(out, Tensor)
        return (-out[:, :channels] if vanilla else out).double()

    return velocity


def with_null(x: Tensor, y: Tensor, null_label: int) -> tuple[Tensor, Tensor]:
    """Inputs of guidance: x twice, and the labels followed by null labels."""
    return torch.cat([x, x]), torch.cat([y, torch.full_like(y, null_label)])


def mixed(doubled: Tensor, scale: float, channels: int) -> Tensor:
    """Guided outputs: d_null + w (d_cond - d_null) in the first channels of both halves; the others do not change.

    Args:
        doubled: (2N, C, H, W) outputs, first with labels, then with the null label.
        scale: w.
        channels: number of guided channels.
    """
    conditional, null = doubled[:, :channels].chunk(2)
    guidance = null + scale * (conditional - null)
    return torch.cat([torch.cat([guidance, guidance]), doubled[:, channels:]], dim=1)


def guided_channels(config: SampleConfig, latent_channels: int) -> int:
    """Number of channels that guidance acts on: at most those of the latent, not those of a predicted variance."""
    return latent_channels if config.cfg_channels == "all" else config.cfg_channels


def guided(drift: Drift, config: SampleConfig, null_label: int, start: Tensor) -> Drift:
    """Drift with guidance if the start of the step lies in the guidance interval, else the drift itself."""
    low, high = config.guidance_interval
    if config.cfg <= 1 or not low <= float(start) <= high:
        return drift

    def both(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        inputs, labels = with_null(x, y, null_label)
        return mixed(drift(inputs, t, labels), config.cfg, guided_channels(config, x.shape[1]))[: len(x)]

    return both


def _ode(velocity: Drift, config: SampleConfig, inputs: SamplerInputs, null_label: int) -> Tensor:
    """Euler or Heun with t from 1 to 0 in equal steps; Heun corrects every step but the last."""
    x, y = inputs.initial.double(), inputs.labels
    times = torch.linspace(1, 0, config.steps + 1, dtype=torch.float64)
    for k, (now, after) in enumerate(itertools.pairwise(times)):
        drift = guided(velocity, config, null_label, now)
        d = drift(x, now, y)
        moved = x + (after - now) * d
        if config.sampler == "heun" and k < config.steps - 1:
            moved = x + (after - now) * 0.5 * (d + drift(moved, after, y))
        x = moved
    return x


DOPRI5: dict[str, Any] = {"method": "dopri5", "atol": 1e-6, "rtol": 1e-3}
"""Solver and tolerances of SiT's public `sample_ddp.py ODE`."""


def _dopri5(velocity: Drift, config: SampleConfig, inputs: SamplerInputs, null_label: int) -> Tensor:
    """Adaptive Dormand-Prince from t = 1 to 0, in float32; the error of the whole batch decides its steps.

    With guidance the state has both halves, as in the public code: its error has a part in the steps.
    """
    from torchdiffeq import odeint  # imports scipy, and only this sampler needs it

    x, y = inputs.initial.float(), inputs.labels
    doubled = config.cfg > 1
    if doubled:
        x, y = with_null(x, y, null_label)

    def drift(data_time: Tensor, x: Tensor) -> Tensor:
        t = 1 - data_time.double()
        if not doubled:
            return -velocity(x, t, y).float()
        half = x[: len(x) // 2]
        both = velocity(torch.cat([half, half]), t, y)
        return -mixed(both, config.cfg, guided_channels(config, x.shape[1])).float()

    ends = torch.tensor([0.0, 1.0], device=x.device)
    try:
        final: Tensor = odeint(drift, x, ends, **DOPRI5)[-1, : len(inputs.initial)]
    except AssertionError as error:  # so torchdiffeq says that no step is small enough
        raise DataError(f"sampler dopri5: expected velocities without NaN or infinity, got: {error}") from error
    return final


def _euler_maruyama(
    velocity: Drift, config: SampleConfig, model: ModelConfig, inputs: SamplerInputs, null_label: int
) -> Tensor:
    """Euler-Maruyama, t = linspace(1, last_step, steps), then a step to 0 with no noise; w(t) = 2t, drift v - ws/2."""
    x, y = inputs.initial.double(), inputs.labels

    def sde_drift(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        v = velocity(x, t, y)
        return v - t * score_from_velocity(model.interpolant, v, x, t)

    times = torch.linspace(1, config.last_step, config.steps, dtype=torch.float64)
    for k, (now, after) in enumerate(itertools.pairwise(times)):
        d = guided(sde_drift, config, null_label, now)(x, now, y)
        step = after - now
        noise = inputs.step_noise(k).double()
        x = x + d * step + (2 * now).sqrt() * step.abs().sqrt() * noise
    d = guided(sde_drift, config, null_label, times[-1])(x, times[-1], y)
    return x - times[-1] * d


def _ddpm(network: DiffusionTransformer, config: SampleConfig, inputs: SamplerInputs) -> Tensor:
    """Respaced DDPM with learned variance and no clipping, in float32, as published.

    With guidance, the conditional half of the outputs is used: unguided channels of the null half have no effect.
    """
    x, y = inputs.initial.float(), inputs.labels
    diffusion = Diffusion(config.steps).to(x.device)
    dtype = next(network.parameters()).dtype
    for k, step in enumerate(reversed(range(config.steps))):
        t = torch.full((len(x),), step, device=x.device)
        rows, labels = (x, y) if config.cfg <= 1 else with_null(x, y, network.null_label)
        output = network(rows.to(dtype), diffusion.timestep_map[step].expand(len(rows)), labels)
        assert isinstance(output, Tensor)
        if config.cfg > 1:
            output = mixed(output.float(), config.cfg, guided_channels(config, x.shape[1]))[: len(x)]
        predicted = diffusion.predicted(output, x, t)
        x = predicted.mean
        if step > 0:
            x = x + (0.5 * predicted.log_variance).exp() * inputs.step_noise(k)
    return x
