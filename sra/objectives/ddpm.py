"""DiT's objective: 1000 noising steps, noise prediction and a learned variance (DiT paper, appendix A; improved DDPM).

Tables are float64; what is taken from them for a batch is float32, as the public code computes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sra.runtime.random_streams import RandomSource

STEPS = 1000
"""Noising steps T; times are the integers 0 .. T - 1."""
BETA_FIRST, BETA_LAST = 1e-4, 0.02


def linear_betas() -> Tensor:
    """(T,) float64."""
    return torch.linspace(BETA_FIRST, BETA_LAST, STEPS, dtype=torch.float64)


def respaced_indices(count: int) -> Tensor:
    """Original steps (R,) that a schedule of R steps visits: k to round(k (T - 1) / (R - 1)), first 0, last T - 1."""
    return torch.tensor([round(k * (STEPS - 1) / (count - 1)) for k in range(count)])


class Gaussian(NamedTuple):
    """Mean and log variance, each (N, C, H, W)."""

    mean: Tensor
    log_variance: Tensor


class Diffusion(nn.Module):
    """One noise schedule: the tables of its forward process and posterior."""

    alphas_cumprod: Tensor
    betas: Tensor
    timestep_map: Tensor
    log_posterior: Tensor
    log_betas: Tensor
    coefficient_x0: Tensor
    coefficient_xt: Tensor

    def __init__(self, steps: int = STEPS) -> None:
        """The full schedule, or one respaced to `steps` steps: the same marginals at the steps it keeps."""
        super().__init__()
        full = (1 - linear_betas()).cumprod(0)
        kept = respaced_indices(steps)
        betas = 1 - full[kept] / torch.cat([full.new_ones(1), full[kept][:-1]])
        alphas_cumprod = (1 - betas).cumprod(0)
        before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
        posterior = betas * (1 - before) / (1 - alphas_cumprod)
        tables = {
            "betas": betas,
            "timestep_map": kept,
            "alphas_cumprod": alphas_cumprod,
            # The posterior variance of the first step is 0: its logarithm is that of the second.
            "log_posterior": torch.cat([posterior[1:2], posterior[1:]]).log(),
            "log_betas": betas.log(),
            "coefficient_x0": betas * before.sqrt() / (1 - alphas_cumprod),
            "coefficient_xt": (1 - before) * (1 - betas).sqrt() / (1 - alphas_cumprod),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def _at(self, table: Tensor, t: Tensor) -> Tensor:
        return table[t].float().view(-1, 1, 1, 1)

    def corrupt(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(abar) x + sqrt(1 - abar) n; t (N,) integer."""
        return self._at(self.alphas_cumprod.sqrt(), t) * x + self._at((1 - self.alphas_cumprod).sqrt(), t) * noise

    def posterior(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Gaussian:
        """q(x_{t-1} | x_t, x_0)."""
        mean = self._at(self.coefficient_x0, t) * x0 + self._at(self.coefficient_xt, t) * x_t
        return Gaussian(mean, self._at(self.log_posterior, t).expand_as(x_t))

    def predicted(self, output: Tensor, x_t: Tensor, t: Tensor) -> Gaussian:
        """p(x_{t-1} | x_t) of a network's output (N, 2C, H, W): noise, then v in [-1, 1] between two log variances.

        f = (v + 1) / 2; log variance = f log(beta) + (1 - f) log(posterior variance). x_0 is not clipped.
        """
        eps, v = output.float().chunk(2, dim=1)
        f = (v + 1) / 2
        log_variance = f * self._at(self.log_betas, t) + (1 - f) * self._at(self.log_posterior, t)
        abar = self.alphas_cumprod
        x0 = self._at(abar.rsqrt(), t) * x_t - self._at((1 / abar - 1).sqrt(), t) * eps
        return Gaussian(self.posterior(x0, x_t, t).mean, log_variance)


class DiffusionObjective(Diffusion):
    """Noise regression plus the variational bound for the variance; see `sra.objectives.base.Objective`."""

    def draw(self, randoms: RandomSource, stream: str = "t") -> Tensor:
        """Times (N,), uniform over 0 .. T - 1."""
        return (randoms.uniform(stream) * STEPS).long().clamp_max(STEPS - 1)

    def terms(self, prediction: Tensor, x: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean square of the noise, and the bound in bits per dimension; both (N,).

        The bound trains the variance only: the predicted noise is detached in it.
        """
        eps, v = prediction.float().chunk(2, dim=1)
        mse = (noise - eps).pow(2).flatten(1).mean(1)
        x_t = self.corrupt(x, noise, t)
        model = self.predicted(torch.cat([eps.detach(), v], dim=1), x_t, t)
        divergence = kl(self.posterior(x, x_t, t), model)
        decoder = -discretised_log_likelihood(x, model)
        bits = torch.where(t == 0, decoder.flatten(1).mean(1), divergence.flatten(1).mean(1)) / math.log(2)
        return mse, bits

    def loss(self, prediction: Tensor, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noise and bound with weight 1, per sample (N,)."""
        mse, bits = self.terms(prediction, x, noise, t)
        return mse + bits

    def teacher_time(self, t: Tensor, span: float, uniform: Tensor | None) -> Tensor:
        """clamp(t - randint[0, T span), 1, T - 1), or T span steps less without random numbers."""
        count = round(STEPS * span)
        if uniform is None:
            return (t - count).clamp(1, STEPS - 1)
        return (t - (uniform * count).long().clamp_max(max(count - 1, 0))).clamp(1, STEPS - 1)


def kl(p: Gaussian, q: Gaussian) -> Tensor:
    """KL(p || q) in nats, elementwise."""
    difference = (p.mean - q.mean).pow(2) * (-q.log_variance).exp()
    return 0.5 * (-1 + q.log_variance - p.log_variance + (p.log_variance - q.log_variance).exp() + difference)


def discretised_log_likelihood(x: Tensor, model: Gaussian) -> Tensor:
    """log of the mass that a Gaussian puts on the bin x +- 1/255, elementwise; the outermost bins are open.

    The cumulative distribution is the tanh approximation of the public code, not the error function.
    """
    inverse = (-0.5 * model.log_variance).exp()
    above = _cumulative(inverse * (x - model.mean + 1 / 255))
    below = _cumulative(inverse * (x - model.mean - 1 / 255))
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return mass.clamp_min(1e-12).log()


def _cumulative(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z.pow(3))))
