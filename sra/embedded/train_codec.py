"""Train the digits autoencoder: `python -m sra.embedded.train_codec OUT`. A few minutes on two cores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from sra.common.program import program
from sra.embedded import digits

STEPS, BATCH, PEAK_RATE, KL_WEIGHT = 700, 64, 3e-3, 1e-3


def build() -> Any:
    """An `AutoencoderKL` of about 174 thousand parameters: 32 x 32 x 3 to 8 x 8 x 4."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=32,
    )


def train(codec: Any, images: Tensor) -> None:
    """Reconstruction (L1 + MSE) and a small KL term, one cycle of the rate."""
    optimizer = torch.optim.AdamW(codec.parameters(), lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
    for step in range(STEPS):
        x = images[torch.randint(len(images), (BATCH,))]
        posterior = codec.encode(x).latent_dist
        reconstruction = codec.decode(posterior.sample()).sample
        loss = F.l1_loss(reconstruction, x) + F.mse_loss(reconstruction, x)
        loss = loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


@torch.no_grad()
def normalise(codec: Any, images: Tensor) -> None:
    """Give every latent channel mean 0 and standard deviation 1, exactly undone before the decoder.

    z' = (z - m) / s is folded into the two 1x1 convolutions around the latent, so that every reader of the format
    uses it with scale 1: rows of the mean, biases of the log variance, and the decoder's input.
    """
    latents = torch.cat([codec.encode(x).latent_dist.mean for x in torch.split(images, 128)])
    m, s = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    quant, post = codec.quant_conv, codec.post_quant_conv
    channels = len(s)
    quant.weight[:channels] /= s.view(-1, 1, 1, 1)
    quant.bias[:channels] = (quant.bias[:channels] - m) / s
    quant.bias[channels:] -= 2 * s.log()
    post.bias += (post.weight[:, :, 0, 0] * m).sum(1)
    post.weight *= s.view(1, -1, 1, 1)


@torch.no_grad()
def psnr(codec: Any, images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of the reconstructions from posterior means."""
    errors = [F.mse_loss(codec.decode(codec.encode(x).latent_dist.mean).sample, x) for x in torch.split(images, 128)]
    return float(10 * torch.log10(4.0 / torch.stack(errors).mean()))


def main(arguments: list[str]) -> None:
    """Train, normalise, save in half precision, report."""
    torch.manual_seed(0)
    pixels, _ = digits(32)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    codec = build()
    train(codec, images)
    codec.eval()
    before = psnr(codec, images)
    normalise(codec, images)
    print(f"PSNR {before:.2f} dB, normalised {psnr(codec, images):.2f} dB")
    codec.half().save_pretrained(Path(arguments[0]), safe_serialization=True)


if __name__ == "__main__":
    with program():
        main(sys.argv[1:])
