"""Labels of an image set: the classes that its generator was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from evaluator.images.shards import open_shards
from sra.common.errors import EvaluatorError
from sra.common.listing import natural
from sra.common.npz import read_arrays

FILE = "labels.npy"
NAMES = ("labels", "arr_1")
"""Arrays of an `.npz` file: of shards, and of ADM's sample files."""
Array = np.ndarray[Any, Any]


def labels_of(path: Path, count: int) -> Array | None:
    """(N,) int64 labels of `count` images: in their file or shards, or in `labels.npy` with them; or None.

    Raises:
        EvaluatorError: labels of another number, or that are not whole numbers of 0 or more.
    """
    folder = path if path.is_dir() else path.parent
    shards = sorted(folder.glob("*.npz"), key=lambda p: natural(p.name)) if path.is_dir() else [path]
    packed = open_shards(path)
    if packed and (classes := packed.labels()) is not None:
        return np.array(classes, np.int64)
    parts = [read_arrays(file, NAMES) for file in shards if file.suffix == ".npz"]
    inside = [next(iter(part.values())) for part in parts if part]
    if inside and len(inside) == len(parts):
        found, where = np.concatenate([part.reshape(len(part), -1) for part in inside]), str(path)
    elif (folder / FILE).is_file():
        where = str(folder / FILE)
        try:
            found = np.lib.format.open_memmap(folder / FILE, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise EvaluatorError(f"{where}: expected an array of labels: {error}") from error
    else:
        return None
    if found.dtype.kind not in "iu" or found.size != count or found.min(initial=0) < 0:
        got = f"{found.dtype} {found.shape}"
        raise EvaluatorError(f"{where}: expected {count} labels, whole numbers of 0 or more, got {got}")
    return found.reshape(-1).astype(np.int64)
