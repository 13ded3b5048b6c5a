"""Sampling: `python -m sra.sampling.sample` samples from several checkpoints, in shards, so that it can continue."""

from __future__ import annotations

import argparse
import itertools
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sra.common.errors import ConfigError
from sra.common.files import remove_unfinished, replacing, write_json
from sra.common.npz import Array, read_images, write_array, write_images, write_shard
from sra.common.validation import sound_record
from sra.config import ADAPTIVE_SAMPLERS, CodecConfig, SampleJob
from sra.model.vae import Codec, load_codec
from sra.model.weights import load_network
from sra.runtime import job
from sra.runtime.device import record_of
from sra.runtime.distributed import CpuProcessGroup, make_state
from sra.runtime.speed import speed_from_environment
from sra.sampling.image_grid import EDGE, write_grid
from sra.sampling.pipeline import Pipeline
from sra.sampling.samplers import SamplerInputs
from sra.sampling.seeding import PublicCode, Shard, make_seeding


@dataclass(frozen=True)
class _Clock:
    """The file of `Sampler._clock`."""

    seconds: float


@dataclass(frozen=True)
class _Evaluations:
    """How often an adaptive sampler called the network in each batch of a shard."""

    batches: tuple[int, ...]


class Sampler:
    """Sampling of one checkpoint into its stage folder."""

    def __init__(self, config: SampleJob, out: Path, codec: Codec, processes: CpuProcessGroup) -> None:
        if config.sample.weights != "ema" and config.checkpoint.endswith(".safetensors"):
            raise ConfigError(f"sample.weights: expected ema for {config.checkpoint}, got {config.sample.weights!r}")
        self.config, self.out, self.codec, self.processes = config, out, codec, processes
        self.shards, self.shape = out / "shards", (config.model.resolution, config.model.resolution, 3)
        self.seeding = make_seeding(config, codec.device, processes.size)
        self.speed = speed_from_environment(codec.device.type)
        self._pipeline: Pipeline | None = None

    def run(self, until: int | None = None) -> None:
        """Sample the missing shards of this process, then (main process) write the final files.

        Args:
            until: number of first images to stop after; then the rest and the final files are left for another run.

        Raises:
            ConfigError: existing shards were sampled by another number of processes (`public-code` only).
        """
        if (self.out / "samples.npz").is_file():
            print(f"{self.out.name}: samples are complete", flush=True)
            shutil.rmtree(self.shards, ignore_errors=True)
            if self.config.sample.png and self.processes.is_main:
                self._write_pngs(read_images(self.out / "samples.npz"))
            return
        self._check_shards()
        wanted = [s for s in self.seeding.shards if until is None or s.number * self.config.sample.shard < until]
        missing = [shard for shard in wanted if not (self.shards / shard.name).is_file()]
        # All processes must divide the same list.
        missing = self.processes.broadcast_from_main(missing)
        began = time.monotonic() - self._seconds_before()
        own = self.seeding.mine(missing, self.processes.rank, self.processes.size)
        progress = job.Progress(self.out.name, sum(shard.count for shard in own), " images")
        for shard in own:
            write_shard(self.shards / shard.name, (shard.count, *self.shape), self._batches(shard, progress))
            if self.processes.is_main:
                write_json(self._clock, {"seconds": time.monotonic() - began})
        self.processes.barrier()
        if self.processes.is_main and until is None:
            self._finish(time.monotonic() - began)
        self.processes.barrier()

    @property
    def _clock(self) -> Path:
        """File with the seconds that the shards took, over all interruptions."""
        return self.shards / "clock.json"

    def _evaluations(self, shard: Shard) -> Path:
        """File with the evaluations of a shard, written before the shard is complete."""
        return self.shards / f"{shard.name}.json"

    def _seconds_before(self) -> float:
        found = sound_record(_Clock, self._clock)
        return found.seconds if found else 0.0

    def _check_shards(self) -> None:
        names = {shard.name for shard in self.seeding.shards}
        unknown = sorted(p.name for p in self.shards.glob("*.npz") if p.name not in names)
        if unknown:
            raise ConfigError(
                f"{self.shards}: expected shards of {self.processes.size} processes, got {unknown[0]}: "
                "set sample.ranks, or remove the folder to start again"
            )

    def _batches(self, shard: Shard, progress: job.Progress) -> Iterator[tuple[Array, Array]]:
        """Images (N, H, W, 3) uint8 and labels (N,) of a shard's batches."""
        pipeline = self._load_pipeline()
        pipeline.evaluations.clear()
        for images, labels in pipeline.images(self._inputs(shard)):
            yield images, labels
            progress.update(len(images))
        if self.config.sample.sampler in ADAPTIVE_SAMPLERS:
            write_json(self._evaluations(shard), asdict(_Evaluations(tuple(pipeline.evaluations))))

    def _inputs(self, shard: Shard) -> Iterator[SamplerInputs]:
        for inputs in self.seeding.inputs(shard):
            job.check_stop()
            yield inputs

    def _load_pipeline(self) -> Pipeline:
        """Load the network when the first batch needs it."""
        if self._pipeline is None:
            config = self.config
            network = load_network(Path(config.checkpoint), config.model, config.codec, config.sample.weights)
            if self.processes.is_main:
                print(f"speed: {self.speed}", flush=True)
            self._pipeline = Pipeline(network, config.model, config.sample, self.codec, self.speed)
        return self._pipeline

    def _finish(self, seconds: float) -> None:
        """Write the final files; `samples.npz` is last and says that all are there, then the shards are removed.

        Args:
            seconds: that sampling took.
        """
        sample = self.config.sample
        labels = self.seeding.labels(self.shards)
        first = np.stack(list(itertools.islice(self.seeding.images(self.shards), EDGE * EDGE)))
        write_grid(first, labels, self.out / "grid.png")
        if sample.png:
            self._write_pngs(self.seeding.images(self.shards))
        write_array(self.out / "labels.npy", labels)
        ranks = self.seeding.ranks if isinstance(self.seeding, PublicCode) else None
        facts: dict[str, Any] = {"images": sample.images, "seeding": sample.seeding, "ranks": ranks}
        facts |= {"batch": sample.batch}
        if sample.sampler in ADAPTIVE_SAMPLERS:
            found = (sound_record(_Evaluations, self._evaluations(shard)) for shard in self.seeding.shards)
            counts = [count for record in found if record for count in record.batches]
            facts |= {"evaluations": {"least": min(counts, default=None), "most": max(counts, default=None)}}
        where = record_of(self.codec.device, sample.precision, self.config.model)
        write_json(self.out / "samples.json", {**facts, **where, "speed": asdict(self.speed)})
        write_json(self.out / "seconds.json", {"seconds": round(seconds, 3), "images": sample.images})
        remove_unfinished(self.out / "samples.npz")
        write_images(self.out / "samples.npz", (sample.images, *self.shape), self.seeding.images(self.shards))
        shutil.rmtree(self.shards)

    def _write_pngs(self, images: Iterator[Array]) -> None:
        """Write `png/<000000>.png`, the names of the public code."""
        for index, image in enumerate(images):
            job.check_stop()
            path = self.out / "png" / f"{index:06d}.png"
            if not path.is_file():
                with replacing(path, durable=False) as temporary:
                    Image.fromarray(image).save(temporary, format="PNG")


def main(arguments: list[str]) -> None:
    """`python -m sra.sampling.sample --config stage.json [...] --out DIR [...]`."""
    parser = argparse.ArgumentParser(prog="python -m sra.sampling.sample", description=main.__doc__)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    parser.add_argument("--processes", type=int, help="expected number of processes")
    parser.add_argument("--until", type=int, help="sample only so many first images of each, and leave the rest")
    options = parser.parse_args(arguments)
    if len(options.config) != len(options.out):
        raise ConfigError(f"--out: expected {len(options.config)} folders, one per --config, got {len(options.out)}")
    device = make_state(options.processes).device
    processes = CpuProcessGroup()
    codecs: dict[CodecConfig, Codec] = {}
    for path, out in zip(options.config, options.out, strict=True):
        config = job.read_config(path, SampleJob)
        if config.codec not in codecs:
            codecs[config.codec] = load_codec(config.codec, device)
        Sampler(config, out, codecs[config.codec], processes).run(options.until)


if __name__ == "__main__":
    job.run(main)
