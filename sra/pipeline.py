"""How sampling keeps the device busy: batches are decoded and fetched while the network works on the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from sra.codec import Codec

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

    def ready(self, z: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """Latents (N, C, h, w) with the moment from which the decoder may read them; called where they were made."""
        if self.stream is None:
            return z, None
        z.record_stream(self.stream)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return z, event

    def decode(self, z: Tensor, event: torch.cuda.Event | None) -> Tensor:
        """(N, H, W, 3) uint8 on the CPU."""
        if event is None or self.stream is None:
            return self.codec.decode(z.float()).cpu()
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(event)
            return self.codec.decode(z.float()).cpu()
