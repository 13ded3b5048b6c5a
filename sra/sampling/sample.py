"""Sampling: `python -m sra.sampling.sample`, several checkpoints in one process, shards that survive a stop."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor

from sra.common.files import replacing, write_json
from sra.common.npz import Array, write_images, write_shard
from sra.config import CodecConfig, ConfigError, SampleJob
from sra.model.transformer import DiffusionTransformer, compile_blocks
from sra.model.vae import Codec, load_codec
from sra.model.weights import load_network
from sra.runtime import job
from sra.runtime.distributed import Everyone, make_state
from sra.runtime.precision import autocast, set_tf32
from sra.runtime.speed import chosen
from sra.sampling.decode import Decoder, behind
from sra.sampling.image_grid import EDGE, write_grid
from sra.sampling.samplers import sample
from sra.sampling.seeding import Draw, PublicCode, Shard, make_seeding

Made = tuple[Tensor, torch.cuda.Event | None, Tensor]
"""Latents, when they may be read, and labels of a batch."""


class Sampler:
    """One checkpoint, its codec, and where its images go."""

    def __init__(self, config: SampleJob, out: Path, codec: Codec, state: PartialState, everyone: Everyone) -> None:
        if config.sample.weights != "ema" and config.checkpoint.endswith(".safetensors"):
            raise ConfigError("sample.weights 'model': the suite's own checkpoints hold EMA weights; allowed: ema")
        self.config, self.out, self.codec, self.state, self.everyone = config, out, codec, state, everyone
        self.seeding = make_seeding(config, state.device, state.num_processes)
        self.network: DiffusionTransformer | None = None
        self.speed = chosen(state.device.type)
        self.decoder = Decoder(codec, channels_last=self.speed.codec == "channels-last")

    def shard_file(self, shard: Shard) -> Path:
        """File of one shard."""
        return self.out / "shards" / shard.name

    def run(self) -> None:
        """Make the missing shards of this process, then (first process) the final files.

        Raises:
            ConfigError: the shards that are there were made for another number of processes (`public-code` only).
        """
        if (self.out / "samples.npz").is_file():
            print(f"{self.out.name}: samples are complete", flush=True)
            shutil.rmtree(self.out / "shards", ignore_errors=True)
            return
        self._check_shards()
        missing = [shard for shard in self.seeding.shards if not self.shard_file(shard).is_file()]
        # All must share out the same list.
        missing = self.everyone.told(missing)
        began = time.monotonic() - self._spent()
        mine = self.seeding.mine(missing, self.state.process_index, self.state.num_processes)
        progress = job.Progress(self.out.name, sum(shard.count for shard in mine), " images")
        resolution = self.config.model.resolution
        for shard in mine:
            shape = (shard.count, resolution, resolution, 3)
            write_shard(self.shard_file(shard), shape, self._batches(shard, progress))
            if self.state.is_main_process:
                write_json(self._clock, {"seconds": time.monotonic() - began})
        self.everyone.wait()
        if self.state.is_main_process:
            self._finish(time.monotonic() - began)
        self.everyone.wait()

    @property
    def _clock(self) -> Path:
        """Beside the shards: how long they took, over all that was interrupted."""
        return self.out / "shards" / "clock.json"

    def _spent(self) -> float:
        return float(json.loads(self._clock.read_text())["seconds"]) if self._clock.is_file() else 0.0

    def _check_shards(self) -> None:
        names = {shard.name for shard in self.seeding.shards}
        strangers = sorted(p.name for p in self.out.glob("shards/*.npz") if p.name not in names)
        if strangers:
            raise ConfigError(
                f"{self.out / 'shards'}: {strangers[0]} was made for another number of processes, now it is "
                f"{self.state.num_processes}: set sample.ranks, or remove the folder to start anew"
            )

    def _batches(self, shard: Shard, progress: job.Progress) -> Iterator[tuple[Array, Array]]:
        """(N, H, W, 3) uint8 images and (N,) labels of a shard's batches."""
        in_turn: Any = behind if self.speed.writing == "overlapped" else map
        for images, labels in in_turn(self._decoded, self._latents(shard)):
            yield images, labels
            progress.update(len(images))

    def _latents(self, shard: Shard) -> Iterator[Made]:
        for draw in self.seeding.draws(shard):
            job.check_stop()
            z = self._sampled(draw)
            yield z, self.decoder.ready(z, draw.labels), draw.labels

    def _sampled(self, draw: Draw) -> Tensor:
        """Latents (N, C, h, w) of a batch."""
        config, network = self.config, self._network()
        set_tf32(config.sample.precision)
        inputs = draw.labels, draw.initial, draw.step_noise
        always = self.speed.guidance == "always"
        with autocast(config.sample.precision, self.state.device.type):
            return sample(network, config.sample, config.model, *inputs, always_double=always)

    def _decoded(self, made: Made) -> tuple[Array, Array]:
        """(N, H, W, 3) uint8 images and (N,) labels."""
        z, ready, labels = made
        with self.decoder.after(ready):
            return self.decoder.decode(z).numpy(), labels.cpu().numpy()

    def _network(self) -> DiffusionTransformer:
        """Loaded when the first batch wants it."""
        config = self.config
        if self.network is None:
            network = load_network(Path(config.checkpoint), config.model, config.codec, config.sample.weights)
            if self.speed.compile == "on":
                compile_blocks(network)
            if self.state.is_main_process:
                print(f"speed: {self.speed}", flush=True)
            self.network = network.to(self.state.device)
        return self.network

    def _finish(self, seconds: float) -> None:
        """The final files; `samples.npz` comes last and says that all are there, then the shards go.

        Args:
            seconds: that the shards took.
        """
        place, sample = self.shard_file, self.config.sample
        write_grid(np.stack(list(itertools.islice(self.seeding.images(place), EDGE * EDGE))), self.out / "grid.png")
        if sample.png:
            self._write_pngs()
        with replacing(self.out / "labels.npy") as temporary, temporary.open("wb") as handle:
            np.save(handle, self.seeding.labels(place))
        ranks = self.seeding.ranks if isinstance(self.seeding, PublicCode) else None
        facts = {"images": sample.images, "seeding": sample.seeding, "ranks": ranks}
        write_json(self.out / "samples.json", {**facts, "speed": dataclasses.asdict(self.speed)})
        write_json(self.out / "seconds.json", {"seconds": round(seconds, 3), "images": sample.images})
        resolution = self.config.model.resolution
        write_images(self.out / "samples.npz", (sample.images, resolution, resolution, 3), self.seeding.images(place))
        shutil.rmtree(self.out / "shards")

    def _write_pngs(self) -> None:
        """`png/<000000>.png`, as the public code names them."""
        for index, image in enumerate(self.seeding.images(self.shard_file)):
            path = self.out / "png" / f"{index:06d}.png"
            if not path.is_file():
                with replacing(path, durable=False) as temporary:
                    Image.fromarray(image).save(temporary, format="PNG")


def main(arguments: list[str]) -> None:
    """`python -m sra.sampling.sample --config stage.json [...] --out DIR [...]`."""
    parser = argparse.ArgumentParser(prog="python -m sra.sampling.sample", description=main.__doc__)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    parser.add_argument("--processes", type=int, help="how many must work together")
    options = parser.parse_args(arguments)
    if len(options.config) != len(options.out):
        raise ConfigError(f"--config names {len(options.config)} files, --out {len(options.out)} folders: one each")
    state = make_state(options.processes)
    everyone = Everyone()
    codecs: dict[CodecConfig, Codec] = {}
    for path, out in zip(options.config, options.out, strict=True):
        config = job.read_config(path, SampleJob)
        if config.codec not in codecs:
            codecs[config.codec] = load_codec(config.codec, state.device)
        Sampler(config, out, codecs[config.codec], state, everyone).run()


if __name__ == "__main__":
    job.run(main)
