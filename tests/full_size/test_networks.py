"""Full-size networks with random weights on a few images: SiT-XL/2 with SD's autoencoder, and the 2015 Inception."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file

from benchmark.plan.stages import ScoreJob
from evaluator.tools import PROTOCOL_TOOLS, TOOL_MODULES
from sra.common.npz import Array, write_images
from sra.config import CodecConfig, ModelConfig, SampleConfig, SampleJob, to_plain
from sra.model.transformer import build, initialise
from tests.full_size import sizes as full

INCEPTION = full.ROOT / "tests/evaluator/inception_graph.py"


def make_networks(folder: Path, model: ModelConfig) -> tuple[CodecConfig, str]:
    """SD's autoencoder and SiT-XL/2, with random weights."""
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    ).save_pretrained(folder / "codec")
    codec, weights = CodecConfig(path=str(folder / "codec")), folder / "step-00000001.safetensors"
    network = build(model, codec)
    initialise(network, 0)
    save_file(network.state_dict(), weights)
    return codec, str(weights)


@pytest.mark.parametrize(("resolution", "images"), [(256, 4), (512, 1)])
def test_sampling(
    space: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch, resolution: int, images: int
) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    folder, model = space(6), ModelConfig(size="XL", resolution=resolution, convention="sra")
    codec, checkpoint = make_networks(folder, model)
    sample = SampleConfig(images=images, batch=images, steps=3, precision="fp32")
    job = SampleJob(seed=0, codec=codec, model=model, sample=sample, checkpoint=checkpoint)
    out = folder / "sample"
    out.mkdir()
    (out / "stage.json").write_text(json.dumps({"config": to_plain(job)}))
    arguments = ("-m", "sra.sampling.sample", "--config", out / "stage.json", "--out", out)
    used = full.run(*arguments, name=f"SiT-XL/2, {images} of {resolution} px")
    assert used.code == 0, used.text
    assert np.load(out / "samples.npz")["arr_0"].shape == (images, resolution, resolution, 3)
    planned = full.planned(job)[1].memory_bytes
    assert planned is not None
    full.say("SiT-XL/2", f"{planned / 1e9:.2f} GB planned")
    assert used.peak_bytes == pytest.approx(planned, rel=0.1)


def images(count: int, pixels: int) -> Iterator[Array]:
    generator = np.random.default_rng(count)
    for _ in range(count):
        yield generator.integers(0, 256, (pixels // 8, pixels // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.mark.parametrize(("pixels", "samples"), [(256, 2000), (512, 200)])
def test_scoring(space: Callable[[float], Path], pixels: int, samples: int) -> None:
    """TensorFlow, and the same graph converted to torch: memory, disk as planned, and the same metrics."""
    folder, references = space(3), samples // 4
    assert full.run(INCEPTION, folder, 1, name="make Inception").code == 0
    write_images(folder / "samples.npz", (samples, pixels, pixels, 3), images(samples, pixels))
    write_images(folder / "reference.npz", (references, pixels, pixels, 3), images(references, pixels))
    graph, metrics = folder / "inception.pb", {}
    for tool in PROTOCOL_TOOLS:
        out = folder / tool
        scoring = ["-m", TOOL_MODULES[tool], "--samples", folder / "samples.npz", "--json", out / "scores.json"]
        scoring += ["--reference", folder / "reference.npz", "--graph", graph]
        scoring += ["--cache", out / "cache", "--views", out / "views"]
        used = full.run(*scoring, name=f"{tool}, {samples} of {pixels} px")
        assert used.code == 0, used.text
        full.say(tool, used.text)
        assert used.peak_bytes < 3.2e9 + graph.stat().st_size  # measured: 3.10 GB at most
        (out / "stage.json").touch()
        job = ScoreJob(tool=tool, reference="", graph=str(graph), images=samples)
        full.Most(out).check(tool, full.planned(job, images=references)[0])
        metrics[tool] = json.loads((out / "scores.json").read_text())["metrics"]
        full.say(tool, str(metrics[tool]))
    assert metrics["adm-torch"] == pytest.approx(metrics["adm"], rel=1e-3)
