"""Samplers with guidance: SiT's Euler, Heun and Euler-Maruyama, DiT's DDPM. No files, no devices chosen."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from sra.config import ModelConfig, SampleConfig, check_sampler
from sra.model.transformer import DiffusionTransformer
from sra.objectives.ddpm import Diffusion
from sra.objectives.flow import score_from_velocity

Drift = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x (N, C, H, W) float64, t scalar float64, y (N,)) to the drift (N, C, H, W) float64."""


def sample(
    network: DiffusionTransformer,
    config: SampleConfig,
    model: ModelConfig,
    labels: Tensor,
    initial: Tensor,
    step_noise: Callable[[int], Tensor],
    *,
    always_double: bool = False,
) -> Tensor:
    """Latents (N, C, H, W) from noise.

    Args:
        network: in eval mode, on the device of `initial`.
        config: sampler, steps, guidance.
        model: interpolant and convention.
        labels: (N,) classes.
        initial: (N, C, H, W) standard normal.
        step_noise: noise of the k-th step, (N, C, H, W); asked by the SDE and DDPM, except for their last step.
        always_double: with guidance, also evaluate the null label where it does not count, as the authors' code does.

    Raises:
        ConfigError: a sampler that does not fit the family.
    """
    check_sampler(config, model)
    with torch.no_grad():
        if config.sampler == "ddpm":
            return _ddpm(network, config, labels, initial.float(), step_noise)
        velocity, x = velocity_of(network, model), initial.double()
        if always_double and config.cfg > 1:
            velocity = doubled(velocity, network.null_label, len(x))
        if config.sampler == "euler-maruyama":
            return _euler_maruyama(velocity, config, model, labels, x, step_noise, network.null_label)
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


def doubled(drift: Drift, null_label: int, rows: int) -> Drift:
    """The same drift for batches of `rows`, with the null label evaluated beside and dropped."""

    def conditional(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if len(x) != rows:
            return drift(x, t, y)
        inputs, labels = with_null(x, y, null_label)
        return drift(inputs, t, labels)[:rows]

    return conditional


def with_null(x: Tensor, y: Tensor, null_label: int) -> tuple[Tensor, Tensor]:
    """Doubled inputs of guidance: x twice, and the labels followed by null labels."""
    return torch.cat([x, x]), torch.cat([y, torch.full_like(y, null_label)])


def mixed(doubled: Tensor, scale: float, channels: int) -> Tensor:
    """d_null + w (d_cond - d_null) on the first channels of both halves; all others stay each half's own.

    Args:
        doubled: (2N, C, H, W) outputs, those with labels first, those with the null label second.
        scale: w.
        channels: how many of the channels are guided.
    """
    conditional, null = doubled[:, :channels].chunk(2)
    guidance = null + scale * (conditional - null)
    return torch.cat([torch.cat([guidance, guidance]), doubled[:, channels:]], dim=1)


def guided_channels(config: SampleConfig, latent_channels: int) -> int:
    """How many channels guidance acts on: those of the latent, never those of a predicted variance."""
    return latent_channels if config.cfg_channels == "all" else config.cfg_channels


def guided(drift: Drift, config: SampleConfig, null_label: int, start: Tensor) -> Drift:
    """The drift with guidance while the *start* of the step lies in the interval, else the drift itself."""
    low, high = config.guidance_interval
    if config.cfg <= 1 or not low <= float(start) <= high:
        return drift

    def both(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        inputs, labels = with_null(x, y, null_label)
        return mixed(drift(inputs, t, labels), config.cfg, guided_channels(config, x.shape[1]))[: len(x)]

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
    null_label: int,
) -> Tensor:
    """t = linspace(1, last_step, steps), then one noise-free step to 0; w(t) = 2t, drift v - w s / 2."""

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


def _ddpm(
    network: DiffusionTransformer,
    config: SampleConfig,
    y: Tensor,
    x: Tensor,
    step_noise: Callable[[int], Tensor],
) -> Tensor:
    """The respaced schedule from its last step to its first, learned variance, no clipping; float32, as published.

    With guidance the conditional half is kept: the unguided channels of the null half never reach the network.
    """
    diffusion = Diffusion(config.steps).to(x.device)
    dtype = next(network.parameters()).dtype
    for k, step in enumerate(reversed(range(config.steps))):
        t = torch.full((len(x),), step, device=x.device)
        inputs, labels = (x, y) if config.cfg <= 1 else with_null(x, y, network.null_label)
        output = network(inputs.to(dtype), diffusion.timestep_map[step].expand(len(inputs)), labels)
        assert isinstance(output, Tensor)
        if config.cfg > 1:
            output = mixed(output.float(), config.cfg, guided_channels(config, x.shape[1]))[: len(x)]
        predicted = diffusion.predicted(output, x, t)
        x = predicted.mean
        if step > 0:
            x = x + (0.5 * predicted.log_variance).exp() * step_noise(k)
    return x
