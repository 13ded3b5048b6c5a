"""Pictures of many samples: of a finished set, and of a network that is being trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sra.common.files import replacing
from sra.config import SampleConfig, TrainJob
from sra.model.transformer import DiffusionTransformer
from sra.model.vae import Codec, load_codec
from sra.runtime.random_streams import Randoms
from sra.sampling.samplers import sample

EDGE = 8
"""Rows and columns."""
# What the authors' training script draws: 50 Euler steps at guidance 4 over all t. DiT's has no pictures.
SETTINGS = {
    "sit": SampleConfig(sampler="euler", steps=50, cfg=4.0),
    "dit": SampleConfig(sampler="ddpm", steps=50, cfg=4.0),
}


def write_grid(images: np.ndarray[Any, Any], path: Path) -> None:
    """Up to 64 images (N, H, W, 3) uint8, row by row, as one PNG."""
    edge = images.shape[1]
    sheet = np.full((EDGE * edge, EDGE * edge, 3), 255, np.uint8)
    for index, image in enumerate(images[: EDGE * EDGE]):
        row, column = divmod(index, EDGE)
        sheet[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = image
    with replacing(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


class TrainingGrid:
    """The same 64 noises and labels, drawn again and again while a network learns.

    Its random numbers have streams of their own, so training sees the same numbers with and without it.
    """

    def __init__(self, job: TrainJob, out: Path, device: torch.device) -> None:
        self.job, self.out, self.device = job, out, device
        self._codec: Codec | None = None

    def draw(self, network: DiffusionTransformer, step: int) -> None:
        """Write `step-<00000000>.png` of a network in eval mode (the EMA's)."""
        if self._codec is None:
            self._codec = load_codec(self.job.codec, self.device)
        side = self.job.model.resolution // self.job.codec.factor
        shape = (self.job.codec.channels, side, side)
        indices = torch.arange(EDGE * EDGE, device=self.device)
        randoms = Randoms(self.job.seed, indices)
        z = sample(
            network,
            SETTINGS[self.job.model.family],
            self.job.model,
            indices % self.job.model.classes,
            randoms.normal("grid.initial", shape),
            lambda k: randoms.normal(f"grid.step.{k}", shape),
        )
        write_grid(self._codec.decode(z.float()).cpu().numpy(), self.out / f"step-{step:08d}.png")
