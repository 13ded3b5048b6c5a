"""Feature statistics of image sets: stored in the `.npz` file, or computed and cached by the hash of the pixels.

Files have the keys of ADM's reference batches: `mu` (D,), `sigma` (D, D), `mu_s` (S,), `sigma_s` (S, S).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.features.cache import Features
from evaluator.images.image_set import ImageSet
from evaluator.metrics.frechet import Gaussian, gaussian
from sra.common.errors import EvaluatorError
from sra.common.files import replacing

KEYS = ("mu", "sigma", "mu_s", "sigma_s")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Statistics:
    """Gaussians of pooled and spatial features."""

    pool: Gaussian
    spatial: Gaussian
    stored: bool
    """Whether they come from the file; its images then count for precision and recall only."""


def of_reference(images: ImageSet, features: Features, cache: Path) -> Statistics:
    """Stored statistics, as the public evaluator uses them; else those of all images.

    Raises:
        EvaluatorError: stored ones of another graph.
    """
    return _of_this_graph(images.path, features) or _of_images(images, features, cache)


def of_samples(images: ImageSet, features: Features, cache: Path, *, trusted: bool) -> Statistics:
    """Statistics of the images; stored ones only where they are trusted.

    Raises:
        EvaluatorError: the file has stored statistics, which the public evaluator would use without a word.
    """
    found = _of_this_graph(images.path, features)
    if found is not None and not trusted:
        raise EvaluatorError(
            f"{images.path}: expected samples without stored statistics, got {', '.join(KEYS)}: they need not be those "
            "of the images (--trust-statistics scores by them)"
        )
    return found or _of_images(images, features, cache)


def _of_images(images: ImageSet, features: Features, cache: Path) -> Statistics:
    """From the cache, or computed and written there."""
    path = cache / f"statistics-{images.sha256()[:40]}.npz"
    found = read(path, stored=False)
    if found is None:
        found = Statistics(gaussian(features.pool), gaussian(features.spatial), stored=False)
        write(path, found)
    return found


def _of_this_graph(path: Path, features: Features) -> Statistics | None:
    found = read(path)
    if found is None:
        return None
    for key, given, rows in (("mu", found.pool, features.pool), ("mu_s", found.spatial, features.spatial)):
        if len(given.mean) != rows.shape[1]:
            raise EvaluatorError(
                f"{path}: {key}: expected {rows.shape[1]} values (features of this graph), got {len(given.mean)}"
            )
    return found


def read(path: Path, *, stored: bool = True) -> Statistics | None:
    """Statistics of an `.npz` file; None where it has none.

    Raises:
        EvaluatorError: some keys are missing, shapes do not fit, or values are not finite.
    """
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            present = [key for key in KEYS if key in arrays.files]
            if not present:
                return None
            if len(present) < len(KEYS):
                raise EvaluatorError(f"{path}: expected {', '.join(KEYS)}, got {', '.join(present)}")
            found = {key: arrays[key] for key in KEYS}
    except (ValueError, zipfile.BadZipFile) as error:
        raise EvaluatorError(f"{path}: stored statistics cannot be read: {error}") from error
    for mean, covariance in (KEYS[:2], KEYS[2:]):
        shapes = found[mean].shape, found[covariance].shape
        if shapes != (shapes[0][:1], shapes[0][:1] * 2):
            raise EvaluatorError(f"{path}: {mean}, {covariance}: expected (D,), (D, D), got {shapes[0]}, {shapes[1]}")
    for key, array in found.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise EvaluatorError(f"{path}: {key}: expected finite floating-point numbers, got {array.dtype}")
    mu, sigma, mu_s, sigma_s = (found[key] for key in KEYS)
    return Statistics(Gaussian(mu, sigma), Gaussian(mu_s, sigma_s), stored)


def write(path: Path, statistics: Statistics) -> None:
    """Write statistics as an `.npz` file."""
    pool, spatial = statistics.pool, statistics.spatial
    arrays = (pool.mean, pool.covariance, spatial.mean, spatial.covariance)
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **dict(zip(KEYS, arrays, strict=True)))
