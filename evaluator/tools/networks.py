"""Frechet distance, KID, precision and recall on features of another network than Inception; CMMD where it is CLIP.

A network is one file: a `Network` and a call of `main`; `evaluator.tools.NETWORKS` names it and its weights. It has
metrics of its own, under its own name: they are never compared with those of the ADM protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from evaluator.features import extractor, statistics
from evaluator.features.cache import Features, feature_cache, folder_name
from evaluator.features.extractor import Array
from evaluator.images.image_set import ImageSet
from evaluator.metrics import intervals
from evaluator.metrics.frechet import Gaussian, frechet_distance
from evaluator.metrics.kernel_distance import CMMD_SCALE, GAUSSIAN, KernelDistance
from evaluator.metrics.memorisation import Training
from evaluator.metrics.precision_recall import NEIGHBOURS, exact_precision_recall
from evaluator.metrics.rows import Rows
from evaluator.tools import Tool, realism
from evaluator.tools.base import NO_IMAGES, Result, Task, add_further_sets, run, training_of, warnings_of
from evaluator.tools.score_record import Interval, NamedFile, NearestTraining, NetworkSettings
from sra.common.errors import EvaluatorError, ToolError
from sra.common.processes import usable_cores

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the colours, in [0, 1]."""
State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, and how it sees images."""

    tool: Tool
    architecture: str
    """timm's name."""
    options: Mapping[str, Any]
    """Of the architecture."""
    width: int
    """Features of an image."""
    transform: Callable[[Array], Tensor]
    """(n, H, W, 3) uint8 to what the network takes."""
    adapt: Callable[[State], State] = dict
    """The published weights by timm's names."""
    cmmd: bool = False
    """Whether CMMD is defined on it."""

    def load(self, path: Path) -> nn.Module:
        """The network with its weights.

        Raises:
            ToolError: damaged, or the weights of another.
        """
        module: nn.Module = timm.create_model(self.architecture, pretrained=False, **self.options)
        state = extractor.state_dict(path)
        try:
            module.load_state_dict(self.adapt(state))
        except (RuntimeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ToolError(f"{path}: expected the weights of {self.architecture}: {reason}") from error
        return module.eval().requires_grad_(False)


def each(images: Array, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Change every image with Pillow: (n, H, W, 3) uint8 to (n, 3, h, w) float32 in [0, 255]."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        changed = list(pool.map(lambda image: np.asarray(change(Image.fromarray(image))), images))
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).float()


def normalised(images: Tensor, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """Images (n, 3, h, w) in [0, 255] less the mean of each colour in [0, 1], over its deviation."""
    shift, scale = (torch.tensor(values).reshape(3, 1, 1) for values in (mean, deviation))
    return (images / 255 - shift) / scale


def score(task: Task, network: Network) -> list[Result]:
    """The metrics of every sample set.

    Statistics that are stored beside images are Inception's and are not used; a file of statistics alone must be this
    network's.

    Raises:
        EvaluatorError: sets of three images or fewer, statistics of another width.
        ToolError: see `Network.load`.
    """
    task.require_more_images(NEIGHBOURS)
    if task.validation and task.validation.sha256() == task.reference.sha256():
        raise EvaluatorError(f"--validation {task.validation.path}: expected other images than the reference's")
    stored = None if task.reference.count else statistics.read(task.reference.path)
    if stored:
        statistics.check_widths(task.reference.path, stored, (network.width, 0))
    replicas = extractor.Replicas(network.load(task.graph.path))

    def compute(images: Array) -> Array:
        with replicas.one() as (module, device):
            found: Array = module(network.transform(images).to(device)).float().cpu().numpy()
        return found

    with feature_cache(task.cache, folder_name(network.tool, task.graph.sha256), replicas.count) as cache:

        def features_of(images: ImageSet) -> Features:
            return cache.features(images, compute, (network.width, 0))

        def seen(images: ImageSet) -> tuple[Rows, Gaussian]:
            features = features_of(images)
            return features.pool, statistics.of_images(images, features, cache.folder).pool

        against = (None, stored.pool) if stored else seen(task.reference)
        training = training_of(task, lambda images: features_of(images).pool)
        validation = frechet_distance(seen(task.validation)[1], against[1]) if task.validation else None
        settings = NetworkSettings(
            network=network.architecture,
            width=network.width,
            device=replicas.kind,
            statistics=NamedFile(name=task.reference.path.name, sha256=task.reference.sha256()) if stored else None,
            validation_fd=validation,
        )
        return [_score(seen(images), against, training, network, settings, task) for images in task.samples]


def _score(
    own: tuple[Rows, Gaussian],
    against: tuple[Rows | None, Gaussian],
    training: Training | None,
    network: Network,
    settings: NetworkSettings,
    task: Task,
) -> Result:
    """Metrics of one sample set, from features and their statistics."""
    (features, gaussian), (reference, theirs) = own, against
    metrics, ends = {"fd": frechet_distance(gaussian, theirs)}, dict[str, Interval]()
    wanted = not task.options.no_intervals
    if wanted:
        without = intervals.distances_without_each(features, gaussian, theirs)
        ends["fd"] = intervals.frechet_interval(metrics["fd"], without)
    if settings.validation_fd is not None:
        scale = 1 / settings.validation_fd if settings.validation_fd > 0 else math.nan
        metrics["fdr"] = metrics["fd"] * scale
        if wanted:
            ends["fdr"] = (ends["fd"][0] * scale, ends["fd"][1] * scale)
    records, warnings = tuple[NearestTraining, ...](), tuple[str, ...]()
    if training and task.training:
        copies = training.copies(features)
        records, warnings = realism.copy_records(task.training, copies), warnings_of(copies)
        found = {"authenticity": copies.authenticity()}
        found |= {"copying": copies.copying()} if task.validation else {}
        metrics |= {name: value for name, (value, _) in found.items()}
        ends |= {name: interval for name, (_, interval) in found.items() if wanted}
    if reference is None:
        names = ("kid", "precision", "recall", *(["cmmd"] if network.cmmd else []))
        absent = dict.fromkeys(names, NO_IMAGES)
        return Result(
            metrics=metrics, settings=settings, intervals=ends, copies=records, absent=absent, warnings=warnings
        )
    kernel = KernelDistance(features, reference)
    metrics["kid"] = kernel.value
    metrics["precision"], metrics["recall"], coverage = exact_precision_recall(reference, features)
    if wanted:
        ends["kid"] = intervals.around(metrics["kid"], math.sqrt(kernel.variance))
        ends["precision"] = intervals.precision_interval(metrics["precision"], len(features))
        ends["recall"] = intervals.recall_interval(metrics["recall"], coverage)
    if network.cmmd:
        kernel = KernelDistance(features, reference, GAUSSIAN)
        metrics["cmmd"] = CMMD_SCALE * kernel.biased
        if wanted:
            low, high = intervals.around(metrics["cmmd"], CMMD_SCALE * math.sqrt(kernel.variance))
            ends["cmmd"] = max(low, 0.0), high
    return Result(metrics=metrics, settings=settings, intervals=ends, copies=records, warnings=warnings)


def main(network: Network) -> None:
    """The command line of a network."""
    run(network.tool, timm.__version__, partial(score, network=network), add_further_sets)
