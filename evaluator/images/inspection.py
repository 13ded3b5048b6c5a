"""Image-set checks (hash, duplicates, blank images) and prefetching."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sra.common.errors import DataError

Array = np.ndarray[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Findings:
    """Facts of the pixels of a set."""

    sha256: str
    """Of all pixels in order."""
    duplicates: int
    """Images that equal an earlier one."""
    black: int
    """Images of zeros."""
    first_black: int
    """Place of the first of them; -1 where there is none."""


class Examination:
    """Checks of the batches (n, H, W, 3) uint8 added so far."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()
        self._seen: set[int] = set()
        self._count = self._black = self._largest = 0
        self._first_black = -1

    def add(self, batch: Array) -> None:
        """Look at the next images."""
        images = np.ascontiguousarray(batch)
        self._total.update(images.data)
        # 64 bits of this process are enough to count: two of 500,000 images share them by chance once in 1e8 sets.
        self._seen.update(hash(image.tobytes()) for image in images)
        brightest = batch.reshape(len(batch), -1).max(axis=1)
        self._largest = max(self._largest, int(brightest.max()))
        black = np.flatnonzero(brightest == 0)
        if len(black) and not self._black:
            self._first_black = self._count + int(black[0])
        self._black += len(black)
        self._count += len(batch)

    def digest(self) -> str:
        """SHA-256 of all pixels so far."""
        return self._total.hexdigest()

    def result(self, path: Path) -> Findings:
        """Of all that was added.

        Raises:
            DataError: no value above 1 in the whole set.
        """
        if self._largest <= 1:
            raise DataError(
                f"{path}: expected uint8 in [0, 255], got no value above {self._largest} (all black, or in [0, 1])"
            )
        copies = self._count - len(self._seen)
        return Findings(self.digest(), copies, self._black, self._first_black)


def prefetched(source: Iterator[T], ahead: int) -> Iterator[T]:
    """Items of an iterator, computed by another thread, at most `ahead` of them in advance."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        pending = deque(thread.submit(next, source, end) for _ in range(ahead))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(thread.submit(next, source, end))
                yield item  # type: ignore[misc]
        finally:
            for future in pending:
                future.cancel()
