"""The ADM protocol (FID, sFID, IS, precision, recall), given a function that computes features."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evaluator.features import statistics
from evaluator.features.cache import FeatureCache, Features, feature_cache
from evaluator.features.feature_files import CLASSIFIER, write_weights
from evaluator.features.statistics import Statistics
from evaluator.images.image_set import ImageSet
from evaluator.metrics import differences, intervals
from evaluator.metrics.frechet import Gaussian, frechet_distance, gaussian
from evaluator.metrics.inception_score import InceptionScore, score_of_pool
from evaluator.metrics.memorisation import Training
from evaluator.metrics.precision_recall import NEIGHBOURS, Coverage, exact_precision_recall, precision_recall
from evaluator.tools import OF_TRAINING, OPTIONAL_METRICS, optional_metrics, realism
from evaluator.tools.base import NO_IMAGES, Result, Task, add_further_sets, training_of, warnings_of
from evaluator.tools.optional_metrics import LabelsOf, Scored, labels_in
from evaluator.tools.score_record import AdmSettings, ClassScore, FeatureWidths, Interval, NamedFile, NearestTraining
from sra.common.errors import EvaluatorError
from sra.common.files import sha256_file

Array = np.ndarray[Any, Any]
MakeSettings = Callable[..., AdmSettings]
SPATIAL_CHANNELS = 7
"""First channels of `mixed_6/conv` that make the spatial features."""
SHARES = ("precision", "recall", "precision_exact", "recall_exact")


class Extractor(Protocol):
    """Images to features."""

    @property
    def widths(self) -> tuple[int, int]:
        """Of pooled and spatial features."""

    @property
    def weights(self) -> Array:
        """The classifier's (D, classes)."""

    @property
    def at_once(self) -> int:
        """Batches that it computes at a time."""

    def __call__(self, images: Array) -> Array:
        """(n, H, W, 3) uint8 to pooled and spatial features side by side, float32."""


@dataclass(frozen=True)
class Reference:
    """Features and statistics of the reference."""

    features: Features | None
    """None: it has statistics alone."""
    statistics: Statistics
    file: NamedFile | None
    """Of stored statistics."""

    @cached_property
    def of_images(self) -> Gaussian | None:
        """Statistics of the pooled features of its images, if the file stores others."""
        return gaussian(self.features.pool) if self.features and self.statistics.stored else None


def score(task: Task, extractor: Extractor, name: str, settings: MakeSettings = AdmSettings) -> list[Result]:
    """The ADM metrics of every sample set.

    Args:
        task: what to score.
        extractor: computes features.
        name: of the extractor's folder in a cache.
        settings: makes those of the record.

    Raises:
        EvaluatorError: not one folder of views a set, sets of three images or fewer, statistics that do not fit, a
            cache that cannot be written.
    """
    labels = partial(labels_in, task.options.metrics, extractor.weights.shape[1], task.graph.path)
    optional_metrics.check(task, extractor.widths[0], labels)
    if task.options.differences and len(task.samples) != 2:
        raise EvaluatorError(f"--differences: expected two sample sets, got {len(task.samples)}")
    if task.options.views and len(task.options.views) != len(task.samples):
        raise EvaluatorError(
            f"--views: expected {len(task.samples)} folders (one a sample set), got {len(task.options.views)}"
        )
    task.require_more_images(NEIGHBOURS)
    with feature_cache(task.cache, name, extractor.at_once) as cache:
        write_weights(extractor.weights, cache.folder / CLASSIFIER)
        against = _reference(task.reference, extractor, cache)
        training = None
        if set(OF_TRAINING) & set(task.options.metrics):
            training = training_of(task, lambda images: cache.features(images, extractor, extractor.widths).pool)
        shared = extractor, cache, against, training, settings, labels
        return [_score(task, images, *shared) for images in task.samples]


def _reference(images: ImageSet, extractor: Extractor, cache: FeatureCache) -> Reference:
    features = cache.features(images, extractor, extractor.widths) if images.count else None
    if features:
        found = statistics.of_reference(images, features, cache.folder)
    else:
        stored = statistics.read(images.path)
        assert stored is not None
        statistics.check_widths(images.path, stored, extractor.widths)
        found = stored
    file = NamedFile(name=images.path.name, sha256=sha256_file(images.path)) if found.stored else None
    return Reference(features, found, file)


@dataclass(frozen=True)
class _Scored:
    """The metrics that papers print of one sample set, and what they were computed from."""

    features: Features
    own: Statistics
    against: Reference
    inception: InceptionScore
    coverage: Coverage | None
    """None: the reference has no images."""
    metrics: dict[str, float]
    absent: dict[str, str]

    @classmethod
    def of(cls, features: Features, own: Statistics, against: Reference, inception: InceptionScore) -> _Scored:
        """Compute them."""
        metrics, absent, coverage = {"fid": frechet_distance(own.pool, against.statistics.pool)}, {}, None
        if own.spatial and against.statistics.spatial:
            metrics["sfid"] = frechet_distance(own.spatial, against.statistics.spatial)
        else:
            absent["sfid"] = "mu_s and sigma_s are not stored beside mu and sigma"
        metrics["is"] = inception.value
        if against.features:
            both = against.features.pool, features.pool
            metrics["precision"], metrics["recall"] = precision_recall(*both, half=True)
            metrics["precision_exact"], metrics["recall_exact"], coverage = exact_precision_recall(*both)
        else:
            absent |= dict.fromkeys(SHARES, NO_IMAGES)
        if against.of_images:
            # For comparison with the other tools, which see the images of the reference only.
            metrics["fid_images"] = frechet_distance(own.pool, against.of_images)
        return cls(features, own, against, inception, coverage, metrics, absent)

    @cached_property
    def without_each(self) -> dict[str, Array]:
        """(N,) FID and sFID without each image; none where the samples' file brought its own statistics."""
        found = {}
        for metric, kind in (("fid", "pool"), ("sfid", "spatial")):
            if metric in self.metrics and not self.own.stored:
                sides = (getattr(side, kind) for side in (self.features, self.own, self.against.statistics))
                found[metric] = intervals.distances_without_each(*sides)
        return found

    def intervals(self) -> dict[str, Interval]:
        """By metric."""
        found = {"is": intervals.inception_interval(self.inception)}
        for metric, without in self.without_each.items():
            found[metric] = intervals.frechet_interval(self.metrics[metric], without)
        if self.coverage:
            for metric in ("precision", "precision_exact"):
                found[metric] = intervals.precision_interval(self.metrics[metric], len(self.features.pool))
            for metric in ("recall", "recall_exact"):
                found[metric] = intervals.recall_interval(self.metrics[metric], self.coverage)
        return {metric: found[metric] for metric in self.metrics if metric in found}

    def contributions(self) -> dict[str, Array]:
        """(N,) of each image, by metric."""
        found = {"is": differences.inception_contributions(self.inception)}
        for metric, without in self.without_each.items():
            found[metric] = differences.frechet_contributions(self.metrics[metric], without)
        if self.coverage:
            found["precision_exact"] = self.coverage.inside.astype(np.float64)
        return found


def _score(
    task: Task,
    images: ImageSet,
    extractor: Extractor,
    cache: FeatureCache,
    against: Reference,
    training: Training | None,
    make: MakeSettings,
    labels: LabelsOf,
) -> Result:
    features = cache.features(images, extractor, extractor.widths)
    _say(images, "statistics, FID, sFID and Inception score")
    own = statistics.of_samples(images, features, cache.folder, trusted=task.options.trust_statistics)
    inception = score_of_pool(features.pool, extractor.weights)
    if against.features:
        _say(images, "precision and recall")
    found = _Scored.of(features, own, against, inception)
    metrics, absent = found.metrics, found.absent
    pool, spatial = extractor.widths
    settings = make(
        stored_statistics=against.statistics.stored,
        trusted_sample_statistics=own.stored,
        widths=FeatureWidths(pool=pool, spatial=spatial, classes=extractor.weights.shape[1]),
        statistics=against.file,
        fid_interval="jackknife",
    )
    copies, views = None, None
    nearest: tuple[NearestTraining, ...] = ()
    folder = task.options.views and task.options.views[task.samples.index(images)]
    if folder and against.features:
        _say(images, "views")
        sides = realism.Side(task.reference, against.features.pool), realism.Side(images, features.pool)
        views = realism.write(*sides, extractor.weights, folder)
    ends: dict[str, Interval] = {}
    if not task.options.no_intervals:
        _say(images, "intervals")
        ends = found.intervals()
    classes: tuple[ClassScore, ...] = ()
    if names := task.options.metrics:
        _say(images, ", ".join(names))
        if not against.features:
            lost = dict.fromkeys(filter(optional_metrics.OF_REFERENCE_IMAGES.__contains__, names), NO_IMAGES)
            absent, names = absent | lost, tuple(name for name in names if name not in lost)
        if training and task.training:
            copies = training.copies(features.pool)
            nearest = realism.copy_records(task.training, copies)
            if folder and views:
                place = realism.write_copies(task.training, images, copies, folder / "copies.png")
                views = views.model_copy(update={"copies": place})
        scored = Scored(
            features=features,
            own=own.pool,
            inception=inception,
            weights=extractor.weights,
            labels=labels(images),
            reference=against.features,
            reference_labels=labels(task.reference),
            against=against.statistics.pool,
            copies=copies,
        )
        more = dict(optional_metrics.compute(names, scored))
        metrics |= {name: more[name].value for name in more}
        classes = optional_metrics.by_class(names, scored)
        if not task.options.no_intervals:
            ends |= {name: interval for name, (_, interval) in more.items() if interval}
    return Result(
        metrics=metrics,
        absent=absent,
        settings=settings,
        intervals=ends,
        views=views,
        classes=classes,
        copies=nearest,
        warnings=warnings_of(copies) if copies else (),
        contributions=found.contributions() if task.options.differences else {},
    )


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the ADM protocol."""
    help_views = "write views (class histogram, nearest references) into these folders, one a sample set"
    parser.add_argument("--views", type=Path, nargs="+", help=help_views)
    help_differences = "write differences between two sample sets here"
    parser.add_argument("--differences", type=Path, help=help_differences)
    add_further_sets(parser)
    help_metrics = f"compute these, too: {', '.join(OPTIONAL_METRICS)}"
    parser.add_argument("--metrics", type=optional_metrics.option, nargs="+", default=(), help=help_metrics)


def _say(images: ImageSet, stage: str) -> None:
    print(f"{images.path.name}: {stage}", flush=True)
