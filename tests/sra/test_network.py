"""Sizes, parameter counts and what initialisation leaves, without golden numbers."""

import pytest
import torch

from sra.config import SIZES, CodecConfig, EmaConfig, ModelConfig
from sra.model.transformer import build, initialise
from sra.training.ema import decay_at, update_ema


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patch", [2, 4, 8])
@pytest.mark.parametrize(("family", "convention", "outputs"), [("sit", "sra", 4), ("dit", "vanilla-dit", 8)])
def test_all_sizes_and_patches_build(size, patch, family, convention, outputs):
    with torch.device("meta"):
        network = build(ModelConfig(size=size, patch=patch, family=family, convention=convention), CodecConfig())
    assert network.tokens == (32 // patch) ** 2
    assert network.final_layer.linear.out_features == patch * patch * outputs
    assert (len(network.blocks), network.pos_embed.shape[2]) == (SIZES[size].depth, SIZES[size].width)


def test_parameters_of_xl_and_of_its_head():
    model = ModelConfig(size="XL", convention="sra")
    with torch.device("meta"):
        plain, headed = build(model, CodecConfig()), build(model, CodecConfig(), head=True)
    assert parameters(plain) == pytest.approx(675e6, rel=0.002)
    assert parameters(headed) - parameters(plain) == pytest.approx(5.3e6, rel=0.01)


def test_positions_are_frozen_outside_optimizer_and_average():
    network = build(ModelConfig(size="S", patch=8, convention="sra"), CodecConfig())
    assert "pos_embed" not in dict(network.named_parameters())
    assert "pos_embed" in network.state_dict()


def test_a_fresh_network_predicts_zero_and_leaves_its_tokens_alone():
    network = build(ModelConfig(size="S", patch=8, convention="sra"), CodecConfig())
    initialise(network, 0)
    x, t, y = torch.randn(2, 4, 32, 32), torch.rand(2), torch.arange(2)
    with torch.no_grad():
        out, hidden = network(x, t, y, taps=(12,))
        assert torch.count_nonzero(out) == 0
        assert torch.equal(hidden, network.x_embedder(x) + network.pos_embed)


def test_average_is_constant_or_ramped():
    constant, ramp = EmaConfig(), EmaConfig(decay=0.99, schedule="ramp")
    assert decay_at(constant, 0) == decay_at(constant, 10**6) == 0.9999
    assert [decay_at(ramp, k) for k in (0, 8, 10**6)] == [0.1, 0.5, 0.99]
    average, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    expected = 0.5 * average.weight + 0.5 * other.weight
    update_ema(average, other, ramp, 8)
    torch.testing.assert_close(average.weight, expected)
