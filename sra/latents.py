"""Latents: `python -m sra.latents` encodes images into one packed array; training reads it memory-mapped."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sra import job
from sra.codec import codec_folder, load_codec
from sra.config import LatentsJob
from sra.errors import DataError
from sra.files import replacing, sha256_file, write_json


def sample_latent(moments: Tensor, eps: Tensor, scale: float) -> Tensor:
    """z = (mean + std * eps) * scale: (N, 2C, h, w) and (N, C, h, w) to (N, C, h, w)."""
    mean, std = moments.chunk(2, dim=1)
    return (mean + std * eps) * scale


class PackedLatents:
    """A folder of packed latents: posterior mean and deviation of every image, and its class."""

    def __init__(self, path: Path) -> None:
        """Open a folder.

        Raises:
            DataError: incomplete, or its files disagree.
        """
        try:
            self.facts: dict[str, Any] = json.loads((path / "latents.json").read_text())
            self.moments = np.load(path / "moments.npy", mmap_mode="r", allow_pickle=False)
            self.labels = np.load(path / "labels.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a whole folder of packed latents: {error}") from error
        if len(self.moments) != len(self.labels) or len(self.labels) != self.facts["count"]:
            raise DataError(f"{path}: {len(self.moments)} latents, {len(self.labels)} labels: they must agree")
        self.count = len(self.labels)
        self.shape = tuple(self.moments.shape[1:])
        self.classes = int(self.facts["classes"])

    def batch(self, indices: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
        """(N, 2C, h, w) float32 moments and (N,) int64 labels."""
        moments = np.ascontiguousarray(self.moments[indices], dtype=np.float32)
        return torch.from_numpy(moments), torch.from_numpy(self.labels[indices])


def encode(config: LatentsJob, images: Path, out: Path) -> None:
    """Encode a prepared image folder into packed latents.

    Raises:
        DataError: images without labels, or unreadable ones.
    """
    if (out / "latents.json").is_file():
        print("latents are complete", flush=True)
        return
    labels = _labels(images / "images" / "dataset.json")
    codec = load_codec(config.codec, "cuda" if torch.cuda.is_available() else "cpu")
    side = config.resolution // config.codec.factor
    shape = (len(labels), 2 * config.codec.channels, side, side)
    progress = job.Progress("latents", len(labels), " images")
    with replacing(out / "moments.npy") as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=config.data.latent_dtype, shape=shape)
        for start in range(0, len(labels), config.batch):
            job.check_stop()
            names = [name for name, _ in labels[start : start + config.batch]]
            pixels = torch.from_numpy(np.stack([_pixels(images / "images" / name) for name in names]))
            moments = codec.moments(pixels).cpu().numpy()
            if moments.shape[1:] != shape[1:]:
                raise DataError(f"{config.codec.path}: latents are {moments.shape[1:]}, the manifest says {shape[1:]}")
            array[start : start + len(names)] = moments
            progress.update(len(names))
        array.flush()
        del array
    with replacing(out / "labels.npy") as temporary, temporary.open("wb") as handle:
        np.save(handle, np.array([label for _, label in labels], dtype=np.int64))
    weights = codec_folder(config.codec) / "diffusion_pytorch_model.safetensors"
    write_json(
        out / "latents.json",
        {
            "count": len(labels),
            "channels": shape[1],
            "height": side,
            "width": side,
            "dtype": config.data.latent_dtype,
            "classes": max(label for _, label in labels) + 1,
            "codec_sha256": sha256_file(weights) if weights.is_file() else None,
            "moments_sha256": sha256_file(out / "moments.npy"),
            "complete": True,
        },
    )


def _labels(path: Path) -> list[tuple[str, int]]:
    try:
        labels = json.loads(path.read_text())["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no labels: a JSON object with a key 'labels' is needed") from error
    if not labels:
        raise DataError(f"{path}: the list of labels is empty")
    return [(str(name), int(label)) for name, label in labels]


def _pixels(path: Path) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except OSError as error:
        raise DataError(f"{path}: not a whole image: {error}") from error


def main(arguments: list[str]) -> None:
    """`python -m sra.latents --config stage.json --images DIR --out DIR`."""
    parser = argparse.ArgumentParser(prog="python -m sra.latents", description=main.__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    config = job.read_config(options.config, LatentsJob)
    if config.data.latents is not None:
        raise DataError(f"data.latents {config.data.latents!r}: packing latents is not available in this version")
    if config.flipped:
        raise DataError("train.flip: flipped latents are not available in this version")
    encode(config, options.images, options.out)


if __name__ == "__main__":
    job.run(main)
