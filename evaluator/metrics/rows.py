"""Features as the metrics read them: (N, D) float32 arrays, or anything that gives their slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from sra.common.errors import EvaluatorError

Array = np.ndarray[Any, Any]
BLOCK_ROWS = 1024
"""Rows that are held in float64 at a time."""


class Rows(Protocol):
    """Features (N, D), in memory or not: only slices of rows are read."""

    @property
    def shape(self) -> Any:
        """(N, D)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


def blocks(features: Rows, size: int = BLOCK_ROWS) -> Iterator[Array]:
    """Consecutive rows (n, D), at most `size` at a time."""
    for start in range(0, len(features), size):
        yield np.asarray(features[start : start + size])


def check_features(least: int, **sets: Any) -> None:
    """Refuse sets of features that are not (N, D) finite floating-point numbers of one width.

    Args:
        least: smallest number of rows.
        sets: features by the names that errors use.

    Raises:
        EvaluatorError: which set, and what is wrong.
    """
    for name, features in sets.items():
        if len(features.shape) != 2 or len(features) < least:
            raise EvaluatorError(f"{name}: expected shape (N, D) with N >= {least}, got {tuple(features.shape)}")
        for block in blocks(features):
            if block.dtype.kind != "f" or not np.isfinite(block).all():
                got = block.dtype if block.dtype.kind != "f" else f"{block.dtype} with NaN or infinity"
                raise EvaluatorError(f"{name}: expected finite floating-point numbers, got {got}")
    widths = {name: features.shape[1] for name, features in sets.items()}
    if len(set(widths.values())) > 1:
        raise EvaluatorError(f"{', '.join(sets)}: expected features of one width, got {sorted(widths.values())}")
