"""Golden numbers and the small networks they belong to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sra.config import CodecConfig, ModelConfig
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
