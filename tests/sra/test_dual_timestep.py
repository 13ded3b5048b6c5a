"""Two noise levels in one image: groups, separation, what the teacher sees (golden numbers: `test_parity.py`)."""

import pytest
import torch

from sra.config import CodecConfig, DtsAsSettings, ModelConfig, SelfFlowSettings, TrainConfig
from sra.model.token_groups import Groups
from sra.model.transformer import build, initialise
from sra.runtime.random_streams import Randoms
from sra.training.losses import TrainingModule

LIMIT = 1e-6


@pytest.fixture
def network(sit, model, codec, helpers):
    network = build(model, codec, head=True).eval()
    network.load_state_dict(helpers.state(sit, "model/"))
    return network


def drawn(count, tokens=16, separated=False):
    order = Randoms(0, torch.arange(count)).uniform("align.group", (tokens,)).argsort(dim=1, stable=True)
    return Groups(order, (tokens // 4, tokens - tokens // 4), separated=separated)


def test_cutting_and_joining_are_inverse():
    tokens, groups = torch.randn(3, 16, 5), drawn(3)
    assert groups.cut(tokens).shape == (12, 4, 5)
    assert torch.equal(groups.join(groups.cut(tokens)), tokens)


def test_group_sizes_are_exact_and_positions_uniform():
    groups = drawn(4000)
    first = groups.per_token(torch.tensor([[1.0], [0.0]]).expand(2, 4000))
    assert torch.equal(first.sum(1), torch.full((4000,), 4.0))
    assert (first.mean(0) - 0.25).abs().max() < 0.03
    assert len(first.unique(dim=0)) > 1000


def test_one_time_for_both_groups_is_no_group(network, helpers):
    x, y, t = torch.randn(3, 4, 8, 8), torch.arange(3), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        plain, hidden = network(x, t, y, taps=(2,))
        grouped, tapped = network(x, torch.stack([t, t]), y, taps=(2,), groups=drawn(3))
    assert helpers.error(grouped, plain) < LIMIT
    assert helpers.error(tapped, hidden) < LIMIT


@pytest.mark.parametrize("separated", [False, True])
def test_separation_blocks_exactly_the_other_group(separated, network):
    groups = drawn(1, separated=separated)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    out = network(x, torch.tensor([[0.2], [0.7]]), torch.tensor([3]), groups=groups)
    for mine in range(2):
        weights = torch.eye(2)[mine][:, None]
        cells = network.per_cell(groups.per_token(weights))
        (gradient,) = torch.autograd.grad((out * cells).sum(), x, retain_graph=True)
        per_token = network.patchify(gradient).abs().sum(2)
        inside = groups.per_token(weights).bool()
        assert (per_token[inside] > 0).all()
        assert bool((per_token[~inside] == 0).all()) == separated


def test_conditions_are_computed_per_group_not_per_token(network):
    rows = []
    for layer in (*network.blocks, network.final_layer):
        layer.adaLN_modulation[1].register_forward_hook(lambda _, inputs, out: rows.append(inputs[0].shape))
    with torch.no_grad():
        network(torch.randn(3, 4, 8, 8), torch.rand(2, 3), torch.arange(3), groups=drawn(3))
    assert set(rows) == {(2, 3, 32)}
    assert len(rows) == 5


def test_each_token_is_noised_at_its_groups_time(network):
    groups, t = drawn(2), torch.tensor([[0.1, 0.2], [0.8, 0.9]])
    cells = network.per_cell(groups.per_token(t))
    for sample in range(2):
        for place, position in enumerate(groups.order[sample].tolist()):
            row, column = divmod(position, 4)
            patch = cells[sample, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert (patch == t[0 if place < 4 else 1, sample]).all()


@pytest.mark.parametrize(
    ("family", "resolution", "key"), [("dit", 64, "model.family"), ("sit", 48, "model.resolution")]
)
def test_what_it_does_not_fit_is_refused(family, resolution, key):
    model = ModelConfig(family=family, size="B", resolution=resolution, convention="sra")
    with pytest.raises(ValueError, match=f"^{key}: expected"):
        DtsAsSettings().resolved(model, CodecConfig())


def test_defaults_are_those_of_the_published_rows():
    model, codec = ModelConfig(size="B", convention="sra"), CodecConfig()
    dts, flow = DtsAsSettings().resolved(model, codec), SelfFlowSettings().resolved(model, codec)
    assert (dts.blocks, dts.teacher, dts.separated) == ((3, 8), "own-times", True)
    assert (flow.blocks, flow.teacher, flow.separated) == ((3, 8), "all-at-min", False)
    for settings in (dts, flow):
        assert (settings.weight, settings.distance, settings.interval, settings.head) == (
            0.5,
            "cosine-tokens",
            0.2,
            True,
        )


def test_teacher_keeps_to_its_block_and_gets_no_gradient(model, codec):
    align = DtsAsSettings(blocks=(1, 2))
    module = TrainingModule(model, codec, TrainConfig(steps=1), align)
    initialise(module.network, 0)
    teacher = build(model, codec, head=True).eval()
    called = []
    for number, block in enumerate(teacher.blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: called.append(number))
    losses = module(torch.randn(4, 4, 8, 8), torch.arange(4), Randoms(0, torch.arange(4)), teacher)
    losses.total.backward()
    assert called == [1, 2]
    assert all(p.grad is None for p in teacher.parameters())
