"""What the torch tools share: where their weights lie, the device, features of an image set. Nothing is downloaded."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from evaluator.errors import ToolError
from evaluator.files import replacing
from evaluator.samples import ImageSet

Array = np.ndarray[Any, Any]
Compute = Callable[[Array], Tensor]
"""Images (n, H, W, 3) uint8 to features (n, D)."""
EMBEDDED = "embedded:digits"
OWN, GRAPH = "own", "graph"
FOLDER_VARIABLE = "SRA_BENCH_ASSETS"
DEFAULT_FOLDER = "~/.cache/sra-bench/assets"


@dataclass(frozen=True)
class Weights:
    """A file that a tool's authors publish: its asset's name, its file names, its address."""

    asset: str
    files: tuple[str, ...]
    address: str


def options(parser: argparse.ArgumentParser) -> None:
    """Which network a tool sees, and where its weights lie."""
    help_extractor = "own: the tool's Inception; graph: the network of --graph, converted, named so in the record"
    parser.add_argument("--extractor", choices=(OWN, GRAPH), default=OWN, help=help_extractor)
    folder = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()
    parser.add_argument("--assets", type=Path, default=folder, help=f"folder of weights; default: ${FOLDER_VARIABLE}")


def place(weights: Weights, folder: Path) -> Path:
    """The file of a tool's weights: in the asset's folder, or in the assets folder itself.

    Raises:
        ToolError: it is not there; where it belongs, and how to get it.
    """
    candidates = [root / file for file in weights.files for root in (folder / weights.asset, folder)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise ToolError(
            f"weights not found: {candidates[0]}; get them from {weights.address} (nothing is fetched unasked), "
            f"or choose --extractor {GRAPH}"
        )
    return found


def state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.pth` file, read without running what a pickle may hold.

    Raises:
        ToolError: damaged, or more than tensors.
    """
    try:
        found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise ToolError(f"{path}: not a whole file of weights") from error
    return found


def identity(path: Path) -> dict[str, str]:
    """File name and SHA-256, for the record."""
    with path.open("rb") as handle:
        return {"file": path.name, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def device() -> torch.device:
    """A GPU where there is one, in whole float32: TF32 convolutions move features by 1e-3."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def extract(images: ImageSet, compute: Compute) -> Array:
    """Features of every image in memory, float32 (N, D)."""
    return np.concatenate(list(_batches(images, compute)))


def cached(images: ImageSet, compute: Compute, place: Path) -> Array:
    """Features of every image, memory-mapped from a `.npy` file; made when it is not there.

    Raises:
        EvaluatorError: it cannot be written; nothing is left half-written.
    """
    if not place.is_file():
        # Rows are appended, not mapped: a full disk is then an error and not a signal.
        with replacing(place) as temporary, temporary.open("wb") as file:
            for number, part in enumerate(_batches(images, compute)):
                if number == 0:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (images.count, part.shape[1])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(part, "<f4").tobytes())
    found: Array = np.load(place, mmap_mode="r", allow_pickle=False)
    return found


def _batches(images: ImageSet, compute: Compute) -> Iterator[Array]:
    """Features of 64 images at a time; says how far it is."""
    done, started = 0, time.monotonic()
    shown = started
    for batch in images.batches():
        with torch.inference_mode():
            features = compute(batch).float().cpu().numpy()
        yield features
        done += len(batch)
        if time.monotonic() - shown > 2:
            shown = time.monotonic()
            unit = {"unit": " images", "prefix": images.path.name, "ncols": 0}
            print(tqdm.format_meter(done, images.count, shown - started, **unit), flush=True)
