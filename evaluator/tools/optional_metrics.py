"""Metrics of the ADM protocol's features that are computed if `--metrics` names them; papers print none of them."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluator.features.cache import Features
from evaluator.images.image_set import ImageSet
from evaluator.images.labels import labels_of
from evaluator.metrics import density_coverage, extrapolation, intervals
from evaluator.metrics.classes import ClassMeans, class_means, histogram_deviation, histogram_distance, top_classes
from evaluator.metrics.frechet import Gaussian
from evaluator.metrics.inception_score import InceptionScore
from evaluator.metrics.kernel_distance import SUBSETS, KernelDistance
from evaluator.metrics.memorisation import Copies
from evaluator.metrics.rows import Array, Rows
from evaluator.tools import LEAST_IMAGES_PER_FEATURE, OF_TRAINING, PREDICTED, further_sets, optional_metric
from evaluator.tools.base import Task
from evaluator.tools.score_record import ClassScore, Interval
from sra.common.errors import EvaluatorError

OF_REFERENCE_IMAGES = ("kid", "kid_subsets", "density", "coverage", "class_histogram", "class_means")
"""Those that need the images of the reference."""
OF_LABELS = ("top1", "top5", "label_histogram")
INCEPTION_CLASSES = 1008
"""Of the Inception of 2015, which numbers ImageNet's classes in an order of its own."""
LABEL_MAP = "imagenet_2012_challenge_label_map_proto.pbtxt"
"""That order; in one archive with the graph."""
ENTRY = re.compile(r'target_class:\s*(\d+)\s*target_class_string:\s*"(\w+)"')


LabelsOf = Callable[[ImageSet], Array | None]


class Found(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Scored:
    """One sample set and its reference, and what several metrics share."""

    features: Features
    own: Gaussian
    inception: InceptionScore
    weights: Array
    """The classifier's (D, classes)."""
    labels: Array | None
    """(N,) class of the classifier that each sample was asked for."""
    reference: Features | None
    """None: statistics alone."""
    reference_labels: Array | None
    against: Gaussian
    copies: Copies | None
    """None: no metric of training images is named."""

    @property
    def training_copies(self) -> Copies:
        """Where a metric of training images is named."""
        assert self.copies is not None
        return self.copies

    @property
    def reference_pool(self) -> Rows:
        """Of a reference with images: `check` has seen to it."""
        assert self.reference is not None
        return self.reference.pool

    @property
    def asked(self) -> Array:
        """Labels of samples that have some: `check` has seen to it."""
        assert self.labels is not None
        return self.labels

    @cached_property
    def top(self) -> Array:
        """(N, 5) likeliest classes of each sample."""
        return top_classes(self.features.pool, self.weights)

    @cached_property
    def reference_top(self) -> Array:
        """(M, 5) of each reference."""
        return top_classes(self.reference_pool, self.weights)

    @cached_property
    def kernel(self) -> KernelDistance:
        """Both estimates of the kernel distance."""
        return KernelDistance(self.features.pool, self.reference_pool)

    @cached_property
    def balls(self) -> density_coverage.Balls:
        """For density and coverage."""
        return density_coverage.balls(self.reference_pool, self.features.pool)

    @cached_property
    def means(self) -> ClassMeans:
        """Classes are the labels, or what the classifier says where a side has none."""
        sides = (
            (self.labels, self.features.pool, "top"),
            (self.reference_labels, self.reference_pool, "reference_top"),
        )
        (own, pool), (theirs, reference) = (
            (getattr(self, top)[:, 0] if labels is None else labels, rows) for labels, rows, top in sides
        )
        return class_means(pool, own, reference, theirs, self.weights.shape[1])

    @cached_property
    def curve(self) -> extrapolation.Curve:
        """FID by number of images."""
        return extrapolation.fit(self.features.pool, self.own, self.against)

    def counts(self, classes: Array) -> Array:
        """(classes,) images of each class."""
        return np.bincount(classes, minlength=self.weights.shape[1])


def _kid(s: Scored) -> Found:
    return _about(s.kernel.value, s.kernel.variance)


def _kid_subsets(s: Scored) -> Found:
    subsets = s.kernel.subsets
    return _about(float(subsets.mean()), s.kernel.variance + float(subsets.var(ddof=1)) / SUBSETS)


def _density(s: Scored) -> Found:
    values = s.balls.densities
    return _about(s.balls.density, float(values.var(ddof=1)) / len(values), low=0.0)


def _coverage(s: Scored) -> Found:
    trials = min(len(s.balls.held), len(s.balls.alone))
    return Found(s.balls.coverage, intervals.share_interval(s.balls.coverage, s.balls.coverage_variance, trials))


def _agreement(s: Scored, top: int) -> Found:
    share = float((s.top[:, :top] == s.asked[:, None]).any(axis=1).mean())
    return Found(share, intervals.precision_interval(share, len(s.top)))


def _histogram(s: Scored, against: Array) -> Found:
    counts = s.counts(s.top[:, 0])
    return _about(histogram_distance(counts, against), histogram_deviation(counts, against) ** 2, 0.0, 1.0)


def _class_means(s: Scored) -> Found:
    found = s.means
    if not len(found.classes):
        return Found(math.nan, None)
    return _about(float(found.distances.mean()), float(found.variances.sum()) / len(found.classes) ** 2)


def _about(value: float, variance: float, low: float = -math.inf, high: float = math.inf) -> Found:
    first, last = intervals.around(value, math.sqrt(variance))
    return Found(value, (max(first, low), min(last, high)))


METRICS: dict[str, Callable[[Scored], Found]] = {
    "kid": _kid,
    "kid_subsets": _kid_subsets,
    "density": _density,
    "coverage": _coverage,
    "top1": lambda s: _agreement(s, 1),
    "top5": lambda s: _agreement(s, 5),
    "class_histogram": lambda s: _histogram(s, s.counts(s.reference_top[:, 0])),
    "label_histogram": lambda s: _histogram(s, s.counts(s.asked)),
    "class_means": _class_means,
    "fid_infinity": lambda s: Found(*s.curve.at(None)),
    "authenticity": lambda s: Found(*s.training_copies.authenticity()),
    "copying": lambda s: Found(*s.training_copies.copying()),
}
"""By name; `is_splits` and `fid@N` have several."""


def compute(names: tuple[str, ...], scored: Scored) -> Iterator[tuple[str, Found]]:
    """The named metrics of a sample set, in their order."""
    for name in names:
        if predicted := PREDICTED.fullmatch(name):
            yield name, Found(*scored.curve.at(int(predicted[1])))
        elif name == "is_splits":
            score = scored.inception
            for number, (value, error) in enumerate(zip(score.splits, intervals.split_errors(score), strict=True), 1):
                yield f"is_split_{number}", _about(value, error**2, low=1.0)
        else:
            yield name, METRICS[name](scored)


def by_class(names: tuple[str, ...], scored: Scored) -> tuple[ClassScore, ...]:
    """Scores of each class, the worst first: by distance if `class_means` is named, else by agreement."""
    agreement, asked = {}, np.zeros(0)
    if {"top1", "top5"} & set(names):
        right, asked = (scored.counts(part) for part in (scored.asked[scored.top[:, 0] == scored.asked], scored.asked))
        agreement = {int(c): float(right[c] / asked[c]) for c in np.flatnonzero(asked)}
    if "class_means" not in names:
        order = sorted(agreement, key=lambda c: agreement[c])
        return tuple(ClassScore(label=c, images=int(asked[c]), top1=agreement[c]) for c in order)
    return tuple(
        ClassScore(
            label=c,
            images=images,
            top1=agreement.get(c),
            distance=distance,
            interval=intervals.around(distance, math.sqrt(variance)),
        )
        for c, images, distance, variance in zip(*map(np.ndarray.tolist, scored.means.columns), strict=True)
    )


def check(task: Task, width: int, labels: LabelsOf) -> None:
    """Refuse metrics that cannot be computed, before any feature is.

    Args:
        task: what is scored, and the names of the metrics.
        width: of pooled features.
        labels: reads those of an image set.

    Raises:
        EvaluatorError: labels or an image set that are not there, or fewer images than a metric needs.
    """
    names, reference = task.options.metrics, task.reference
    for name in filter(OF_TRAINING.__contains__, names):
        for option in further_sets("adm", [name]):
            if getattr(task, option) is None:
                raise EvaluatorError(f"--metrics {name}: expected --{option} IMAGES, got none")
    wanting = next((name for name in names if name in OF_LABELS), None)
    for images in task.samples:
        if labels(images) is None and wanting:
            raise EvaluatorError(
                f"--metrics {wanting}: {images.path}: expected labels: an array labels or arr_1 inside, or labels.npy "
                "beside it, got none"
            )
        for name in names:
            wanted = PREDICTED.fullmatch(name)
            if wanted and int(wanted[1]) < images.count:
                raise EvaluatorError(f"--metrics {name}: expected {images.count} (images of {images.path}) or more")
            least = LEAST_IMAGES_PER_FEATURE * width
            if (wanted or name == "fid_infinity") and images.count < least:
                got = f"{least} images or more ({LEAST_IMAGES_PER_FEATURE} a feature), got {images.count}"
                raise EvaluatorError(f"--metrics {name}: {images.path}: expected {got}")
    if {"density", "coverage"} & set(names) and 0 < reference.count <= density_coverage.NEIGHBOURS:
        least = density_coverage.NEIGHBOURS + 1
        raise EvaluatorError(f"--metrics: {reference.path}: expected {least} images or more, got {reference.count}")


def labels_in(names: tuple[str, ...], classes: int, graph: Path, images: ImageSet) -> Array | None:
    """(N,) classes of a classifier that images were asked for; None: no metric uses them, or there are none.

    Args:
        names: of the metrics.
        classes: number of the classifier's.
        graph: its file; the order of its classes lies beside it where it is not that of the labels.
        images: whose labels.

    Raises:
        EvaluatorError: a label that the classifier does not have, or an order that is needed and not there.
    """
    wanted = images.count and {*OF_LABELS, "class_means"} & set(names)
    labels = labels_of(images.path, images.count) if wanted else None
    if labels is None:
        return None
    order, place = np.arange(classes), graph.with_name(LABEL_MAP)
    if place.is_file():
        entries = sorted((name, int(number)) for number, name in ENTRY.findall(place.read_text(errors="replace")))
        order = np.array([number for _, number in entries if number < classes])
    elif classes == INCEPTION_CLASSES:
        raise EvaluatorError(
            f"{graph}: expected {LABEL_MAP} (from its archive) beside it: its classes are not in the order of labels"
        )
    if labels.max(initial=0) >= len(order):
        raise EvaluatorError(f"{images.path}: labels: expected classes below {len(order)}, got {labels.max()}")
    return np.asarray(order[labels])


def option(name: str) -> str:
    """Parse one name of `--metrics`."""
    try:
        return optional_metric(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
