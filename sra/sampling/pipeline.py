"""Sampling of batches: the network samples the next batch while a thread decodes and copies the one before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from sra.common.npz import Array
from sra.config import ModelConfig, SampleConfig
from sra.model.transformer import DiffusionTransformer, cast_blocks, compile_blocks
from sra.model.vae import Codec
from sra.runtime.device import HALF, autocast, set_tf32, use_attention
from sra.runtime.speed import Speed
from sra.sampling.samplers import SamplerInputs, sample

S = TypeVar("S")
T = TypeVar("T")
Latents = tuple[Tensor, torch.cuda.Event | None, Tensor]
"""Latents (N, C, h, w), the moment from which they may be read, and labels (N,)."""


def map_in_background(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Like `map`, with one item in flight on a worker thread; errors are raised in the order of the items."""
    with ThreadPoolExecutor(1, thread_name_prefix="decoder") as pool:
        running: Future[T] | None = None
        for item in items:
            finished, running = running, pool.submit(work, item)
            if finished is not None:
                yield finished.result()
        if running is not None:
            yield running.result()


class Decoder:
    """A codec's decoder for use in another thread; on CUDA it has its own stream."""

    def __init__(self, codec: Codec, layout: str) -> None:
        """Set the decoder's memory layout, the switch `codec`."""
        self.codec = codec
        if layout != "contiguous":
            codec.module.to(memory_format=torch.channels_last)
        if layout == "compiled":
            codec.module.decoder.compile()
        self.stream = torch.cuda.Stream(codec.device) if codec.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def ready(self, *tensors: Tensor) -> torch.cuda.Event | None:
        """Event after which the decoder may read these tensors; called in the thread that made them."""
        if self.stream is None:
            return None
        for tensor in tensors:
            tensor.record_stream(self.stream)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event

    @contextlib.contextmanager
    def after(self, event: torch.cuda.Event | None) -> Iterator[None]:
        """Context on the decoder's stream after an event; a copy to the host here does not wait for later work."""
        if event is None or self.stream is None:
            yield
            return
        # A new thread starts on the first GPU; a context left there would cost that GPU memory.
        torch.cuda.set_device(self.stream.device)
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(event)
            yield

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (N, C, h, w) to images (N, H, W, 3) uint8 on the CPU."""
        return self.codec.decode(z.float()).cpu()


class Pipeline:
    """Network, sampler and decoder: from labels and noise to images."""

    def __init__(
        self, network: DiffusionTransformer, model: ModelConfig, config: SampleConfig, codec: Codec, speed: Speed
    ) -> None:
        """Move the network to the codec's device, and compile it if the speed says so.

        Args:
            network: in eval mode; in half precision its weights are cast for good.
            model: interpolant and convention.
            config: sampler, steps, guidance, precision.
            codec: decodes the latents.
            speed: resolved switches.
        """
        self.model, self.config, self.speed, self.device = model, config, speed, codec.device
        if speed.compile != "off":
            compile_blocks(network, fixed_shapes=False, how=speed.compile)
        use_attention(speed.attention)
        if config.precision in HALF:
            cast_blocks(network, HALF[config.precision])
        self.network = network.to(self.device)
        self.evaluations: list[int] = []
        """Calls of the network in each batch."""
        network.register_forward_pre_hook(self._count)
        self.decoder = Decoder(codec, speed.codec)
        self.overlapped = speed.writing == "overlapped"

    def images(self, batches: Iterable[SamplerInputs]) -> Iterator[tuple[Array, Array]]:
        """Images (N, H, W, 3) uint8 and labels (N,) of each batch."""
        in_turn: Any = map_in_background if self.overlapped else map
        return iter(in_turn(self.decode, map(self.sample, batches)))

    def _count(self, *_call: Any) -> None:
        self.evaluations[-1] += 1

    def sample(self, inputs: SamplerInputs) -> Latents:
        """Latents of a batch."""
        self.evaluations.append(0)
        set_tf32(self.config.precision)
        with autocast(self.config.precision, self.device.type):
            z = sample(self.network, self.config, self.model, inputs)
        return z, self.decoder.ready(z, inputs.labels), inputs.labels

    def decode(self, latents: Latents) -> tuple[Array, Array]:
        """Images and labels of a batch, on the host."""
        z, ready, labels = latents
        with self.decoder.after(ready):
            return self.decoder.decode(z).numpy(), labels.cpu().numpy()
