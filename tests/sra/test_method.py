"""What holds for SiT and SRA besides the golden numbers (`test_parity.py`)."""

import pytest
import torch

from sra.alignment.sra import SelfRepresentation
from sra.config import SraSettings, TrainConfig
from sra.model.transformer import build, initialise
from sra.model.weights import network_of
from sra.objectives.flow import coefficients, interpolate, score_from_velocity
from sra.training.losses import TrainingModule


def test_hidden_is_what_a_tap_sees(sit, model, codec, helpers):
    network = network_of(helpers.state(sit, "model/"), model, codec, "sit.npz")
    x, t, y = sit["forward/x"], sit["forward/t"], sit["forward/y"]
    with torch.no_grad():
        assert torch.equal(network.hidden(x, t, y, block=2), network(x, t, y, taps=(2,))[1])


def test_head_does_not_change_the_networks_initialisation(model, codec):
    plain, headed = build(model, codec), build(model, codec, head=True)
    initialise(plain, 3)
    initialise(headed, 3)
    states = headed.state_dict()
    assert all(torch.equal(value, states[name]) for name, value in plain.state_dict().items())
    assert torch.count_nonzero(plain.final_layer.linear.weight) == 0


def test_baseline_and_sra_draw_the_same_numbers(model, codec):
    from sra.runtime.random_streams import Randoms

    x, y = torch.randn(8, 4, 8, 8), torch.arange(8)
    config = TrainConfig(steps=1)
    losses = []
    for align in (None, SraSettings(blocks=(2, 3))):
        module = TrainingModule(model, codec, config, align)
        initialise(module.network, 0)
        losses.append(module(x, y, Randoms(0, torch.arange(8)), module.network).generation)
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_interpolant_ends_and_score_identity(path):
    x, noise = torch.randn(3, 4, 2, 2).double(), torch.randn(3, 4, 2, 2).double()
    start, _ = interpolate(path, x, noise, torch.zeros(3).double())
    end, _ = interpolate(path, x, noise, torch.ones(3).double())
    torch.testing.assert_close(start, x)
    torch.testing.assert_close(end, noise, atol=1e-12, rtol=1e-9)
    # For a known pair the score of p(x_t | x) is -noise / sigma.
    t = torch.tensor(0.3).double()
    alpha, sigma, d_alpha, d_sigma = coefficients(path, t)
    x_t, v = alpha * x + sigma * noise, d_alpha * x + d_sigma * noise
    torch.testing.assert_close(score_from_velocity(path, v, x_t, t), -noise / sigma)


def test_public_weight_schedule():
    settings = SraSettings(weight_schedule="public-code")
    assert SelfRepresentation(settings, 256).weight(149) == 0.2
    assert SelfRepresentation(settings, 256).weight(1149) == pytest.approx(0.02)
    assert SelfRepresentation(settings, 512).weight(899) == pytest.approx(0.02)
    assert SelfRepresentation(SraSettings(), 256).weight(1149) == 0.2
