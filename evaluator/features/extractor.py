"""Feature extraction of the torch tools: weights, device, features of an image set. Downloads nothing."""

from __future__ import annotations

import argparse
import copy
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from evaluator.embedded import EDGE
from evaluator.features.cache import Progress
from evaluator.images.image_set import ImageSet
from evaluator.metrics import backend
from evaluator.metrics.torch_backend import Torch
from sra.common.checkpoints import SAFETENSORS, read_headers
from sra.common.errors import DataError, ToolError
from sra.common.files import home_path, named_in_utf8

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
    folder = home_path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    parser.add_argument("--assets", type=Path, default=folder, help=f"folder of weights; default: ${FOLDER_VARIABLE}")


def find_weights(weights: Weights, folder: Path) -> Path:
    """The file of a tool's weights: in the asset's folder, or in the assets folder itself.

    Raises:
        ToolError: it is not there; where it belongs, and how to get it.
    """
    candidates = [root / file for file in weights.files for root in (folder / weights.asset, folder)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise ToolError(
            f"weights not found: {candidates[0]}; `sra-bench fetch {weights.asset}`, or place them by hand from "
            f"{weights.address}, or choose --extractor {GRAPH}"
        )
    return found


def check_size(*sets: ImageSet) -> None:
    """Refuse images of another size than the embedded classifier takes.

    Raises:
        ToolError: which set, and its size.
    """
    for images in sets:
        if images.shape != (EDGE, EDGE):
            raise ToolError(f"{images.path}: expected images of {EDGE} x {EDGE} pixels, got {images.shape}")


def state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.pth` or `.safetensors` file, read without running what a pickle may hold.

    Raises:
        ToolError: damaged, or more than tensors.
    """
    try:
        read_headers(path)
        with named_in_utf8(path) as name:
            if path.suffix == SAFETENSORS:
                return load_file(name)
            found: dict[str, Tensor] = torch.load(name, map_location="cpu", weights_only=True)
    except (DataError, RuntimeError, OSError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = f": {error}" if isinstance(error, DataError) else ""
        raise ToolError(f"{path}: expected a whole file of tensors{reason}") from error
    return found


def devices() -> list[torch.device]:
    """All GPUs, or the processor; whole float32: TF32 convolutions move features by 1e-3."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())] or [torch.device("cpu")]


class Replicas:
    """A network on every GPU, which share the batches of an image set; from then on, the first computes the metrics."""

    def __init__(self, network: nn.Module) -> None:
        found = devices()
        self.count, self.kind = len(found), found[0].type
        if self.kind != "cpu":
            backend.use(Torch(found[0]))
        networks = [network, *(copy.deepcopy(network) for _ in found[1:])]
        self._free: SimpleQueue[tuple[nn.Module, torch.device]] = SimpleQueue()
        for each, device in zip(networks, found, strict=True):
            self._free.put((each.to(device), device))

    @contextmanager
    def one(self) -> Iterator[tuple[nn.Module, torch.device]]:
        """A replica that no other thread uses, and its device, without gradients."""
        found = self._free.get()
        try:
            with torch.inference_mode():
                yield found
        finally:
            self._free.put(found)


def extract(images: ImageSet, compute: Compute) -> Array:
    """Compute the features of every image, float32 (N, D), with progress lines."""
    progress, parts = Progress(images.path.name, images.count), []
    for batch in images.batches():
        with torch.inference_mode():
            parts.append(compute(batch).float().cpu().numpy())
        progress.update(len(batch))
    return np.concatenate(parts)
