"""A computation on a GPU recorded as a CUDA graph: the host launches one graph instead of thousands of kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
USUAL_CALLS = 2
"""Calls before the recording: they compile kernels and create what stays, such as moments."""


class Recorded(Generic[T]):
    """Repeats a recorded computation. A graph starts its kernels with the addresses and numbers of the recording."""

    def __init__(self) -> None:
        # Autograd remembers the stream on which a weight was first used: it must be the recorded one from the start.
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.recording = False
        """Whether `compute` is being recorded."""
        self.forget()

    def forget(self) -> None:
        """Drop the recording, because the computation now works on other tensors."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: Sequence[Tensor] = ()
        self._result: T | None = None
        self._numbers: object = None
        self._calls = 0

    def __call__(self, compute: Callable[[], T], inputs: Sequence[Tensor], numbers: object) -> T:
        """Return what `compute` returns; after a recording, in the same tensors at every call.

        Args:
            compute: does not read from the device, and changes no state but the contents of tensors.
            inputs: all tensors that differ from call to call.
            numbers: all numbers of the host that the computation depends on. It is recorded after two calls with the
                same ones, and replayed until they change.
        """
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = self._call(compute, inputs, numbers)
        current.wait_stream(self.stream)
        return result

    def _call(self, compute: Callable[[], T], inputs: Sequence[Tensor], numbers: object) -> T:
        if numbers != self._numbers:
            self.forget()
            self._numbers = numbers
        self._calls += 1
        if self._calls <= USUAL_CALLS:
            return compute()
        if self._graph is None:
            graph, self._inputs = torch.cuda.CUDAGraph(), inputs
            with self._recording(graph):
                self.recording = True
                self._result = compute()
                self.recording = False
            self._graph = graph
        else:
            for mine, new in zip(self._inputs, inputs, strict=True):
                mine.copy_(new, non_blocking=True)
        self._graph.replay()
        assert self._result is not None
        return self._result

    def _recording(self, graph: torch.cuda.CUDAGraph) -> AbstractContextManager[None]:
        # Threads may pin the memory of coming batches meanwhile.
        return torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local")
