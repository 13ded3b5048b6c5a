"""The ADM protocol on whatever computes the features: the TensorFlow graph, or the same network elsewhere."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evaluator.features import statistics
from evaluator.features.cache import FeatureCache, Features, feature_cache
from evaluator.features.feature_files import CLASSIFIER, write_weights
from evaluator.features.statistics import Statistics
from evaluator.images.image_set import ImageSet
from evaluator.metrics import coverage, frechet, intervals
from evaluator.metrics.frechet import NEIGHBOURS, Gaussian, frechet_distance, frechet_distances, gaussian
from evaluator.tools import tool, views
from sra.common.errors import EvaluatorError

Array = np.ndarray[Any, Any]
SPATIAL_CHANNELS = 7
"""First channels of `mixed_6/conv` that make the spatial features."""


class Extractor(Protocol):
    """Images to features."""

    @property
    def widths(self) -> tuple[int, int]:
        """Of pooled and spatial features."""

    @property
    def weights(self) -> Array:
        """The classifier's (D, classes)."""

    def __call__(self, images: Array) -> Array:
        """(n, H, W, 3) uint8 to pooled and spatial features side by side, float32."""


@dataclass(frozen=True)
class Against:
    """What every sample set is held against."""

    features: Features
    statistics: Statistics

    @cached_property
    def of_images(self) -> Gaussian:
        """Of its images' pooled features, whatever statistics the file stores."""
        return gaussian(self.features.pool)


def score(task: tool.Task, extractor: Extractor, name: str) -> list[tool.Result]:
    """The ADM metrics of every sample set.

    Args:
        task: what to score.
        extractor: computes features.
        name: of the extractor's folder in a cache.

    Raises:
        EvaluatorError: not one folder of views a set, sets of three images or fewer, statistics that do not fit, a
            cache that cannot be written.
    """
    if task.options.views and len(task.options.views) != len(task.samples):
        raise EvaluatorError(f"--views: {len(task.options.views)} folders, {len(task.samples)} sample sets: one each")
    for images in (task.reference, *task.samples):
        if images.count <= NEIGHBOURS:
            raise EvaluatorError(f"{images.path}: {images.count} images, more than {NEIGHBOURS} are needed")
    with feature_cache(task.cache, name) as cache:
        write_weights(extractor.weights, cache.folder / CLASSIFIER)
        found = cache.features(task.reference, extractor, extractor.widths)
        against = Against(found, statistics.of_reference(task.reference, found, cache.folder))
        return [_one(task, images, extractor, cache, against) for images in task.samples]


def _one(task: tool.Task, images: ImageSet, extractor: Extractor, cache: FeatureCache, against: Against) -> tool.Result:
    features = cache.features(images, extractor, extractor.widths)
    _say(images, "statistics, FID, sFID and Inception score")
    own = statistics.of_samples(images, features, cache.folder, trusted=task.options.trust_statistics)
    inception = frechet.score_of_pool(features.pool, extractor.weights)
    fid, sfid = frechet_distances((own.pool, against.statistics.pool), (own.spatial, against.statistics.spatial))
    found: dict[str, float | None] = {"fid": fid, "sfid": sfid, "is": inception.value}
    _say(images, "precision and recall")
    both = against.features.pool, features.pool
    found["precision"], found["recall"] = frechet.precision_recall(*both, half=True)
    found["precision_exact"], found["recall_exact"], covered = coverage.exact(*both)
    if against.statistics.stored:
        # What the other tools, which know the reference's images only, can be held against.
        found["fid_images"] = frechet_distance(own.pool, against.of_images)
    settings: dict[str, object] = {
        "stored_statistics": against.statistics.stored,
        "trusted_sample_statistics": own.stored,
        "widths": {"pool": extractor.widths[0], "spatial": extractor.widths[1], "classes": extractor.weights.shape[1]},
    }
    if task.options.views:
        _say(images, "views")
        sides = views.Side(task.reference, against.features.pool), views.Side(images, features.pool)
        settings["views"] = views.write(*sides, extractor.weights, task.options.views[task.samples.index(images)])
    if task.options.no_intervals:
        return found, settings
    _say(images, "intervals")
    return found, settings, _intervals(found, features, own, against, inception, covered)


def options(parser: argparse.ArgumentParser) -> None:
    """Where the views go."""
    help_views = "write views (class histogram, nearest references) into these folders, one a sample set"
    parser.add_argument("--views", type=Path, nargs="+", help=help_views)


def _intervals(
    found: dict[str, float | None],
    features: Features,
    own: Statistics,
    against: Against,
    inception: frechet.InceptionScore,
    covered: coverage.Coverage,
) -> tool.Intervals:
    """By metric; statistics that were trusted say nothing of their spread."""
    result = {"is": intervals.inception_interval(inception)}
    kinds = (("fid", "pool"), ("sfid", "spatial")) if not own.stored else ()
    cases = [
        (_value(found, metric), *(getattr(side, kind) for side in (features, own, against.statistics)))
        for metric, kind in kinds
    ]
    result |= zip((metric for metric, _ in kinds), intervals.frechet_intervals(*cases), strict=True)
    for metric in ("precision", "precision_exact"):
        result[metric] = intervals.precision_interval(_value(found, metric), len(features.pool))
    for metric in ("recall", "recall_exact"):
        result[metric] = intervals.recall_interval(_value(found, metric), covered)
    return {metric: result[metric] for metric in found if metric in result}


def _value(found: dict[str, float | None], metric: str) -> float:
    value = found[metric]
    assert value is not None, metric
    return value


def _say(images: ImageSet, stage: str) -> None:
    print(f"{images.path.name}: {stage}", flush=True)
