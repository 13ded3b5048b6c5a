"""clean-fid on the same samples and reference: `python -m evaluator.tools.clean_fid`. Nothing is downloaded.

The resizers, networks and estimators are clean-fid's own (Parmar et al. 2022); only the files and the batches come
from here, since its own functions read folders and fetch weights.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cleanfid import fid as clean
from cleanfid import inception_pytorch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer, make_resizer
from torch import Tensor

from evaluator.embedded import network as digits
from evaluator.features import extractor
from evaluator.features.extractor import Array, Weights
from evaluator.inception import convert
from evaluator.inception.graph import Graph
from evaluator.tools.base import Result, Task, run
from evaluator.tools.score_record import CleanFidMode, CleanFidSettings, NamedFile
from sra.common.errors import ToolError
from sra.common.files import sha256_file
from sra.common.processes import usable_cores

KID_SEED = 0
VERSION = metadata.version("clean-fid")
CLEAN, PYTORCH, TENSORFLOW = MODES = ("clean", "legacy_pytorch", "legacy_tensorflow")
TORCHSCRIPT = Weights(
    "clean-fid-inception",
    ("inception-2015-12-05.pt",),
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
)
# One network under two names: both carry the same hash.
STATE = Weights(
    "torch-fidelity-inception",
    ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)


@dataclass(frozen=True)
class Mode:
    """One of clean-fid's modes: images (n, H, W, 3) uint8 to features (n, D), and how that is done."""

    compute: extractor.Compute
    settings: CleanFidMode


def modes(task: Task) -> tuple[dict[str, Mode], dict[str, str]]:
    """The modes that can run, and why the others cannot.

    Raises:
        ToolError: none can.
    """
    device = extractor.devices()[0]
    if task.options.extractor == extractor.GRAPH:
        return _converted(task.graph, device), {}
    if task.graph.name == extractor.EMBEDDED:
        extractor.check_size(task.reference, *task.samples)
        return {CLEAN: _embedded()}, {}
    found: dict[str, Mode] = {}
    reasons: dict[str, str] = {}
    for mode in MODES:
        try:
            found[mode] = _own(mode, task.options.assets, device)
        except ToolError as reason:
            reasons[mode] = str(reason)
    if not found:
        raise ToolError(reasons[CLEAN])
    return found, reasons


def _own(mode: str, assets: Path, device: torch.device) -> Mode:
    if mode == PYTORCH:
        path = extractor.find_weights(STATE, assets)
        state = extractor.state_dict(path)
        # clean-fid has no argument for the place of these weights.
        inception_pytorch.load_state_dict_from_url = lambda *_args, **_options: state
        pytorch = inception_pytorch.InceptionV3(output_blocks=[3], resize_input=False).to(device).eval()
        network: Any = lambda x: pytorch(x / 255)[0].flatten(1)  # noqa: E731
    else:
        path = extractor.find_weights(TORCHSCRIPT, assets)
        network = _torchscript(path, mode == TENSORFLOW).to(device).eval()
    settings = CleanFidMode(extractor="clean-fid's own", weights=NamedFile(name=path.name, sha256=sha256_file(path)))
    return _mode(build_resizer(mode), lambda x: network(x.permute(0, 3, 1, 2)), device, settings)


def _torchscript(path: Path, resize_inside: bool) -> Any:
    try:
        return InceptionV3W(str(path.parent), download=False, resize_inside=resize_inside)
    except (RuntimeError, AttributeError) as error:
        raise ToolError(f"{path}: not a whole TorchScript file of clean-fid's Inception") from error


def _converted(graph: Graph, device: torch.device) -> dict[str, Mode]:
    """Every mode on the graph's network: images resized as the mode does, to the size that the network sees."""
    network = convert.load(graph).to(device)
    height, width = network.size or (0, 0)
    resizers = {
        CLEAN: make_resizer("PIL", False, "bicubic", (width, height)),
        PYTORCH: make_resizer("PyTorch", False, "bilinear", (height, width)),
        TENSORFLOW: build_resizer(TENSORFLOW),
    }
    settings = CleanFidMode(extractor=f"converted from graph {convert.source_of(graph).name}")
    chosen = resizers if network.size else {CLEAN: build_resizer(TENSORFLOW)}
    return {mode: _mode(chosen[mode], lambda x: network(x)[0], device, settings) for mode in chosen}


def _embedded() -> Mode:
    network = digits.load()

    def compute(batch: Array) -> Tensor:
        features: Tensor = network(torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float())[0]
        return features

    return Mode(compute, CleanFidMode(extractor="embedded digits classifier", resize="none needed"))


def _mode(resize: Callable[[Array], Array], network: Any, device: torch.device, settings: CleanFidMode) -> Mode:
    """A mode that resizes each image alone, as clean-fid does, and sees a batch of them."""

    def compute(batch: Array) -> Tensor:
        with ThreadPoolExecutor(usable_cores()) as pool:
            resized = np.stack(list(pool.map(resize, batch)))
        found: Tensor = network(torch.from_numpy(resized).to(device).float())
        return found

    return Mode(compute, settings)


def score(task: Task) -> list[Result]:
    """FID and KID of every sample set with clean-fid's estimators, in every mode that can run."""
    task.require_images()
    found, reasons = modes(task)
    settings = {name: mode.settings for name, mode in found.items()}
    why = [dict(reasons) for _ in task.samples]
    metrics: list[dict[str, float]] = [{} for _ in task.samples]
    for name, mode in found.items():
        reference = extractor.extract(task.reference, mode.compute)
        suffix = "" if name == CLEAN else f"_{name}"
        for images, row, reason in zip(task.samples, metrics, why, strict=True):
            features = extractor.extract(images, mode.compute)
            try:
                row[f"fid{suffix}"] = float(clean.fid_from_feats(features, reference))
            except ValueError as error:
                # Its matrix square root breaks down where images are few.
                few, width = min(len(features), len(reference)), features.shape[1]
                reason[name] = f"clean-fid {VERSION} finds no FID from {few} images of {width} features: {error}"
            row[f"kid{suffix}"] = _kid(features, reference)
    return [
        Result(metrics=row, settings=CleanFidSettings(kid_seed=KID_SEED, modes=settings, reasons=reason))
        for row, reason in zip(metrics, why, strict=True)
    ]


def _kid(features: Array, reference: Array) -> float:
    # clean-fid draws KID's subsets from numpy's global generator.
    np.random.seed(KID_SEED)
    return float(clean.kernel_distance(features, reference))


if __name__ == "__main__":
    run("clean-fid", VERSION, score, extractor.options)
