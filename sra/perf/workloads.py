"""Subjects: the suite's own training step, sampling pipeline, encoder and loader, with random data and weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from sra.common.errors import UserError
from sra.common.files import write_json
from sra.common.npz import write_array
from sra.config import SampleJob, TrainJob
from sra.data.latents import PackedLatents
from sra.data.public_layout import place_of
from sra.model.transformer import build, fill_zeros, initialise
from sra.perf.cases import CODEC, Mode
from sra.perf.timing import Clock
from sra.runtime.device import autocast, set_tf32
from sra.sampling.pipeline import Pipeline
from sra.sampling.samplers import SamplerInputs
from sra.sampling.seeding import PerImage, Shard
from sra.training.batches import Array, Batches, LatentSource
from sra.training.step import TrainState

CLASSES = 1000


def world() -> tuple[int, int]:
    """Rank and number of processes, from torchrun's environment."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


# -- training -----------------------------------------------------------------------------------------------------


class TorchEngine:
    """`sra.training.step.Engine` without accelerate; it also is the prepared optimizer."""

    def __init__(self, precision: str, device: torch.device, *, bucket_views: bool) -> None:
        self.device, self.precision, self.bucket_views = device, precision, bucket_views
        self.process_index, self.num_processes = world()
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None
        if self.num_processes > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def prepare(self, *parts: Any, device_placement: list[bool]) -> Any:  # noqa: ARG002
        """See Engine; the parts are a module on its device and its optimizer."""
        module, self.optimizer = parts
        if self.num_processes > 1:
            module = nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=self.bucket_views)
        return module, self

    def autocast(self) -> AbstractContextManager[object]:
        """See Engine."""
        return autocast(self.precision, self.device.type)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """See Engine."""
        return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """See Engine."""
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))

    def unscale_gradients(self) -> None:
        """See Engine."""
        assert self.scaler is not None
        self.scaler.unscale_(self.optimizer)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer."""
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        return groups

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Step the optimizer, through the scaler if there is one."""
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


class Training:
    """Optimizer steps of one network in one mode."""

    def __init__(self, job: TrainJob, mode: Mode, folder: Path, device: torch.device) -> None:
        """Build the training state and the batches of a run.

        Args:
            job: network, alignment, precision, batch.
            mode: how to compute.
            folder: for the latents.
            device: to compute on.
        """
        set_tf32(job.train.precision)
        self.clock, self.steps = Clock(device), 0
        engine = TorchEngine(job.train.precision, device, bucket_views=mode.speed.buckets == "views")
        self.state = TrainState(job, engine, mode.speed)
        # A GPU multiplies zeros faster: at its start, all gradients of the blocks would be zero.
        fill_zeros(self.state.network, 0)
        fill_zeros(self.state.ema, 0)
        shape = job.codec.moments_shape(job.model.resolution)
        source = make_latents(folder, mode, shape, 8 * job.train.global_batch)
        self.batches = Batches(job, source, engine, mode.speed)
        time_method = self.clock.time_method
        time_method(self.batches, "load", "data")
        if mode.speed.graph == "step":  # it has no parts
            return
        time_method(self.state, "forward", "student")
        time_method(self.state, "backward", "backward")
        time_method(self.state, "apply_gradients", "optimizer")
        time_method(self.state, "update_ema", "ema")
        if self.state.teacher is not None:
            time_method(self.state.teacher, "hidden", "teacher")

    def run(self, rounds: int) -> None:
        """Train a number of steps, then read the device's flag as at a logged step."""
        for _ in range(rounds):
            self.result = self.state.update(self.steps, 0.0, self.batches.of_step(self.steps))
            self.steps += 1
        self.state.guard.read()


# -- latents ------------------------------------------------------------------------------------------------------


class LatentFiles:
    """A file per latent, read one after the other as a worker of the authors' loader does."""

    def __init__(self, folder: Path, labels: Array) -> None:
        self.folder, self.labels, self.count = folder, labels, len(labels)

    def batch(self, indices: Array, mirrored: Array | None = None) -> tuple[Tensor, Tensor]:
        """See `LatentSource`; nothing is mirrored."""
        assert mirrored is None
        moments = np.stack([np.load(self.folder / place_of(int(i)), allow_pickle=False) for i in indices])
        return torch.from_numpy(moments), torch.from_numpy(self.labels[indices])


def make_latents(folder: Path, mode: Mode, shape: tuple[int, ...], count: int) -> LatentSource:
    """Random latents of a shape (2C, h, w): packed, or in mode `reference` a file each; written unless they exist."""
    labels = np.arange(count) % CLASSES
    place = folder / ("x".join(map(str, (count, *shape))) + ("-files" if mode.reference else "-packed"))
    exists = place.is_dir()
    rows = (np.random.default_rng(index).standard_normal(shape, dtype=np.float32) for index in range(count))
    if mode.reference:
        for index, row in enumerate(() if exists else rows):
            path = place / place_of(index)
            write_array(path, row, durable=False)
        return LatentFiles(place, labels)
    if not exists:
        place.mkdir(parents=True)
        array = np.lib.format.open_memmap(place / "moments.npy", "w+", np.float32, (count, *shape))
        for index, row in enumerate(rows):
            array[index] = row
        array.flush()
        write_array(place / "labels.npy", labels)
        write_json(place / "latents.json", {"count": count, "classes": CLASSES})
    return PackedLatents(place)


class Loading:
    """Batches of latents at random positions, read by one thread."""

    def __init__(self, source: LatentSource, batch: int) -> None:
        self.clock, self.source, self.batch = Clock(torch.device("cpu")), source, batch
        self.random = np.random.default_rng(0)
        self.clock.time_method(self, "read", "read")

    def read(self) -> None:
        """Read one batch."""
        self.source.batch(self.random.integers(0, self.source.count, self.batch))

    def run(self, rounds: int) -> None:
        """Read a number of batches."""
        for _ in range(rounds):
            self.read()


# -- images -------------------------------------------------------------------------------------------------------


class NoCodec:
    """Stands for a codec where latents are copied to the host and not decoded."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.module = device, nn.ModuleDict({"decoder": nn.Identity()})

    def decode(self, z: Tensor) -> Tensor:
        """Return the latents."""
        return z


def make_codec(name: str, device: torch.device) -> Any:
    """Make the codec to measure.

    Args:
        name: `none`, `random` (Stable Diffusion's with random weights), or the path of a codec.
        device: to compute on.

    Raises:
        UserError: it needs diffusers, which is not installed.
    """
    if name == "none":
        return NoCodec(device)
    from sra.model.vae import Codec, load_codec

    try:
        if name != "random":
            return load_codec(dataclasses.replace(CODEC, path=name), device)
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError as error:
        raise UserError(f"--codec: expected none where diffusers is not installed, got {name!r}") from error
    module = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
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
        self.clock.time_method(self, "encode", "encode")

    def encode(self) -> None:
        """Encode one batch and copy it to the host."""
        self.codec.moments(self.images).cpu()

    def run(self, rounds: int) -> None:
        """Encode a number of batches."""
        for _ in range(rounds):
            self.encode()


class Sampling:
    """Batches of images of one network in one mode, written to disk."""

    def __init__(self, job: SampleJob, mode: Mode, codec: Any, folder: Path) -> None:
        """Build the network and the sampling pipeline of a stage.

        Args:
            job: network, sampler, steps, guidance, precision, batch; its checkpoint is not read.
            mode: how to compute.
            codec: decoder, on the device to compute on.
            folder: for the images.
        """
        self.clock, self.mode, self.folder, self.batch = Clock(codec.device), mode, folder, job.sample.batch
        self.png = mode.reference and not isinstance(codec, NoCodec)
        self.images = self.evaluations = 0
        network = build(job.model, job.codec)
        initialise(network, 0)
        fill_zeros(network, 0)
        network.register_forward_pre_hook(self._count)
        self.pipeline = Pipeline(network.eval(), job.model, job.sample, codec, mode.speed)
        self.seeding = PerImage(job, codec.device)
        self.clock.time_method(self.pipeline, "sample", "network")
        self.clock.time_method(self.pipeline, "decode", "decode")
        self.clock.time_method(self, "write", "write")

    def _count(self, _module: Any, inputs: tuple[Any, ...]) -> None:
        self.evaluations += len(inputs[0])

    def run(self, rounds: int) -> None:
        """Sample a number of batches and write them."""
        self.pipeline.overlapped = self.mode.speed.writing == "overlapped" and not self.clock.on
        for images, _ in self.pipeline.images(self._inputs(rounds)):
            self.write(images)

    def _inputs(self, rounds: int) -> Iterator[SamplerInputs]:
        for _ in range(rounds):
            number = self.images // self.batch
            self.images += self.batch
            yield from self.seeding.inputs(Shard("", self.batch, number, number))

    def write(self, images: Array) -> None:
        """Write a batch: one array, or in mode `reference` PNG files."""
        if not self.png:
            np.savez(self.folder / "shard.npz", arr_0=images)
            return
        from PIL import Image

        for index, image in enumerate(images):
            Image.fromarray(image).save(self.folder / f"{index:06d}.png")
