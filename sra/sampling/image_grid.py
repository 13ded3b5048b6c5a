"""Grids of samples as one PNG: of a finished set, and of a network during training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sra.common.files import replacing
from sra.config import SampleConfig, TrainJob
from sra.model.transformer import DiffusionTransformer
from sra.model.vae import Codec, load_codec
from sra.runtime.random_streams import Randoms
from sra.sampling.samplers import SamplerInputs, sample

EDGE = 8
"""Images per row and per column."""
# SiT's training script draws 50 Euler steps at guidance 4 over all t; DiT's draws no samples.
GRID_SAMPLERS = {
    "sit": SampleConfig(sampler="euler", steps=50, cfg=4.0),
    "dit": SampleConfig(sampler="ddpm", steps=50, cfg=4.0),
}


def write_grid(images: np.ndarray[Any, Any], labels: Iterable[int], path: Path) -> None:
    """Write up to 64 images (N, H, W, 3) uint8, row by row and each below its label, as one PNG."""
    edge = images.shape[1]
    font = max(10, edge // 8)
    strip = font + 4
    height = strip + edge
    sheet = Image.new("RGB", (EDGE * edge, EDGE * height), "white")
    draw, typeface = ImageDraw.Draw(sheet), ImageFont.load_default(font)
    for index, (image, label) in enumerate(zip(images[: EDGE * EDGE], labels, strict=False)):
        row, column = divmod(index, EDGE)
        left, top = column * edge, row * height + strip
        draw.text((left + edge // 2, top - 1), str(label), fill="black", font=typeface, anchor="mb")
        sheet.paste(Image.fromarray(image), (left, top))
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


class TrainingGrid:
    """Samples of the same 64 noises and labels, drawn repeatedly during training.

    They have their own random streams, so training sees the same numbers with and without them.
    """

    def __init__(self, job: TrainJob, out: Path, device: torch.device) -> None:
        self.job, self.out, self.device = job, out, device
        self._codec: Codec | None = None

    def draw(self, network: DiffusionTransformer, step: int) -> None:
        """Write `step-<00000000>.png` of the EMA network."""
        if self._codec is None:
            self._codec = load_codec(self.job.codec, self.device)
        shape = self.job.codec.latent_shape(self.job.model.resolution)
        indices = torch.arange(EDGE * EDGE, device=self.device)
        randoms = Randoms(self.job.seed, indices)
        labels = indices % self.job.model.classes
        inputs = SamplerInputs(
            labels,
            randoms.normal("grid.initial", shape),
            lambda k: randoms.normal(f"grid.step.{k}", shape),
        )
        z = sample(network, GRID_SAMPLERS[self.job.model.family], self.job.model, inputs)
        images = self._codec.decode(z.float()).cpu().numpy()
        write_grid(images, labels.tolist(), self.out / f"step-{step:08d}.png")
