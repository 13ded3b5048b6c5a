"""How sampling keeps the device busy: batches are decoded and fetched while the network works on the next one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from sra.model.vae import Codec

S = TypeVar("S")
T = TypeVar("T")


def behind(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """`map`, with the work done in a thread that is one item behind; errors of both sides come out in order."""
    with ThreadPoolExecutor(1, thread_name_prefix="decoder") as pool:
        waiting: Future[T] | None = None
        for item in items:
            finished, waiting = waiting, pool.submit(work, item)
            if finished is not None:
                yield finished.result()
        if waiting is not None:
            yield waiting.result()


class Decoder:
    """A codec's decoder that may be called from another thread; on CUDA it has a stream of its own."""

    def __init__(self, codec: Codec, *, channels_last: bool) -> None:
        self.codec = codec
        if channels_last:
            codec.module.to(memory_format=torch.channels_last)
        self.stream = torch.cuda.Stream(codec.device) if codec.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def ready(self, *made: Tensor) -> torch.cuda.Event | None:
        """The moment from which the decoder may read these tensors; called where they were made."""
        if self.stream is None:
            return None
        for tensor in made:
            tensor.record_stream(self.stream)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event

    @contextlib.contextmanager
    def after(self, event: torch.cuda.Event | None) -> Iterator[None]:
        """On the decoder's stream, once the moment has come: what is fetched here waits for nothing that came later."""
        if event is None or self.stream is None:
            yield
            return
        # A new thread begins on the first GPU, and to come back to it would cost that GPU memory.
        torch.cuda.set_device(self.stream.device)
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(event)
            yield

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, C, h, w) to (N, H, W, 3) uint8 on the CPU."""
        return self.codec.decode(z.float()).cpu()
