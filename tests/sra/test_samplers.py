"""SiT's samplers on a velocity field that is known in closed form: normal data of deviation S, one number a cell."""

import itertools
import math

import pytest
import torch

from sra.common.errors import ConfigError, DataError
from sra.config import ModelConfig, SampleConfig
from sra.objectives.flow import coefficients
from sra.sampling.samplers import SamplerInputs, guided, mixed, sample, velocity_of

S = 0.5


class KnownField(torch.nn.Module):
    """The exact marginal velocity of data N(0, S^2): linear in x, so each cell goes its own way."""

    null_label = 7

    def __init__(self, path, seen=None):
        super().__init__()
        self.path, self.seen = path, [] if seen is None else seen
        self.shape = type("Shape", (), {"channels": 1})
        self.precision = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, t, y):
        self.seen.append((float(t[0]), y))
        alpha, sigma, d_alpha, d_sigma = (c.view(-1, 1, 1, 1) for c in coefficients(self.path, t))
        return x * (d_alpha * alpha * S**2 + d_sigma * sigma) / (alpha**2 * S**2 + sigma**2)


def model(path="linear"):
    return ModelConfig(convention="sra", interpolant=path)


def run(path, sampler, steps, x, noise=None, **settings):
    config = SampleConfig(sampler=sampler, steps=steps, **settings)
    return sample(KnownField(path), config, model(path), SamplerInputs(torch.zeros(len(x)).long(), x, noise))


@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_ode_samplers_converge_at_their_order(path, sampler, order):
    x = torch.ones(1, 1, 1, 1)
    errors = [abs(float(run(path, sampler, n, x)) - S) for n in (40, 80, 160)]
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_dopri5_reaches_the_data_and_chooses_its_own_steps(path):
    # The last step goes beyond the end, and its interpolation there is not controlled.
    assert float(run(path, "dopri5", 1, torch.ones(1, 1, 1, 1))) == pytest.approx(S, rel=0.1)
    one, other = (run(path, "dopri5", steps, torch.ones(1, 1, 1, 1)) for steps in (2, 250))
    assert torch.equal(one, other)


def test_dopri5_refuses_a_network_that_gives_no_numbers():
    with pytest.raises(DataError, match="sampler dopri5: expected velocities without NaN"):
        run("linear", "dopri5", 1, torch.full((1, 1, 1, 1), math.nan))


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_sde_reaches_the_variance_of_the_data(path):
    """Cell 0 starts at 1, cell k + 1 gets the k-th step's noise alone: the sum of squares is the variance, exactly."""

    def deviation(steps):
        cells = torch.eye(steps, dtype=torch.float64).view(steps, 1, 1, 1, steps)
        found = run(path, "euler-maruyama", steps, cells[0], lambda k: cells[k + 1], last_step=1 / steps)
        return float(found.square().sum().sqrt())

    errors = [abs(deviation(n) - S) for n in (100, 200, 400)]
    assert errors[-1] < 0.01
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


def test_sde_asks_for_one_noise_a_step_but_the_last():
    asked = []

    def noise(k):
        asked.append(k)
        return torch.zeros(1, 1, 1, 1)

    run("linear", "euler-maruyama", 5, torch.ones(1, 1, 1, 1), noise)
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 6), ("heun", 11), ("euler-maruyama", 6)])
def test_number_of_network_evaluations(sampler, evaluations):
    network = KnownField("linear")
    config = SampleConfig(sampler=sampler, steps=6)
    x = torch.ones(1, 1, 1, 1)
    sample(network, config, model(), SamplerInputs(torch.zeros(1).long(), x, lambda k: x))
    assert len(network.seen) == evaluations


def test_vanilla_sit_is_called_with_reversed_time_and_negated():
    network = KnownField("linear")
    plain = velocity_of(network, model())
    vanilla = velocity_of(network, ModelConfig(convention="vanilla-sit"))
    x, y, t = torch.ones(1, 1, 1, 1).double(), torch.zeros(1).long(), torch.tensor(0.3).double()
    assert torch.equal(vanilla(x, t, y), -plain(x, 1 - t, y))
    assert network.seen[0][0] == pytest.approx(0.7)


def test_guidance_acts_in_its_interval_and_heun_inherits_the_decision():
    network = KnownField("linear")
    config = SampleConfig(sampler="heun", steps=4, cfg=2.0, guidance_interval=(0.25, 0.75))
    sample(network, config, model(), SamplerInputs(torch.zeros(1).long(), torch.ones(1, 1, 1, 1), None))
    doubled = [(t, len(y) == 2) for t, y in network.seen]
    # Starts at 1, 0.75 and 0.5 are corrected; the evaluation at an end belongs to its step's start.
    expected = [(1, False), (0.75, False), (0.75, True), (0.5, True), (0.5, True), (0.25, True), (0.25, True)]
    assert doubled == expected
    assert all(int(y[1]) == network.null_label for _, y in network.seen if len(y) == 2)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_no_guidance_at_or_below_one(scale):
    network = KnownField("linear")
    drift = velocity_of(network, model())
    assert guided(drift, SampleConfig(cfg=scale), network.null_label, torch.tensor(0.5)) is drift


def test_mixing_guides_the_first_channels_and_leaves_each_half_its_others():
    doubled = torch.randn(6, 8, 2, 2)
    for channels in (3, 4):
        found = mixed(doubled, 1.5, channels)
        expected = doubled[3:, :channels] + 1.5 * (doubled[:3, :channels] - doubled[3:, :channels])
        assert torch.equal(found[:3, :channels], expected)
        assert torch.equal(found[3:, :channels], expected)
        assert torch.equal(found[:, channels:], doubled[:, channels:])


def test_a_sampler_of_the_other_family_is_refused():
    with pytest.raises(ConfigError, match=r"sample\.sampler: expected euler, heun, dopri5 or euler-maruyama"):
        run("linear", "ddpm", 5, torch.ones(1, 1, 1, 1))
