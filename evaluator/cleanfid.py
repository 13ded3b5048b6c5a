"""clean-fid on the same samples and reference: `python -m evaluator.cleanfid`. Nothing is downloaded."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
import torch
from cleanfid import fid as clean

from evaluator import embedded, tool
from evaluator.embedded.network import DigitClassifier
from evaluator.errors import ToolError
from evaluator.extractor import extractor_of
from evaluator.samples import ImageSet

Array = np.ndarray[Any, Any]
KID_SEED = 0


def features(network: DigitClassifier, images: ImageSet) -> Array:
    """(N, 64) features; clean-fid's own batching would want files."""
    if images.shape != (embedded.EDGE, embedded.EDGE):
        raise ToolError(f"images are {images.shape}, this extractor takes {embedded.EDGE} x {embedded.EDGE}")
    parts = []
    for batch in images.batches():
        pixels = torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float()
        parts.append(network(pixels)[0].numpy())
    return np.concatenate(parts)


def score(task: tool.Task) -> list[tool.Result]:
    """FID and KID of every sample set with clean-fid's estimators."""
    network = extractor_of(task.graph, "clean-fid")
    reference = features(network, task.reference)
    mean, covariance = reference.mean(axis=0), np.cov(reference, rowvar=False)
    results: list[tool.Result] = []
    for images in task.samples:
        found = features(network, images)
        value = clean.frechet_distance(found.mean(axis=0), np.cov(found, rowvar=False), mean, covariance)
        # clean-fid draws KID's subsets from numpy's global generator.
        np.random.seed(KID_SEED)
        kid = clean.kernel_distance(found, reference)
        results.append(({"fid": float(value), "kid": float(kid)}, {"resize": "none needed", "kid_seed": KID_SEED}))
    return results


if __name__ == "__main__":
    tool.run("clean_fid", metadata.version("clean-fid"), score)
