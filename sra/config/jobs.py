"""Settings of the jobs that the suite starts: one class per job module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sra.common.errors import ConfigError
from sra.common.validation import STRICT
from sra.config.alignment import AnyAlignment
from sra.config.model import CodecConfig, ModelConfig
from sra.config.sampling import SampleConfig
from sra.config.training import TrainConfig

SPLITS = {"imagenet-train": (1_281_167, 1_000)}
"""Images and classes of the splits whose counts are known (ImageNet-1K)."""
IMAGES_PER_FOLDER = 1000
"""Of prepared images: a folder is finished as one part, with a progress record."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images or latents come from."""

    __pydantic_config__ = STRICT

    images: str | None = None
    """Folder or zip of images (class folders or `dataset.json`), or `embedded:digits`."""
    latents: str | None = None
    """Folder of latents in the public layout or the suite's packed format; then no images are needed."""
    split: str = "train"
    """Name of the split; `imagenet-train` has its counts checked (1,281,167 images, 1,000 classes)."""
    labels: Literal["auto", "folders", "dataset.json"] = "auto"
    """Where labels come from; `auto`: `dataset.json` where there is one."""
    latent_dtype: Literal["float32", "float16"] = "float32"
    """Storage of latents that are packed here (public layout: float32); packed ones are used as they are."""

    def __post_init__(self) -> None:
        if self.images is not None and self.latents is not None:
            raise ConfigError("images: expected images or latents, got both")


@dataclass(frozen=True, kw_only=True)
class ImagesJob:
    """`python -m sra.data.images`: centre-crop images into the suite's image layout."""

    __pydantic_config__ = STRICT

    data: DataConfig
    resolution: int


@dataclass(frozen=True, kw_only=True)
class LatentsJob:
    """`python -m sra.data.latents`: encode images into packed latents, or pack public-layout latents."""

    __pydantic_config__ = STRICT

    data: DataConfig
    codec: CodecConfig
    resolution: int
    batch: int = 64
    flipped: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """`python -m sra.training.train`: one training run."""

    __pydantic_config__ = STRICT

    seed: int
    codec: CodecConfig
    model: ModelConfig
    train: TrainConfig
    align: AnyAlignment | None = None


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """`python -m sra.sampling.sample`: images from one checkpoint."""

    __pydantic_config__ = STRICT

    seed: int
    codec: CodecConfig
    model: ModelConfig
    sample: SampleConfig
    checkpoint: str
    """A file of weights: the suite's safetensors or a published `.pt`."""


@dataclass(frozen=True, kw_only=True)
class StandInJob:
    """`python -m sra.interop.standin`: what a smoke run uses in place of a published file."""

    __pydantic_config__ = STRICT

    seed: int
    codec: CodecConfig
    model: ModelConfig
    images: int | None = None
    """Number of images of a sample file; None: weights."""
