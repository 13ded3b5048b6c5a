"""Where the public code differs from the paper, each row is a named option. One test a row."""

import pytest
import torch

from sra.alignment.distances import DISTANCES
from sra.alignment.sra import SelfRepresentation
from sra.config import SRA_BLOCKS, CodecConfig, EmaConfig, Interval, ModelConfig, Size, SraSettings, TrainConfig
from sra.model.transformer import build, initialise
from sra.objectives.ddpm import DiffusionObjective
from sra.objectives.flow import FlowObjective
from sra.runtime.random_streams import Randoms
from sra.training.losses import TrainingModule

PAPER = SraSettings()


def test_paper_settings_are_the_defaults():
    assert (PAPER.distance, PAPER.weight, PAPER.weight_schedule) == ("smooth-l1", 0.2, "constant")
    assert (PAPER.interval, PAPER.head) == (Interval(random=0.2), True)
    assert EmaConfig().decay == 0.9999
    for family, sizes in SRA_BLOCKS.items():
        for size, blocks in sizes.items():
            convention = {"sit": "sra", "dit": "vanilla-dit"}[family]
            model = ModelConfig(family=family, size=size, convention=convention)
            assert PAPER.resolved(model, CodecConfig()).blocks == blocks


def test_sit_distance_of_the_newer_code():
    newer = SraSettings(distance="cosine-tokens", weight=0.5)
    a, b = torch.randn(2, 3, 16, 8)
    assert DISTANCES[newer.distance](a, b).shape == (3, 8)
    assert SelfRepresentation(newer, 256).weight(500) == 0.5


def test_cosine_is_per_token_in_the_paper_and_over_tokens_in_the_code():
    a = torch.randn(2, 16, 8)
    scaled = a * torch.rand(2, 16, 1).add(0.5)
    assert DISTANCES["cosine"](a, scaled).shape == (2, 16)
    torch.testing.assert_close(DISTANCES["cosine"](a, scaled), torch.zeros(2, 16), atol=1e-6, rtol=0)
    assert DISTANCES["cosine-tokens"](a, scaled).mean() > 1e-3
    columns = a * torch.rand(2, 1, 8).add(0.5)
    torch.testing.assert_close(DISTANCES["cosine-tokens"](a, columns), torch.zeros(2, 8), atol=1e-6, rtol=0)


def test_smooth_l1_joins_its_halves_at_beta():
    zero = torch.zeros(1)
    assert float(DISTANCES["smooth-l1"](zero, torch.tensor([0.05]))) == pytest.approx(0.025)
    assert float(DISTANCES["smooth-l1"](zero, torch.tensor([1.05]))) == pytest.approx(1.025)
    assert float(DISTANCES["l1"](zero, torch.tensor([2.0]))) == 2
    assert float(DISTANCES["l2"](zero, torch.tensor([2.0]))) == 4


def test_weight_schedule_is_whole_epochs_at_both_resolutions():
    public = SraSettings(weight_schedule="public-code")
    assert [SelfRepresentation(public, 256).weight(e) for e in (0, 149, 149.9)] == [0.2] * 3
    assert SelfRepresentation(public, 256).weight(1149.5) == pytest.approx(0.02)
    assert SelfRepresentation(public, 256).weight(150) == pytest.approx(0.2 * 0.1 ** (1 / 1000))
    assert SelfRepresentation(public, 512).weight(99) == 0.2
    assert SelfRepresentation(public, 512).weight(899) == pytest.approx(0.02)
    assert SelfRepresentation(PAPER, 256).weight(1149) == 0.2


def test_dit_weight_of_the_code_decays_the_same_way():
    public = SraSettings(weight=0.04, weight_schedule="public-code")
    assert SelfRepresentation(public, 256).weight(149) == 0.04
    assert SelfRepresentation(public, 256).weight(1149) == pytest.approx(0.004)


@pytest.mark.parametrize(("precision", "inside"), [("autocast", torch.bfloat16), ("fp32", torch.float32)])
def test_teacher_precision(precision, inside):
    model = ModelConfig(size=Size(depth=2, width=16, heads=2), resolution=64, convention="sra")
    align = SraSettings(blocks=(1, 2), teacher_precision=precision)
    module = TrainingModule(model, CodecConfig(), TrainConfig(steps=1), align)
    initialise(module.network, 0)
    teacher = build(model, CodecConfig(), head=True).eval()
    seen = {}
    for name, network in (("student", module.network), ("teacher", teacher)):
        network.blocks[0].mlp.fc1.register_forward_hook(lambda _, a, out, name=name: seen.__setitem__(name, out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = module(torch.randn(2, 4, 8, 8), torch.arange(2), Randoms(0, torch.arange(2)), teacher)
    assert seen == {"student": torch.bfloat16, "teacher": inside}
    assert losses.total.dtype == torch.float32


@pytest.mark.parametrize("span", [0.1, 0.2])
def test_interval_of_the_dit_parser_and_of_its_readme(span):
    interval = Interval(random=span)
    uniform = Randoms(0, torch.arange(20_000)).uniform("align.time")
    t = torch.full((20_000,), 600)
    difference = t - DiffusionObjective().teacher_time(t, interval.span, uniform)
    assert (int(difference.min()), int(difference.max())) == (0, round(1000 * span) - 1)


def test_interval_random_or_fixed_on_sit():
    flow, t = FlowObjective("linear", "uniform"), torch.tensor([0.0, 0.1, 0.9, 1.0])
    torch.testing.assert_close(flow.teacher_time(t, 0.2, None), torch.tensor([0.0, 0.0, 0.7, 0.8]))
    torch.testing.assert_close(flow.teacher_time(t, 0.2, torch.full((4,), 0.5)), torch.tensor([0.0, 0.0, 0.8, 0.9]))
    for wrong in ({}, {"random": 0.1, "fixed": 0.1}, {"fixed": 1.5}):
        with pytest.raises(ValueError, match="interval"):
            Interval(**wrong)


def test_s_models_build_but_have_no_published_blocks():
    model = ModelConfig(size="S", patch=8, convention="sra")
    assert build(model, CodecConfig(), head=True).ap_head.linear1.in_features == 384
    with pytest.raises(ValueError, match=r"align\.blocks: .*SiT-S/8"):
        PAPER.resolved(model, CodecConfig())
    assert SraSettings(blocks=(3, 8)).resolved(model, CodecConfig()).blocks == (3, 8)
