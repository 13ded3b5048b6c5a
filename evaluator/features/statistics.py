"""Feature statistics of image sets: stored in the `.npz` file, or computed and cached by the hash of the pixels.

Files have the keys of ADM's reference batches: `mu` (D,), `sigma` (D, D), `mu_s` (S,), `sigma_s` (S, S); those of other
tools have the first two alone.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import lapack

from evaluator.features.cache import Features
from evaluator.images.image_set import ImageSet
from evaluator.metrics.frechet import Gaussian, gaussian
from sra.common.errors import EvaluatorError, UserError
from sra.common.files import replacing
from sra.common.npz import read_arrays

KEYS = ("mu", "sigma", "mu_s", "sigma_s")
POOL_KEYS, SPATIAL_KEYS = KEYS[:2], KEYS[2:]
LEAST_ROUNDING = 1e-6
"""Relative to the largest variance: eigenvalues below zero by less are rounding."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Statistics:
    """Gaussians of pooled and spatial features."""

    pool: Gaussian
    spatial: Gaussian | None
    """None: the file has `mu` and `sigma` alone."""
    stored: bool
    """Whether they come from the file; its images then count for precision and recall only."""


def of_reference(images: ImageSet, features: Features, cache: Path) -> Statistics:
    """Stored statistics, as the public evaluator uses them; else those of all images.

    Raises:
        EvaluatorError: stored ones of another graph.
    """
    return _of_this_graph(images.path, features) or of_images(images, features, cache)


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
    return found or of_images(images, features, cache)


def of_images(images: ImageSet, features: Features, cache: Path) -> Statistics:
    """Statistics of the images' features, from the cache, or computed and written there."""
    path = cache / f"statistics-{images.sha256()[:40]}.npz"
    found = None
    try:
        found = read(path, stored=False)
    except UserError:
        print(f"{path}: cached statistics are damaged; they are computed again", flush=True)
    if found is None:
        spatial = gaussian(features.spatial) if features.spatial.shape[1] else None
        found = Statistics(gaussian(features.pool), spatial, stored=False)
        write(path, found)
    return found


def _of_this_graph(path: Path, features: Features) -> Statistics | None:
    found = read(path)
    if found is not None:
        check_widths(path, found, (features.pool.shape[1], features.spatial.shape[1]))
    return found


def check_widths(path: Path, found: Statistics, widths: tuple[int, int]) -> None:
    """Refuse statistics of another graph.

    Args:
        path: of the statistics, for the error.
        found: its statistics.
        widths: of the graph's pooled and spatial features.

    Raises:
        EvaluatorError: which key.
    """
    for key, given, width in (("mu", found.pool, widths[0]), ("mu_s", found.spatial, widths[1])):
        if given is not None and len(given.mean) != width:
            raise EvaluatorError(
                f"{path}: {key}: expected {width} values (features of this graph), got {len(given.mean)}"
            )


def read(path: Path, *, stored: bool = True) -> Statistics | None:
    """Statistics of an `.npz` file, in float64; None where it has none.

    Raises:
        EvaluatorError: some keys are missing, shapes do not fit, values are not finite, or a matrix is no covariance.
    """
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return None
    found = read_arrays(path, KEYS)
    if not found:
        return None
    if tuple(found) not in (KEYS, POOL_KEYS):
        raise EvaluatorError(f"{path}: expected {', '.join(KEYS)}, or the first two, got {', '.join(found)}")
    pool, *spatial = (_gaussian(path, found, *keys) for keys in (POOL_KEYS, SPATIAL_KEYS) if keys[0] in found)
    return Statistics(pool, spatial[0] if spatial else None, stored)


def _gaussian(path: Path, found: dict[str, Array], mean: str, covariance: str) -> Gaussian:
    shapes = found[mean].shape, found[covariance].shape
    if shapes != (shapes[0][:1], shapes[0][:1] * 2):
        raise EvaluatorError(f"{path}: {mean}, {covariance}: expected (D,), (D, D), got {shapes[0]}, {shapes[1]}")
    for key in (mean, covariance):
        if found[key].dtype.kind != "f" or not np.isfinite(found[key]).all():
            raise EvaluatorError(f"{path}: {key}: expected finite floating-point numbers, got {found[key].dtype}")
    _check_covariance(f"{path}: {covariance}", found[covariance])
    return Gaussian(found[mean].astype(np.float64), found[covariance].astype(np.float64))


def _check_covariance(where: str, given: Array) -> None:
    """Refuse a matrix that is not symmetric and positive semi-definite, up to the rounding of its dtype."""
    matrix = given.astype(np.float64)
    # Of a covariance, the largest value is on the diagonal.
    room = max(LEAST_ROUNDING, len(matrix) * float(np.finfo(given.dtype).eps)) * float(np.abs(matrix).max(initial=0))
    if np.abs(matrix - matrix.T).max(initial=0) > room:
        raise EvaluatorError(f"{where}: expected a symmetric matrix, got one that differs from its transpose")
    matrix[np.diag_indices(len(matrix))] += room
    if len(matrix) and room and lapack.dpotrf(matrix)[1]:
        raise EvaluatorError(f"{where}: expected a positive semi-definite matrix, got one with negative eigenvalues")


def write(path: Path, statistics: Statistics) -> None:
    """Write statistics as an `.npz` file."""
    pool, spatial = statistics.pool, statistics.spatial
    arrays = [pool.mean, pool.covariance, *((spatial.mean, spatial.covariance) if spatial else ())]
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **dict(zip(KEYS, arrays, strict=False)))
