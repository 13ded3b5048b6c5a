"""Counted work: the published numbers, and what torch counts when it runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sra.config import (
    CodecConfig,
    DispersiveSettings,
    DtsAsSettings,
    LayerSyncSettings,
    ModelConfig,
    SelfFlowSettings,
    Size,
    Sra2Settings,
    SraSettings,
    TrainConfig,
)
from sra.model.flops import count, training_macs
from sra.model.transformer import build
from sra.runtime.random_streams import Randoms
from sra.training.losses import TrainingModule

CODEC = CodecConfig()
# GMACs of one forward pass (DiT paper, Table 4, and the SiT and SRA papers).
PUBLISHED = {("S", 256): 6.06, ("B", 256): 23.01, ("L", 256): 80.71, ("XL", 256): 118.64, ("XL", 512): 524.6}


@pytest.mark.parametrize(("size", "resolution"), PUBLISHED)
def test_published_counts(size, resolution):
    published = PUBLISHED[size, resolution]
    model = ModelConfig(family="dit", size=size, resolution=resolution, convention="vanilla-dit")
    assert count(model, CODEC).forward / 1e9 == pytest.approx(published, abs=0.05 if resolution == 512 else 0.005)


@pytest.mark.parametrize("family", ["sit", "dit"])
def test_forward_is_what_torch_counts(family):
    convention = {"sit": "sra", "dit": "vanilla-dit"}[family]
    model = ModelConfig(family=family, size="S", resolution=128, convention=convention)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(model, CODEC)(torch.zeros(2, 4, 16, 16), torch.zeros(2), torch.zeros(2, dtype=torch.long))
    norms = 8 * 8 * 384 * (2 * 12 + 1)  # torch counts products only
    assert counter.get_total_flops() == 2 * 2 * (count(model, CODEC).forward - norms)


ALIGNMENTS = {
    "none": None,
    "sra": SraSettings(blocks=(1, 2)),
    "sra2": Sra2Settings(block=1, mlp_width=48, mlp_activation="silu"),
    "self-flow": SelfFlowSettings(blocks=(1, 2)),
    "dts-as": DtsAsSettings(blocks=(1, 3)),
    "layersync": LayerSyncSettings(blocks=(1, 3)),
    "dispersive": DispersiveSettings(local_batch=2),
}


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_a_training_step_is_what_torch_counts(name):
    """But for norms, and for products that no gradient flows through: those of the first layers' inputs."""
    model = ModelConfig(size=Size(depth=4, width=64, heads=2), resolution=128, classes=10, convention="sra")
    align = ALIGNMENTS[name]
    align = None if align is None else align.resolved(model, CODEC)
    module = TrainingModule(model, CODEC, TrainConfig(steps=1, global_batch=2), align)
    teacher = build(model, CODEC).requires_grad_(False)
    x = torch.zeros(2, 4, 16, 16)
    # The kernel for CPUs is not in torch's count; plain products are.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(x, torch.zeros(2, dtype=torch.long), Randoms(0, torch.arange(2)), teacher).total.backward()
    counted = counter.get_total_flops() / 2 / 2
    assert counted == pytest.approx(training_macs(model, CODEC, align), rel=0.015)
