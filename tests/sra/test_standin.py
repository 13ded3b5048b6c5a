"""Stand-ins for published files: of the layout, family and convention that they stand in for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sra import embedded
from sra.common.files import write_json
from sra.config import CodecConfig, ModelConfig, SampleConfig, Size, StandInJob, to_plain
from sra.interop import standin
from sra.model.weights import load_network
from sra.sampling.samplers import SamplerInputs, sample

CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4, channels=4)


def job(family: str, convention: str, **more: Any) -> StandInJob:
    size = Size(depth=3, width=24, heads=3)
    model = ModelConfig(family=family, size=size, patch=2, resolution=32, convention=convention, classes=10)
    return StandInJob(seed=1, codec=CODEC, model=model, **more)


def make(config: StandInJob, out: Path) -> Path:
    write_json(out / "stage.json", {"config": to_plain(config)})
    standin.main(["--config", str(out / "stage.json"), "--out", str(out)])
    return out


@pytest.mark.parametrize(
    ("family", "convention", "dict_of_states"),
    [("sit", "sra", True), ("sit", "vanilla-sit", False), ("dit", "vanilla-dit", False)],
)
def test_weights_load_as_published_ones_and_predict_something(
    family: str, convention: str, dict_of_states: bool, tmp_path: Path
) -> None:
    config = job(family, convention)
    path = make(config, tmp_path) / "weights.pt"
    document = torch.load(path, weights_only=False)
    assert ("ema" in document) == dict_of_states
    state = document["ema"] if dict_of_states else document
    assert any(name.startswith("ap_head.") for name in state) == dict_of_states
    network = load_network(path, config.model, CODEC)
    settings = SampleConfig(steps=3, sampler="ddpm" if family == "dit" else "euler-maruyama", cfg=1.5, cfg_channels=3)
    labels, noise = torch.arange(2), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    inputs = SamplerInputs(labels, noise, lambda _step: torch.zeros_like(noise))
    found = sample(network, settings, config.model, inputs)
    unguided = SampleConfig(steps=3, sampler=settings.sampler)
    plain = sample(network, unguided, config.model, inputs)
    assert torch.isfinite(found).all()
    assert not torch.equal(found, plain)


def test_one_seed_gives_one_network(tmp_path: Path) -> None:
    first, second = (make(job("sit", "sra"), tmp_path / name) / "weights.pt" for name in "ab")
    states = [torch.load(p, weights_only=False)["ema"] for p in (first, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_samples_are_embedded_images(tmp_path: Path) -> None:
    path = make(job("sit", "sra", images=7), tmp_path) / "samples.npz"
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays.files == ["arr_0"]
        assert np.array_equal(arrays["arr_0"], embedded.digits(32)[0][:7])
