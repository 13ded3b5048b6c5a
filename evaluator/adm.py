"""The ADM protocol on its frozen TensorFlow graph: `python -m evaluator.adm`. TensorFlow lives here alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from evaluator import metrics, tool
from evaluator.errors import EvaluatorError
from evaluator.graphs import Graph
from evaluator.samples import ImageSet, statistics

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
INPUT, POOL, SPATIAL, LOGITS = "ExpandDims:0", "pool_3:0", "mixed_6/conv:0", "softmax/logits/MatMul"
SPATIAL_CHANNELS = 7


@dataclass(frozen=True)
class Features:
    """Pooled features (N, D) and spatial ones (N, h * w * 7), float32."""

    pool: Array
    spatial: Array


class InceptionGraph:
    """A frozen graph with the interface of ADM's Inception."""

    def __init__(self, graph: Graph) -> None:
        """Load and check a graph.

        Raises:
            EvaluatorError: not a graph, or one without the tensors.
        """
        definition = v1.GraphDef()
        try:
            definition.ParseFromString(graph.path.read_bytes())
        except Exception as error:
            # protobuf's DecodeError has no public home of its own.
            raise EvaluatorError(f"--graph {graph.path}: not a frozen TensorFlow graph") from error
        self.session = v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            images = v1.placeholder(tf.float32, (None, None, None, 3))
            try:
                wanted = [POOL, SPATIAL, LOGITS]
                pool, spatial, logits = tf.import_graph_def(definition, {INPUT: images}, wanted, name="")
            except ValueError as error:
                needed = ", ".join((INPUT, *wanted))
                raise EvaluatorError(f"--graph {graph.path}: without the tensors that are needed: {needed}") from error
            if len(pool.shape) != 4 or len(spatial.shape) != 4:
                raise EvaluatorError(f"--graph {graph.path}: {POOL} and {SPATIAL} must have four axes")
            # Inside the graph's scope: the slice is an op of its own.
            self.images, self.outputs = images, (pool, spatial[..., :SPATIAL_CHANNELS])
        self.weights: Array = self.session.run(logits.inputs[1])

    def features(self, images: ImageSet, label: str) -> Features:
        """Features of every image, in batches of 64."""
        pool, spatial = [], []
        started = shown = time.monotonic()
        done = 0
        for batch in images.batches():
            p, s = self.session.run(self.outputs, {self.images: batch.astype(np.float32)})
            pool.append(p.reshape(len(batch), -1))
            spatial.append(s.reshape(len(batch), -1))
            done += len(batch)
            if time.monotonic() - shown > 2:
                shown = time.monotonic()
                meter = tqdm.format_meter(done, images.count, shown - started, unit=" images", prefix=label, ncols=0)
                print(meter, flush=True)
        return Features(np.concatenate(pool), np.concatenate(spatial))


def cached(graph: InceptionGraph, images: ImageSet, facts: Graph, cache: Path | None) -> Features:
    """Features from the cache, or computed and put there; keyed by the hashes of pixels and graph."""
    if cache is None:
        return graph.features(images, images.path.name)
    place = cache / f"{images.examine()[:32]}-{facts.sha256[:32]}.npz"
    if place.is_file():
        with np.load(place, allow_pickle=False) as arrays:
            return Features(arrays["pool"], arrays["spatial"])
    found = graph.features(images, images.path.name)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = place.with_suffix(".tmp")
    try:
        with temporary.open("wb") as handle:
            np.savez(handle, pool=found.pool, spatial=found.spatial)
        temporary.replace(place)
    except OSError as error:
        raise EvaluatorError(f"{place}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return found


def score(task: tool.Task) -> list[tool.Result]:
    """The ADM metrics of every sample set."""
    graph = InceptionGraph(task.graph)
    reference = cached(graph, task.reference, task.graph, task.cache)
    stored = statistics(task.reference.path)
    if stored is not None:
        pool, spatial = (metrics.Gaussian(stored[m], stored[s]) for m, s in (("mu", "sigma"), ("mu_s", "sigma_s")))
    else:
        pool, spatial = metrics.gaussian(reference.pool), metrics.gaussian(reference.spatial)
    results: list[tool.Result] = []
    for images in task.samples:
        if statistics(images.path) is not None:
            raise EvaluatorError(f"{images.path}: a sample file that brings its own statistics (mu, sigma) is refused")
        found = cached(graph, images, task.graph, task.cache)
        results.append((_metrics(graph, reference, found, pool, spatial), {"stored_statistics": stored is not None}))
    return results


def _metrics(
    graph: InceptionGraph, reference: Features, found: Features, pool: metrics.Gaussian, spatial: metrics.Gaussian
) -> dict[str, float | None]:
    precision, recall = metrics.precision_recall(reference.pool, found.pool, half=True)
    precision_exact, recall_exact = metrics.precision_recall(reference.pool, found.pool, half=False)
    return {
        "fid": metrics.frechet_distance(metrics.gaussian(found.pool), pool),
        "sfid": metrics.frechet_distance(metrics.gaussian(found.spatial), spatial),
        "is": metrics.inception_score(found.pool @ graph.weights),
        "precision": precision,
        "recall": recall,
        "precision_exact": precision_exact,
        "recall_exact": recall_exact,
    }


if __name__ == "__main__":
    tool.run("adm", tf.__version__, score)
