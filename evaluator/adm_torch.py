"""The ADM protocol on the converted Inception in torch: `python -m evaluator.adm_torch`. A tool of its own.

The numbers are those of the ADM protocol (`evaluator.metrics`) on features that torch computes from the graph's own
weights: for machines whose GPU TensorFlow does not support. Its record never stands in for the TensorFlow route's.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluator import convert, extractor, metrics, tool, views
from evaluator.errors import EvaluatorError
from evaluator.extractor import Array
from evaluator.metrics import Gaussian
from evaluator.samples import ImageSet, statistics

SPATIAL_CHANNELS = 7


@dataclass(frozen=True)
class Reference:
    """What samples are held against."""

    images: ImageSet
    pool: Array
    """(M, D) features of its images, for precision and recall."""
    own: Gaussian
    """Of its images' pooled features."""
    gaussians: tuple[Gaussian, Gaussian]
    """Of pooled and spatial features: stored in the file, or computed from its images."""
    stored: bool


class Extractor:
    """The network of a graph on the best device."""

    def __init__(self, task: tool.Task) -> None:
        self.device = extractor.device()
        self.network = convert.load(task.graph).to(self.device)
        self.source = convert.source_of(task.graph)
        self.weights: Array = self.network.weights.cpu().numpy()
        self.cache = task.cache

    def compute(self, images: Array) -> Tensor:
        """(n, H, W, 3) uint8 to pooled and spatial features side by side (n, D + h * w * 7), float32."""
        pool, spatial = self.network(torch.from_numpy(images.copy()).to(self.device))
        return torch.cat([pool, spatial[..., :SPATIAL_CHANNELS].flatten(1)], 1)

    def features(self, images: ImageSet) -> tuple[Array, Array]:
        """Pooled and spatial ones, kept in the cache apart from TensorFlow's by the hashes of pixels and graph."""
        if self.cache is None:
            found = extractor.extract(images, self.compute)
        else:
            key = f"{images.examine()[:32]}-{self.source['sha256'][:32]}-torch"
            found = extractor.cached(images, self.compute, self.cache / f"{key}.npy")
        width = len(self.weights)
        return found[:, :width], found[:, width:]


def score(task: tool.Task) -> list[tool.Result]:
    """The ADM metrics of every sample set."""
    network = Extractor(task)
    reference = _reference(task.reference, network)
    settings = {
        "extractor": f"converted from graph {network.source['name']}",
        "source": network.source,
        "device": str(network.device),
        "stored_statistics": reference.stored,
    }
    folders = task.options.views or [None] * len(task.samples)
    results: list[tool.Result] = []
    for images, folder in zip(task.samples, folders, strict=True):
        pool, spatial = network.features(images)
        gaussians = _of_samples(images, pool, spatial, trusted=task.options.trust_statistics)
        found = _metrics(network, reference, pool, gaussians)
        notes = {**settings, "views": _views(network, reference, images, pool, folder)} if folder else settings
        results.append((found, notes))
    return results


def _reference(images: ImageSet, network: Extractor) -> Reference:
    pool, spatial = network.features(images)
    stored = _stored(images.path)
    own = metrics.gaussian(pool)
    return Reference(images, pool, own, stored or (own, metrics.gaussian(spatial)), stored is not None)


def _of_samples(images: ImageSet, pool: Array, spatial: Array, *, trusted: bool) -> tuple[Gaussian, Gaussian]:
    stored = _stored(images.path)
    if stored and not trusted:
        raise EvaluatorError(f"{images.path}: a sample file that brings its own statistics (mu, sigma) is refused")
    return stored or (metrics.gaussian(pool), metrics.gaussian(spatial))


def _stored(path: Path) -> tuple[Gaussian, Gaussian] | None:
    found = statistics(path)
    if found is None:
        return None
    return Gaussian(found["mu"], found["sigma"]), Gaussian(found["mu_s"], found["sigma_s"])


def _metrics(
    network: Extractor, reference: Reference, pool: Array, gaussians: tuple[Gaussian, Gaussian]
) -> dict[str, float | None]:
    (fid, sfid) = (metrics.frechet_distance(a, b) for a, b in zip(gaussians, reference.gaussians, strict=True))
    precision, recall = metrics.precision_recall(reference.pool, pool, half=True)
    precision_exact, recall_exact = metrics.precision_recall(reference.pool, pool, half=False)
    found: dict[str, float | None] = {
        "fid": fid,
        "sfid": sfid,
        "is": metrics.inception_score(pool @ network.weights),
        "precision": precision,
        "recall": recall,
        "precision_exact": precision_exact,
        "recall_exact": recall_exact,
    }
    if reference.stored:
        # The other tools know the reference's images only.
        found["fid_images"] = metrics.frechet_distance(gaussians[0], reference.own)
    return found


def _views(network: Extractor, reference: Reference, images: ImageSet, pool: Array, folder: Path) -> dict[str, Any]:
    known = views.Side(reference.images, reference.pool)
    return views.write(known, views.Side(images, pool), network.weights, folder)


def options(parser: argparse.ArgumentParser) -> None:
    """Where the views go."""
    help_views = "write views (class histogram, nearest references) into these folders, one a sample set"
    parser.add_argument("--views", type=Path, nargs="+", help=help_views)


if __name__ == "__main__":
    tool.run("adm_torch", torch.__version__, score, options)
