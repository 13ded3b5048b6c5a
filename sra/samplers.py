"""SiT's samplers: Euler and Heun on the ODE, Euler-Maruyama on the SDE, with guidance. No files, no devices chosen."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from sra.config import ModelConfig, SampleConfig
from sra.errors import ConfigError
from sra.flow import score_from_velocity
from sra.network import DiffusionTransformer

Drift = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (N, C, H, W) float64, t scalar float64, y (N,)) to the drift (N, C, H, W) float64."""


def sample(
    network: DiffusionTransformer,
    config: SampleConfig,
    model: ModelConfig,
    labels: Tensor,
    initial: Tensor,
    step_noise: Callable[[int], Tensor],
) -> Tensor:
    """Latents (N, C, H, W) from noise.

    Args:
        network: in eval mode, on the device of `initial`.
        config: sampler, steps, guidance.
        model: interpolant and convention.
        labels: (N,) classes.
        initial: (N, C, H, W) standard normal.
        step_noise: noise of the k-th step, (N, C, H, W); asked only by the SDE.

    Raises:
        ConfigError: a sampler that does not fit the family.
    """
    if model.family != "sit":
        raise ConfigError("model.family: sampling of 'dit' is not available in this version; allowed: sit")
    x = initial.double()
    velocity = velocity_of(network, model)
    with torch.no_grad():
        if config.sampler == "euler-maruyama":
            return _euler_maruyama(velocity, config, model, labels, x, step_noise)
        return _ode(velocity, config, labels, x, network.null_label)


def velocity_of(network: DiffusionTransformer, model: ModelConfig) -> Drift:
    """The velocity in this suite's convention (t = 1 is noise), float64 in and out."""
    dtype = next(network.parameters()).dtype
    vanilla = model.convention == "vanilla-sit"
    channels = network.shape.channels

    def velocity(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        times = torch.full((len(x),), float(1 - t if vanilla else t), dtype=dtype, device=x.device)
        out = network(x.to(dtype), times, y)
        assert isinstance(out, Tensor)
        return (-out[:, :channels] if vanilla else out).double()

    return velocity


def guided(drift: Drift, config: SampleConfig, null_label: int, start: Tensor) -> Drift:
    """d_null + w (d_cond - d_null) while the *start* of the step lies in the interval, on all or the first channels.

    The other channels stay the conditional half's own (as in the public samplers of SiT and DiT).
    """
    low, high = config.guidance_interval
    if config.cfg <= 1 or not low <= float(start) <= high:
        return drift

    def both(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        null = torch.full_like(y, null_label)
        conditional, unconditional = drift(torch.cat([x, x]), t, torch.cat([y, null])).chunk(2)
        mixed = unconditional + config.cfg * (conditional - unconditional)
        if config.cfg_channels == "all":
            return mixed
        return torch.cat([mixed[:, :3], conditional[:, 3:]], dim=1)

    return both


def _ode(velocity: Drift, config: SampleConfig, y: Tensor, x: Tensor, null_label: int) -> Tensor:
    """t from 1 to 0 in equal steps; Heun corrects every step but the last."""
    times = torch.linspace(1, 0, config.steps + 1, dtype=torch.float64)
    for k, (now, after) in enumerate(itertools.pairwise(times)):
        drift = guided(velocity, config, null_label, now)
        d = drift(x, now, y)
        moved = x + (after - now) * d
        if config.sampler == "heun" and k < config.steps - 1:
            moved = x + (after - now) * 0.5 * (d + drift(moved, after, y))
        x = moved
    return x


def _euler_maruyama(
    velocity: Drift,
    config: SampleConfig,
    model: ModelConfig,
    y: Tensor,
    x: Tensor,
    step_noise: Callable[[int], Tensor],
) -> Tensor:
    """t = linspace(1, last_step, steps), then one noise-free step to 0; w(t) = 2t, drift v - w s / 2."""
    null_label = model.classes

    def sde_drift(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        v = velocity(x, t, y)
        return v - t * score_from_velocity(model.interpolant, v, x, t)

    times = torch.linspace(1, config.last_step, config.steps, dtype=torch.float64)
    for k, (now, after) in enumerate(itertools.pairwise(times)):
        d = guided(sde_drift, config, null_label, now)(x, now, y)
        step = after - now
        noise = step_noise(k).double()
        x = x + d * step + (2 * now).sqrt() * step.abs().sqrt() * noise
    d = guided(sde_drift, config, null_label, times[-1])(x, times[-1], y)
    return x - times[-1] * d
