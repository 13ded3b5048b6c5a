"""Gaussian statistics of scored images: kept in small files, and FID and sFID made of two of them.

`python -m evaluator.features.sample_statistics keep` for image sets with cached features; `distance` reads
two files. The files have the keys of ADM's reference batches: `mu`, `sigma`, `mu_s`, `sigma_s`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.errors import EvaluatorError, refusing
from evaluator.features.cache import FeatureCache, Features, folder_name
from evaluator.features.pooled_features import CLASSIFIER, write_pool, write_weights
from evaluator.files import replacing
from evaluator.images.image_set import STATISTICS, open_images, statistics
from evaluator.inception.graph import resolve
from evaluator.metrics.frechet import Gaussian, frechet_distances, gaussians

Array = np.ndarray[Any, Any]


class NotKept(Exception):  # noqa: N818 - not an error: the cache need not have everything
    """Features that a cache does not hold."""


def keep(
    images: Path, graph: str, cache: Path, widths: tuple[int, int], out: Path, features: Path | None = None
) -> bool:
    """Write the statistics of one image set; False where its features are not in the cache.

    Args:
        images: `.npz`, folder or zip; a reference batch's stored statistics are taken as they are.
        graph: the frozen graph that made the features.
        cache: folder of cached features.
        widths: of pooled and spatial features.
        out: the file, overwritten.
        features: file of its pooled features; None: they are not written.

    Raises:
        EvaluatorError: images or graph cannot be read, or the file cannot be written.
    """
    stored = statistics(images)
    found = _cached(images, folder(cache, graph), widths) if stored is None or features is not None else None
    if stored is None:
        if found is None:
            return False
        pool, spatial = gaussians(found.pool, found.spatial)
        stored = dict(zip(STATISTICS, (pool.mean, pool.covariance, spatial.mean, spatial.covariance), strict=True))
    if found is not None and features is not None:
        write_pool(found.pool, features)
    mu, sigma, mu_s, sigma_s = (stored[name] for name in STATISTICS)
    with replacing(out) as temporary, temporary.open("wb") as handle:
        np.savez(handle, mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)
    return True


def folder(cache: Path, graph: str) -> Path:
    """Where a cache has what the frozen graph made."""
    return cache / folder_name("adm", resolve(graph).sha256)


def _cached(images: Path, place: Path, widths: tuple[int, int]) -> Features | None:
    """None where they are not all there."""
    try:
        return FeatureCache(place).features(open_images(images), _absent, widths)
    except NotKept:
        return None


def _absent(_images: Array) -> Array:
    raise NotKept


def distance(samples: Path, reference: Path) -> dict[str, float]:
    """FID and sFID of two files of statistics.

    Raises:
        EvaluatorError: a file without statistics.
    """
    sides = []
    for path in (samples, reference):
        found = statistics(path)
        if found is None:
            raise EvaluatorError(f"{path}: without the arrays {', '.join(STATISTICS)}")
        sides.append([Gaussian(found[m], found[s]) for m, s in (("mu", "sigma"), ("mu_s", "sigma_s"))])
    return dict(zip(("fid", "sfid"), frechet_distances(*zip(*sides, strict=True)), strict=True))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m evaluator.features.sample_statistics", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    keeping = commands.add_parser("keep", help="write statistics; prints the files that were written")
    keeping.add_argument("--images", type=Path, nargs="+", required=True)
    keeping.add_argument("--out", type=Path, nargs="+", required=True)
    keeping.add_argument("--graph", required=True)
    keeping.add_argument("--cache", type=Path, required=True)
    keeping.add_argument("--widths", type=int, nargs=2, required=True, help="of pooled and of spatial features")
    measuring = commands.add_parser("distance", help="FID and sFID as JSON, one object a pair")
    measuring.add_argument("--samples", type=Path, nargs="+", required=True)
    measuring.add_argument("--reference", type=Path, nargs="+", required=True)
    keeping.add_argument("--features", type=Path, nargs="+", help="write pooled features too, one file a set")
    keeping.add_argument("--classifier", type=Path, help="write the classifier's weights too, where the cache has them")
    hashing = commands.add_parser("pixels", help="SHA-256 of the pixels of each image set")
    hashing.add_argument("--images", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    with refusing():
        _run(options)


def _run(options: argparse.Namespace) -> None:
    if options.command == "keep":
        features = options.features or [None] * len(options.images)
        for images, out, pool in zip(options.images, options.out, features, strict=True):
            if keep(images, options.graph, options.cache, tuple(options.widths), out, pool):
                print(out)
        kept = folder(options.cache, options.graph) / CLASSIFIER
        if options.classifier and kept.is_file():
            write_weights(np.load(kept, allow_pickle=False), options.classifier)
    elif options.command == "distance":
        pairs = zip(options.samples, options.reference, strict=True)
        print(json.dumps([distance(samples, reference) for samples, reference in pairs]))
    else:
        print(json.dumps([open_images(path).examine() for path in options.images]))


if __name__ == "__main__":
    main()
