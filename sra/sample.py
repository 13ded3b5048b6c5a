"""Sampling: `python -m sra.sample`, several checkpoints in one process, shards that survive an interruption."""

from __future__ import annotations

import argparse
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor

from sra import job
from sra.codec import Codec, load_codec
from sra.config import CodecConfig, ConfigError, SampleJob
from sra.files import replacing
from sra.network import DiffusionTransformer
from sra.randoms import Randoms
from sra.samplers import sample
from sra.weights import load_network

GRID = 8
"""Rows and columns of the picture of the first samples."""


def labels_of(config: SampleJob, indices: Tensor) -> Tensor:
    """Labels (N,) of image indices: drawn per image, or the same number of each class."""
    classes = config.model.classes
    if config.sample.labels == "balanced":
        return indices % classes
    uniform = Randoms(config.seed, indices).uniform("label")
    return (uniform * classes).long().clamp_max(classes - 1)


class Sampler:
    """One checkpoint, its codec, and where its images go."""

    def __init__(self, config: SampleJob, out: Path, codec: Codec, state: PartialState) -> None:
        if config.sample.seeding != "per-image":
            raise ConfigError("sample.seeding 'public-code' is not available in this version; allowed: per-image")
        if config.sample.weights != "ema" and config.checkpoint.endswith(".safetensors"):
            raise ConfigError("sample.weights 'model': the suite's own checkpoints hold EMA weights; allowed: ema")
        self.config, self.out, self.codec, self.state = config, out, codec, state
        self.network: DiffusionTransformer | None = None

    @property
    def shards(self) -> list[range]:
        """Image indices of every shard."""
        images, size = self.config.sample.images, self.config.sample.shard
        return [range(start, min(start + size, images)) for start in range(0, images, size)]

    def shard_file(self, shard: range) -> Path:
        """File of one shard."""
        return self.out / "shards" / f"{shard.start:08d}.npz"

    def run(self) -> None:
        """Make the missing shards of this process, then (first process) the final files."""
        if (self.out / "samples.npz").is_file() and (self.out / "grid.png").is_file():
            print(f"{self.out.name}: samples are complete", flush=True)
            return
        mine = self.shards[self.state.process_index :: self.state.num_processes]
        done = sum(len(s) for s in mine if self.shard_file(s).is_file())
        progress = job.Progress(self.out.name, sum(len(s) for s in mine), " images", done=done)
        for shard in mine:
            if not self.shard_file(shard).is_file():
                self._make(shard, progress)
        self.state.wait_for_everyone()
        if self.state.is_main_process:
            self._finish()
        self.state.wait_for_everyone()

    def _make(self, shard: range, progress: job.Progress) -> None:
        images, labels = [], []
        for start in range(shard.start, shard.stop, self.config.sample.batch):
            job.check_stop()
            indices = torch.arange(start, min(start + self.config.sample.batch, shard.stop))
            pixels, batch_labels = self._batch(indices.to(self.state.device))
            images.append(pixels.cpu().numpy())
            labels.append(batch_labels.cpu().numpy())
            progress.update(len(indices))
        with replacing(self.shard_file(shard)) as temporary, temporary.open("wb") as handle:
            np.savez(handle, arr_0=np.concatenate(images), labels=np.concatenate(labels))

    def _batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) uint8 images and (N,) labels of image indices (N,)."""
        config = self.config
        if self.network is None:
            which = config.sample.weights
            network = load_network(Path(config.checkpoint), config.model, config.codec, which)
            self.network = network.to(self.state.device)
        side = config.model.resolution // config.codec.factor
        shape = (config.codec.channels, side, side)
        randoms = Randoms(config.seed, indices)
        labels = labels_of(config, indices)
        autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.sample.precision)
        torch.backends.cuda.matmul.allow_tf32 = config.sample.precision == "tf32"
        with torch.autocast(indices.device.type, dtype=autocast, enabled=autocast is not None):
            z = sample(
                self.network,
                config.sample,
                config.model,
                labels,
                randoms.normal("initial", shape),
                lambda k: randoms.normal(f"step.{k}", shape),
            )
        return self.codec.decode(z.float()), labels

    def _finish(self) -> None:
        """One file of all images, their labels, a picture of the first; then the shards go."""
        resolution = self.config.model.resolution
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)),
            "fortran_order": False,
            "shape": (self.config.sample.images, resolution, resolution, 3),
        }
        labels = []
        with (
            replacing(self.out / "samples.npz") as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
            archive.open("arr_0.npy", "w", force_zip64=True) as member,
        ):
            np.lib.format.write_array_header_1_0(member, header)
            for shard in self.shards:
                arrays = read_shard(self.shard_file(shard))
                member.write(arrays["arr_0"].tobytes())
                labels.append(arrays["labels"])
                if shard.start == 0:
                    self._grid(arrays["arr_0"][: GRID * GRID])
        with replacing(self.out / "labels.npy") as temporary, temporary.open("wb") as handle:
            np.save(handle, np.concatenate(labels))
        if self.config.sample.png:
            self._write_pngs()
        shutil.rmtree(self.out / "shards")

    def _grid(self, images: np.ndarray[Any, Any]) -> None:
        edge = images.shape[1]
        sheet = np.full((GRID * edge, GRID * edge, 3), 255, np.uint8)
        for index, image in enumerate(images):
            row, column = divmod(index, GRID)
            sheet[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = image
        with replacing(self.out / "grid.png") as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")

    def _write_pngs(self) -> None:
        for shard in self.shards:
            for index, image in zip(shard, read_shard(self.shard_file(shard))["arr_0"], strict=True):
                with replacing(self.out / "png" / f"{index:06d}.png", durable=False) as temporary:
                    Image.fromarray(image).save(temporary, format="PNG")


def read_shard(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """`arr_0` (N, H, W, 3) uint8 and `labels` (N,) of one shard."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def main(arguments: list[str]) -> None:
    """`python -m sra.sample --config stage.json [...] --out DIR [...]`."""
    parser = argparse.ArgumentParser(prog="python -m sra.sample", description=main.__doc__)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    options = parser.parse_args(arguments)
    if len(options.config) != len(options.out):
        raise ConfigError(f"--config names {len(options.config)} files, --out {len(options.out)} folders: one each")
    state = PartialState()
    codecs: dict[CodecConfig, Codec] = {}
    for path, out in zip(options.config, options.out, strict=True):
        config = job.read_config(path, SampleJob)
        if config.codec not in codecs:
            codecs[config.codec] = load_codec(config.codec, state.device)
        Sampler(config, out, codecs[config.codec], state).run()


if __name__ == "__main__":
    job.run(main)
