"""What holds for DiT besides the golden numbers (`test_parity.py`): schedules, bound, sampler."""

import dataclasses

import pytest
import torch

from sra.config import Interval, SampleConfig, SraSettings, TrainConfig
from sra.objectives.ddpm import STEPS, Diffusion, DiffusionObjective, discretised_log_likelihood, kl
from sra.objectives.ddpm import Gaussian as G
from sra.runtime.random_streams import Randoms
from sra.sampling.samplers import SamplerInputs, sample
from sra.training.losses import TrainingModule


@pytest.fixture(scope="module")
def dit_model(model):
    return dataclasses.replace(model, family="dit")


@pytest.mark.parametrize("steps", [2, 7, 250, STEPS])
def test_respacing_keeps_the_marginals_and_the_ends(steps):
    full, respaced = Diffusion(), Diffusion(steps)
    kept = respaced.timestep_map
    assert (int(kept[0]), int(kept[-1]), len(kept.unique())) == (0, STEPS - 1, steps)
    torch.testing.assert_close(respaced.alphas_cumprod, full.alphas_cumprod[kept], rtol=1e-9, atol=0)


def test_a_network_that_knows_the_data_is_sampled_back_to_it():
    """With the true noise as prediction DDPM lands on the data, whatever the noise on the way."""
    target, start, noise = torch.randn(3, 2, 4, 2, 2)

    class Oracle(torch.nn.Module):
        null_label = 0

        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, t, y):
            abar = Diffusion().alphas_cumprod[t].float().view(-1, 1, 1, 1)
            return torch.cat([(x - abar.sqrt() * target) / (1 - abar).sqrt(), torch.zeros_like(x)], 1)

    config = SampleConfig(sampler="ddpm", steps=20)
    model = type("Model", (), {"family": "dit"})
    found = sample(Oracle(), config, model, SamplerInputs(torch.zeros(2).long(), start, lambda k: noise))
    torch.testing.assert_close(found, target, rtol=1e-3, atol=1e-3)


def test_variance_lies_between_the_posterior_and_beta():
    diffusion, x, t = Diffusion(), torch.zeros(3, 4, 2, 2), torch.tensor([0, 500, 999])
    for v, table in ((-1.0, diffusion.log_posterior), (1.0, diffusion.log_betas)):
        output = torch.cat([x, torch.full_like(x, v)], dim=1)
        found = diffusion.predicted(output, x, t).log_variance[:, 0, 0, 0]
        torch.testing.assert_close(found, table[t].float())
    assert diffusion.log_posterior[0] == diffusion.log_posterior[1]


def test_bound_trains_the_variance_only():
    objective, x = DiffusionObjective(), torch.randn(4, 4, 2, 2)
    prediction = torch.randn(4, 8, 2, 2, requires_grad=True)
    objective.terms(prediction, x, torch.randn_like(x), torch.tensor([0, 1, 500, 999]))[1].sum().backward()
    assert torch.count_nonzero(prediction.grad[:, :4]) == 0
    assert torch.count_nonzero(prediction.grad[:, 4:]) > 0


def test_divergence_and_likelihood():
    same = G(torch.randn(2, 3), torch.randn(2, 3))
    torch.testing.assert_close(kl(same, same), torch.zeros(2, 3), atol=1e-6, rtol=0)
    # All bins of 8-bit values together hold the whole mass.
    values = torch.linspace(-1, 1, 256)
    mass = discretised_log_likelihood(values, G(torch.full((256,), 0.2), torch.full((256,), -2.0))).exp().sum()
    assert float(mass) == pytest.approx(1, abs=2e-3)


def test_teacher_times_stay_in_range():
    objective, t = DiffusionObjective(), torch.arange(STEPS)
    least = objective.teacher_time(t, 0.2, torch.full((STEPS,), 1 - 2.0**-24))
    assert torch.equal(least, (t - 199).clamp(1, 999))
    assert torch.equal(objective.teacher_time(t, 0.2, torch.zeros(STEPS)), t.clamp(1))
    assert torch.equal(objective.teacher_time(t, 0.1, None), (t - 100).clamp(1))


def test_times_are_uniform_over_all_steps():
    t = DiffusionObjective().draw(Randoms(0, torch.arange(200_000)))
    counts = torch.bincount(t, minlength=STEPS)
    assert len(counts) == STEPS
    assert counts.min() > 120


def test_fixed_interval_asks_for_no_random_number(dit_model, codec):
    align = SraSettings(blocks=(1, 2), interval=Interval(fixed=0.1), head=False)
    module = TrainingModule(dit_model, codec, TrainConfig(steps=1), align)
    assert module.network.ap_head is None

    names = []

    class Watched(Randoms):
        def uniform(self, name, shape=()):
            names.append(name)
            return super().uniform(name, shape)

    losses = module(torch.randn(4, 4, 8, 8), torch.arange(4), Watched(0, torch.arange(4)), module.network)
    assert torch.isfinite(losses.total)
    assert names == ["dropout", "t"]
