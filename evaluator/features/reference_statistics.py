"""Statistics of references and samples: stored in the file, or computed from its images and kept by their hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluator.errors import EvaluatorError
from evaluator.features.cache import Features
from evaluator.files import replacing
from evaluator.images.image_set import ImageSet
from evaluator.images.npz import STATISTICS, statistics
from evaluator.metrics.frechet import Gaussian, gaussians


@dataclass(frozen=True)
class Statistics:
    """Of pooled and spatial features."""

    pool: Gaussian
    spatial: Gaussian
    stored: bool
    """Whether they stood in the file; its images then count for precision and recall only."""


def of_reference(images: ImageSet, features: Features, cache: Path) -> Statistics:
    """Those in the file, as the public evaluator takes them; else of all its images.

    Raises:
        EvaluatorError: stored ones of another graph, or the cache cannot be written.
    """
    return _stored(images.path, features) or _of_images(images, features, cache)


def of_samples(images: ImageSet, features: Features, cache: Path, *, trusted: bool) -> Statistics:
    """Of the images; those in the file only where they are trusted.

    Raises:
        EvaluatorError: the file brings statistics, which the public evaluator would silently use.
    """
    found = _stored(images.path, features)
    if found is not None and not trusted:
        raise EvaluatorError(
            f"{images.path}: samples that bring their own statistics ({', '.join(STATISTICS)}) are refused: they need "
            "not be those of the images; --trust-statistics scores by them"
        )
    return found or _of_images(images, features, cache)


def kept(cache: Path, sha256: str) -> Path:
    """Where a folder of features keeps the statistics of the images of this hash."""
    return cache / f"statistics-{sha256[:40]}.npz"


def _of_images(images: ImageSet, features: Features, cache: Path) -> Statistics:
    """From the cache, or computed once and put there."""
    place = kept(cache, images.examine())
    found = _read(place, stored=False)
    if found is None:
        pool, spatial = gaussians(features.pool, features.spatial)
        found = Statistics(pool, spatial, stored=False)
        arrays = (found.pool.mean, found.pool.covariance, found.spatial.mean, found.spatial.covariance)
        with replacing(place) as temporary, temporary.open("wb") as handle:
            np.savez(handle, allow_pickle=False, **dict(zip(STATISTICS, arrays, strict=True)))
    return found


def _stored(path: Path, features: Features) -> Statistics | None:
    found = _read(path, stored=True)
    for name, own, given in (
        ("mu", features.pool.shape[1], found and found.pool),
        ("mu_s", features.spatial.shape[1], found and found.spatial),
    ):
        if given and len(given.mean) != own:
            raise EvaluatorError(
                f"{path}: {name} has {len(given.mean)} values, this graph's features {own}: statistics of another graph"
            )
    return found


def _read(path: Path, *, stored: bool) -> Statistics | None:
    found = statistics(path)
    if found is None:
        return None
    mu, sigma, mu_s, sigma_s = (found[name] for name in STATISTICS)
    return Statistics(Gaussian(mu, sigma), Gaussian(mu_s, sigma_s), stored)
