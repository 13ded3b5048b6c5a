"""Prefetching: threads read the next batches while the network works on the current one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Numbered batches, read up to `workers` ahead of their use; their content does not depend on `workers`."""

    def __init__(self, choose: Callable[[int], tuple[Any, ...]], read: Callable[..., T], workers: int) -> None:
        """Set up; nothing is read before the first `get`.

        Args:
            choose: number of a batch to the arguments of `read`; called in order, by the caller's thread.
            read: may wait for the disk; called by other threads.
            workers: threads, and batches in flight; 0 reads in the caller's thread.
        """
        self.choose, self.read, self.workers = choose, read, workers
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="loader")
        self._futures: dict[int, Future[T]] = {}

    def get(self, number: int) -> T:
        """Batch `number`; the following ones are requested, too."""
        if self.workers == 0:
            return self.read(*self.choose(number))
        for later in range(number, number + self.workers + 1):
            if later not in self._futures:
                self._futures[later] = self._pool.submit(self.read, *self.choose(later))
        return self._futures.pop(number).result()
