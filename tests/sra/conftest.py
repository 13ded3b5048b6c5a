"""Golden numbers and the small networks they belong to."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sra.config import CodecConfig, ModelConfig, Size
from sra.parity.golden import open_golden

GOLDEN = Path(__file__).parents[1] / "golden"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sit() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "sit.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture(scope="session")
def model() -> ModelConfig:
    return open_golden(GOLDEN).config.model("sit")


@pytest.fixture(scope="session")
def codec() -> CodecConfig:
    return CodecConfig()


def state(arrays: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 distance."""
    found, expected = found.detach().double(), expected.double()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


@pytest.fixture(scope="session")
def helpers() -> Any:
    return type("helpers", (), {"state": staticmethod(state), "error": staticmethod(error)})


@pytest.fixture(scope="session")
def small() -> Any:
    """The smallest run on digits: settings of its codec, network and training."""
    from sra.config import SraSettings, TrainConfig, TrainJob

    codec = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
    network = ModelConfig(size=Size(depth=2, width=16, heads=2), resolution=32, classes=10, convention="sra")
    train = TrainConfig(steps=4, global_batch=8, lr=1e-3, precision="fp32", log_every=1)
    job = TrainJob(seed=0, codec=codec, model=network, train=train, align=SraSettings(blocks=(1, 2)))
    return SimpleNamespace(codec=codec, model=network, train=train, job=job)


@pytest.fixture(scope="session")
def digit_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty digits as the images stage leaves them."""
    from PIL import Image

    from sra import embedded
    from sra.config import DataConfig, ImagesJob
    from sra.data.images import prepare

    root = tmp_path_factory.mktemp("digits")
    pixels, classes = embedded.digits(32)
    for i in range(60):
        place = root / "raw" / str(classes[i]) / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(place)
    prepare(ImagesJob(data=DataConfig(images=str(root / "raw")), resolution=32), root / "images")
    return root / "images"


@pytest.fixture(scope="session")
def digit_latents(small: Any, digit_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as packed latents, mirrored ones included."""
    from sra.config import DataConfig, LatentsJob
    from sra.data.latents import encode

    out = tmp_path_factory.mktemp("latents") / "packed"
    config = LatentsJob(data=DataConfig(images="unused"), codec=small.codec, resolution=32, flipped=True)
    encode(config, digit_images, out)
    return out


@pytest.fixture(scope="session")
def noise_latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred packed latents of noise, ten classes: for runs whose images do not matter. Nobody writes to them."""
    folder = tmp_path_factory.mktemp("noise-latents")
    random = np.random.default_rng(0)
    np.save(folder / "moments.npy", np.abs(random.standard_normal((100, 8, 8, 8))).astype(np.float32))
    np.save(folder / "labels.npy", random.integers(0, 10, 100))
    (folder / "latents.json").write_text(json.dumps({"count": 100, "classes": 10, "dtype": "float32"}))
    return folder


@pytest.fixture(scope="session")
def train() -> Any:
    """Train a configuration in a folder; returns the trainer."""
    from sra.training.train import Trainer

    def run(config: Any, latents: Path, out: Path) -> Trainer:
        out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, latents, out)
        trainer.run()
        return trainer

    return run
