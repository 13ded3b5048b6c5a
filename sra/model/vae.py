"""The image autoencoder: a diffusers `AutoencoderKL`, from a folder, the hub's cache or the embedded one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sra import embedded
from sra.common.errors import DataError
from sra.config import PIXELS_AT_A_TIME, CodecConfig, check_codec_folder

SMALL_EDGE = 64
"""Edge in pixels up to which a CPU encodes channels-last. GroupNorm then sums whole groups in one float32, which is off
by 4e-4 at 256 px and by 0.1 on flat gray; the sums of digits are short, and recorded results depend on their order."""


class Codec:
    """Pixels to posterior moments, latents to pixels; always in eval mode, without gradients."""

    def __init__(self, module: Any, scale: float, device: str | torch.device) -> None:
        self.module = module.to(device).eval().requires_grad_(False)
        self.scale, self.device = scale, torch.device(device)
        self.factor = 2 ** (len(module.config.block_out_channels) - 1)

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, 2C, h, w) float32: posterior mean, then standard deviation."""
        return torch.cat([self._moments(part) for part in _parts(images, images.shape[1] * images.shape[2])])

    def _moments(self, images: Tensor) -> Tensor:
        x = images.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.device.type == "cpu" and images.shape[1] > SMALL_EDGE:
            x = x.contiguous()
        posterior = self.module.encode(x.to(self.module.dtype)).latent_dist
        return torch.cat([posterior.mean, posterior.std], dim=1).float()

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """(N, C, h, w) scaled latents to (N, H, W, 3) uint8: ((x + 1) / 2 * 255), clamped, truncated."""
        return torch.cat([self._decode(part) for part in _parts(z, z.shape[2] * z.shape[3] * self.factor**2)])

    def _decode(self, z: Tensor) -> Tensor:
        x = self.module.decode((z.to(self.device) / self.scale).to(self.module.dtype)).sample.float()
        pixels: Tensor = ((x + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous()


def _parts(batch: Tensor, pixels: int) -> list[Tensor]:
    """Split a batch into parts of at most `PIXELS_AT_A_TIME`; `pixels` is the number in one image."""
    size = max(1, PIXELS_AT_A_TIME // pixels)
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def codec_folder(config: CodecConfig) -> Path:
    """Path of the codec; a hub id is returned unchanged."""
    return embedded.CODEC if config.path == "embedded:digits" else Path(config.path)


def load_codec(config: CodecConfig, device: str | torch.device = "cpu") -> Codec:
    """Load a codec.

    Raises:
        DataError: a folder without its files, or a hub id that is not in the local cache and cannot be fetched.
    """
    # diffusers takes seconds to import: only jobs that need a codec do.
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ModuleNotFoundError as error:
        raise DataError(f"codec.path {config.path}: expected the Python package diffusers, got none") from error
    folder = codec_folder(config)
    check_codec_folder(folder)
    local = folder.is_dir()
    try:
        module = AutoencoderKL.from_pretrained(
            folder if local else config.path,
            revision=None if local else config.revision,
            local_files_only=local,
            torch_dtype=torch.float32,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        reason = None if local else _why_missing(config)
        raise DataError(
            f"codec.path {config.path}: {reason or f'cannot be loaded: {str(error).splitlines()[0]}'}"
        ) from error
    channels = int(module.config.latent_channels)
    codec = Codec(module, config.scale, device)
    if (channels, codec.factor) != (config.channels, config.factor):
        raise DataError(
            f"codec.path {config.path}: expected {config.channels} channels and factor {config.factor} "
            f"(the manifest's), got {channels} and {codec.factor}"
        )
    return codec


def _why_missing(config: CodecConfig) -> str | None:
    """Why a hub id gave no codec; None if it is in the cache. diffusers' own message names only a missing file."""
    from huggingface_hub import constants, try_to_load_from_cache

    try:
        found = try_to_load_from_cache(config.path, "config.json", revision=config.revision)
    except ValueError:
        return "expected a folder or a hub id, got neither"
    if isinstance(found, str):
        return None
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub did not send it"
    return (
        f"expected a file in the hub's cache {constants.HF_HUB_CACHE}, got none, and {why}; "
        "give its folder, or an asset of `sra-bench fetch` such as asset:sd-vae-ft-ema"
    )
