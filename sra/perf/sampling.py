"""Sampling: the samplers and the decoder of `sra.sampling.sample`, with random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sra.common.errors import UserError
from sra.config import ModelConfig, SampleConfig
from sra.model.transformer import build, compile_blocks, initialise
from sra.perf.cases import CODEC, Mode
from sra.perf.clock import Clock
from sra.runtime.precision import autocast, set_tf32
from sra.runtime.random_streams import Randoms
from sra.sampling.decode import Decoder, behind
from sra.sampling.samplers import sample


def make_codec(name: str, device: torch.device) -> Any:
    """The decoder to measure: `none`, `random` (that of Stable Diffusion with random weights), or a codec's path.

    Raises:
        UserError: it needs diffusers, which is not installed.
    """
    if name == "none":
        return None
    from sra.model.vae import Codec, load_codec

    try:
        if name != "random":
            return load_codec(dataclasses.replace(CODEC, path=name), device)
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError as error:
        raise UserError(f"--codec {name}: needs diffusers, which is not installed; allowed without it: none") from error
    widths = (128, 256, 512, 512)
    module = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=CODEC.channels,
    )
    return Codec(module, CODEC.scale, device)


class Encoding:
    """Batches of images through a codec's encoder."""

    def __init__(self, codec: Any, resolution: int, batch: int) -> None:
        self.clock, self.codec = Clock(codec.device), codec
        generator = torch.Generator().manual_seed(0)
        shape = (batch, resolution, resolution, 3)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    def run(self, rounds: int) -> None:
        """So many batches, fetched as they are when they are written."""
        for _ in range(rounds):
            with self.clock("encode"):
                self.codec.moments(self.images).cpu()


class Sampling:
    """Batches of images of one network in one mode."""

    def __init__(
        self, model: ModelConfig, settings: SampleConfig, mode: Mode, folder: Path, device: torch.device, codec: Any
    ) -> None:
        """Build what a run would.

        Args:
            model: the network.
            settings: sampler, steps, guidance, precision, batch.
            mode: how to compute.
            folder: where images are written.
            device: to compute on.
            codec: a `sra.model.vae.Codec`; None: latents are fetched and not decoded.
        """
        self.model, self.settings, self.speed, self.folder = model, settings, mode.speed, folder
        self.png, self.device, self.clock = mode.reference, device, Clock(device)
        self.decoder = None
        if codec is not None:
            self.decoder = Decoder(codec, channels_last=mode.speed.codec == "channels-last")
        self.network = build(model, CODEC)
        initialise(self.network, 0)
        self.network.to(device).eval()
        self.evaluated = self.made = 0
        self.network.register_forward_pre_hook(self._count)
        if self.speed.compile == "on":
            compile_blocks(self.network)

    def _count(self, _module: Any, inputs: tuple[Any, ...]) -> None:
        self.evaluated += len(inputs[0])

    def run(self, rounds: int) -> None:
        """So many batches, written to the disk."""
        overlapped = self.speed.writing == "overlapped" and not self.clock.on
        in_turn: Any = behind if overlapped else map
        for images in in_turn(self._decoded, self._latents(rounds)):
            with self.clock("write"):
                self._write(images)

    def _latents(self, rounds: int) -> Iterator[tuple[Tensor, Any]]:
        for _ in range(rounds):
            with self.clock("network"):
                z = self._sample()
                ready = None if self.decoder is None else self.decoder.ready(z)
            yield z, ready

    def _sample(self) -> Tensor:
        settings = self.settings
        set_tf32(settings.precision)
        positions = torch.arange(self.made, self.made + settings.batch, device=self.device)
        self.made += settings.batch
        randoms = Randoms(0, positions)
        side = self.model.resolution // CODEC.factor
        shape = (CODEC.channels, side, side)
        with autocast(settings.precision, self.device.type):
            return sample(
                self.network,
                settings,
                self.model,
                positions % self.model.classes,
                randoms.normal("initial", shape),
                lambda k: randoms.normal(f"step.{k}", shape),
                always_double=self.speed.guidance == "always",
            )

    def _decoded(self, made: tuple[Tensor, Any]) -> np.ndarray[Any, Any]:
        with self.clock("decode"):
            if self.decoder is None:
                return made[0].float().cpu().numpy()
            z, ready = made
            with self.decoder.after(ready):
                return self.decoder.decode(z).numpy()

    def _write(self, images: np.ndarray[Any, Any]) -> None:
        if not self.png or self.decoder is None:
            np.savez(self.folder / "shard.npz", arr_0=images)
            return
        from PIL import Image

        for index, image in enumerate(images):
            Image.fromarray(image).save(self.folder / f"{index:06d}.png")
