"""Feature files of a bundle: written from the cache, and metrics recomputed from them.

`python -m evaluator.features.feature_files export` writes statistics, pooled features (`.npz` with `pool` (N, D)
float32) and the classifier's weights (`.npy`, (D, classes)); `frechet` and `pool-metrics` compute metrics from such
files; `hash` prints the SHA-256 of the pixels of image sets. No file is ever unpickled.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.features import statistics
from evaluator.features.cache import FeatureCache, Features, Rows, folder_name
from evaluator.images.image_set import open_images
from evaluator.inception.graph import resolve
from evaluator.metrics.frechet import frechet_distance, gaussian
from evaluator.metrics.inception_score import score_of_pool
from evaluator.metrics.precision_recall import NEIGHBOURS, exact_precision_recall, precision_recall
from evaluator.metrics.rows import blocks
from sra.common.errors import EvaluatorError
from sra.common.files import replacing
from sra.common.npz import has_images, read_arrays, write_array
from sra.common.program import program

CLASSIFIER = "classifier.npy"
"""File of the classifier's weights, in the cache folder of a graph."""
Array = np.ndarray[Any, Any]
NO_ARRAY = np.empty(0)


class _NotCachedError(Exception):
    """Some features are not in the cache."""


def cache_folder(cache: Path, graph: str) -> Path:
    """Folder of a cache with the features of a frozen graph."""
    return cache / folder_name("adm", resolve(graph).sha256)


def export(
    images: Path, graph: str, cache: Path, widths: tuple[int, int], out: Path, features: Path | None = None
) -> bool:
    """Write the statistics of an image set; False if its features are not in the cache.

    Args:
        images: `.npz`, folder or zip; stored statistics of a reference batch are copied.
        graph: the frozen graph that made the features.
        cache: folder of cached features.
        widths: of pooled and spatial features.
        out: statistics file to write.
        features: file of pooled features to write; None: none.

    Raises:
        EvaluatorError: images or graph cannot be read.
    """
    found = statistics.read(images)
    wanted = found is None or (features is not None and has_images(images))
    cached = _cached(images, cache_folder(cache, graph), widths) if wanted else None
    if found is None:
        if cached is None:
            return False
        found = statistics.Statistics(gaussian(cached.pool), gaussian(cached.spatial), stored=False)
    if cached is not None and features is not None:
        write_pool(cached.pool, features)
    statistics.write(out, found)
    return True


def _cached(images: Path, folder: Path, widths: tuple[int, int]) -> Features | None:
    def absent(_images: Array) -> Array:
        raise _NotCachedError

    try:
        return FeatureCache(folder).features(open_images(images), absent, widths)
    except _NotCachedError:
        return None


def write_weights(weights: Array, out: Path) -> None:
    """Write a classifier's weights (D, classes)."""
    write_array(out, weights)


def write_pool(pool: Rows | Array, out: Path) -> None:
    """Write pooled features (N, D) as `.npz`, a block at a time: memory use does not depend on N."""
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(map(int, pool.shape))}
    with (
        replacing(out) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        archive.open("pool.npy", "w", force_zip64=True) as handle,
    ):
        np.lib.format.write_array_header_1_0(handle, header)
        for block in blocks(pool):
            handle.write(np.ascontiguousarray(block, "<f4").tobytes())


def frechet_metrics(samples: Path, reference: Path) -> dict[str, float]:
    """FID and sFID of two statistics files.

    Raises:
        EvaluatorError: a file without statistics.
    """
    sides = [statistics.read(path) for path in (samples, reference)]
    for path, side in zip((samples, reference), sides, strict=True):
        if side is None:
            raise EvaluatorError(f"{path}: expected the arrays {', '.join(statistics.KEYS)}, got none of them")
    a, b = (side for side in sides if side is not None)
    spatial = {"sfid": frechet_distance(a.spatial, b.spatial)} if a.spatial and b.spatial else {}
    return {"fid": frechet_distance(a.pool, b.pool), **spatial}


def pool_metrics(samples: Path, reference: Path, classifier: Path) -> dict[str, float]:
    """Inception score, precision and recall of two files of pooled features, as `adm_protocol` computes them.

    Returns:
        The metrics, and the numbers of images as `samples` and `reference`.

    Raises:
        EvaluatorError: a file cannot be read, or they do not fit each other.
    """
    ours, theirs, weights = _read_pool(samples), _read_pool(reference), read_matrix(classifier)
    if not ours.shape[1] == theirs.shape[1] == len(weights):
        shapes = f"{ours.shape}, {theirs.shape} and classifier {weights.shape}"
        raise EvaluatorError(f"{samples}: expected features and classifier of one width, got {shapes}")
    precision, recall = precision_recall(theirs, ours, half=True)
    precision_exact, recall_exact, _ = exact_precision_recall(theirs, ours)
    return {
        "is": score_of_pool(ours, weights).value,
        "precision": precision,
        "recall": recall,
        "precision_exact": precision_exact,
        "recall_exact": recall_exact,
        "samples": len(ours),
        "reference": len(theirs),
    }


def _read_pool(path: Path) -> Array:
    found = read_arrays(path, ["pool"]).get("pool", NO_ARRAY)
    if found.ndim != 2 or found.dtype != np.float32:
        raise EvaluatorError(f"{path}: pool: expected a float32 matrix, got none")
    if len(found) <= NEIGHBOURS or not np.isfinite(found).all():
        raise EvaluatorError(f"{path}: expected finite features of more than {NEIGHBOURS} images")
    return found


def read_matrix(path: Path) -> Array:
    """The float32 matrix of an `.npy` file.

    Raises:
        EvaluatorError: another array, or none that can be read.
    """
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise EvaluatorError(f"{path}: expected an array, got none that can be read") from error
    if found.ndim != 2 or found.dtype != np.float32:
        raise EvaluatorError(f"{path}: expected a float32 matrix, got {found.dtype} {found.shape}")
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m evaluator.features.feature_files", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="write statistics; prints the files that were written")
    exporting.add_argument("--images", type=Path, nargs="+", required=True)
    exporting.add_argument("--out", type=Path, nargs="+", required=True)
    exporting.add_argument("--graph", required=True)
    exporting.add_argument("--cache", type=Path, required=True)
    exporting.add_argument("--widths", type=int, nargs=2, required=True, help="of pooled and spatial features")
    exporting.add_argument("--features", type=Path, nargs="+", help="write pooled features too, one file a set")
    exporting.add_argument("--classifier", type=Path, help="write the classifier's weights too, if cached")
    for name, metrics in (("frechet", "FID and sFID"), ("pool-metrics", "Inception score, precision and recall")):
        measuring = commands.add_parser(name, help=f"{metrics} as JSON, one object a pair")
        for option in ("--samples", "--reference", *(["--classifier"] if name == "pool-metrics" else [])):
            measuring.add_argument(option, type=Path, nargs="+", required=True, help="one a pair")
    hashing = commands.add_parser("hash", help="SHA-256 of the pixels of each image set")
    hashing.add_argument("--images", type=Path, nargs="+", required=True)
    with program():
        _run(parser.parse_args())


def _run(options: argparse.Namespace) -> None:
    if options.command == "export":
        features = options.features or [None] * len(options.images)
        for images, out, pool in zip(options.images, options.out, features, strict=True):
            if export(images, options.graph, options.cache, tuple(options.widths), out, pool):
                print(out)
        weights = cache_folder(options.cache, options.graph) / CLASSIFIER
        if options.classifier and weights.is_file():
            write_weights(read_matrix(weights), options.classifier)
    elif options.command == "hash":
        print(json.dumps([open_images(path).sha256() for path in options.images]))
    elif options.command == "frechet":
        pairs = zip(options.samples, options.reference, strict=True)
        print(json.dumps([frechet_metrics(*pair) for pair in pairs]))
    else:
        triples = zip(options.samples, options.reference, options.classifier, strict=True)
        print(json.dumps([pool_metrics(*triple) for triple in triples]))


if __name__ == "__main__":
    main()
