"""Pooled features of scored images in a file each, and the metrics made of them again: IS, precision and recall.

`sample_statistics keep --features` writes the files, `python -m evaluator.features.pooled_features` measures
them. A file is
an `.npz` with `pool` (N, D) float32; the classifier's weights (D, classes) are an `.npy`. Neither is ever unpickled.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from evaluator.errors import EvaluatorError, refusing
from evaluator.features.cache import Rows
from evaluator.files import replacing
from evaluator.metrics import coverage, frechet

CLASSIFIER = "classifier.npy"
"""In the folder of a graph's features: its classifier's weights."""
Array = np.ndarray[Any, Any]


def write_weights(weights: Array, out: Path) -> None:
    """Write a classifier's weights (D, classes).

    Raises:
        EvaluatorError: the place cannot be written.
    """
    with replacing(out) as temporary, temporary.open("wb") as handle:
        np.save(handle, weights, allow_pickle=False)


def write_pool(pool: Rows, out: Path) -> None:
    """Write features (N, D) as `.npz`, a block at a time: memory does not grow with their number.

    Raises:
        EvaluatorError: the place cannot be written.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(map(int, pool.shape))}
    with (
        replacing(out) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        archive.open("pool.npy", "w", force_zip64=True) as handle,
    ):
        np.lib.format.write_array_header_1_0(handle, header)
        for block in frechet.blocks(pool):
            handle.write(np.ascontiguousarray(block, "<f4").tobytes())


def measure(samples: Path, reference: Path, classifier: Path) -> dict[str, float]:
    """IS, precision and recall of two files of features, as `evaluator.tools.adm_protocol` computes them.

    Returns:
        The metrics, and the numbers of images as `samples` and `reference`.

    Raises:
        EvaluatorError: files that are none, or do not fit each other.
    """
    ours, theirs, weights = _features(samples), _features(reference), _array(classifier, None)
    if not ours.shape[1] == theirs.shape[1] == len(weights):
        shapes = f"features {ours.shape} and {theirs.shape}, classifier {weights.shape}"
        raise EvaluatorError(f"{samples}: {shapes} do not fit each other")
    precision, recall = frechet.precision_recall(theirs, ours, half=True)
    precision_exact, recall_exact, _ = coverage.exact(theirs, ours)
    return {
        "is": frechet.score_of_pool(ours, weights).value,
        "precision": precision,
        "recall": recall,
        "precision_exact": precision_exact,
        "recall_exact": recall_exact,
        "samples": len(ours),
        "reference": len(theirs),
    }


def _features(path: Path) -> Array:
    found = _array(path, "pool")
    if len(found) <= frechet.NEIGHBOURS or not np.isfinite(found).all():
        raise EvaluatorError(f"{path}: needed are finite features of more than {frechet.NEIGHBOURS} images")
    return found


def _array(path: Path, key: str | None) -> Array:
    """The matrix of a file, or of one of its keys."""
    try:
        loaded = np.load(path, allow_pickle=False)
        found = loaded if key is None else loaded[key]
    except (OSError, ValueError, EOFError, KeyError, IndexError, zipfile.BadZipFile) as error:
        raise EvaluatorError(f"{path}: not an array{f' {key}' if key else ''} that can be read") from error
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype != np.float32:
        raise EvaluatorError(f"{path}: a matrix of float32 is needed")
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m evaluator.features.pooled_features", description=__doc__)
    for name in ("--samples", "--reference", "--classifier"):
        parser.add_argument(name, type=Path, nargs="+", required=True, help="one a pair")
    options = parser.parse_args()
    pairs = zip(options.samples, options.reference, options.classifier, strict=True)
    with refusing():
        print(json.dumps([measure(*pair) for pair in pairs]))


if __name__ == "__main__":
    main()
