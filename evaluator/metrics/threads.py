"""Cases side by side: several threads, each with BLAS and LAPACK on one.

That keeps all processors busy where one call alone would not: while a thread chooses or rounds, others multiply.
numpy's functions, and those of `evaluator.metrics.lapack`, let other threads run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController, threadpool_limits

T = TypeVar("T")
MOST = 16
"""Threads: each holds a tile of distances and what is made of it, 50 MB."""


def side_by_side(work: Callable[..., T], cases: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """The results of `work` on each case, in their order.

    Cases are taken while earlier results are still to come, at most two for each thread: what a case is made from may
    be a little behind, and is the same in every run on a machine. Until the last result is taken, BLAS keeps to one
    thread for the caller, too.
    """
    count = workers()
    with one_thread(), ThreadPoolExecutor(count) as pool:
        begun: deque[Future[T]] = deque()
        for case in cases:
            begun.append(pool.submit(work, *case))
            if len(begun) == 2 * count:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def workers() -> int:
    """As many threads as BLAS may use now, which the environment's OMP_NUM_THREADS and the like lower."""
    allowed = [library["num_threads"] for library in ThreadpoolController().info() if library["user_api"] == "blas"]
    return min(max(allowed, default=1), MOST)


def one_thread() -> threadpool_limits:
    """A context in which BLAS and LAPACK keep to one thread.

    More gain little on eigenvalues of this size, and where processors are shared they wait for each other.
    """
    return threadpool_limits(limits=1, user_api="blas")
