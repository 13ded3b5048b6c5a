"""The ADM protocol on the frozen TensorFlow graph: `python -m evaluator.tools.adm`. The only module with TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluator.features.cache import folder_name
from evaluator.inception import graph as graphs
from evaluator.inception.graph import BLANK, LOGITS, Graph
from evaluator.tools import adm_protocol
from evaluator.tools.adm_protocol import SPATIAL_CHANNELS
from evaluator.tools.base import Result, Task, run
from evaluator.tools.quiet import silent
from sra.common.errors import EvaluatorError

with silent():
    import tensorflow as tf

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
INPUT, POOL, SPATIAL = (f"{name}:0" for name in (graphs.INPUT, graphs.POOL, graphs.SPATIAL))
"""Tensors: the first output of each operation."""


class InceptionGraph:
    """A frozen graph with the interface of ADM's Inception; widths, grid and classes are the graph's own."""

    def __init__(self, graph: Graph) -> None:
        """Load and check a graph.

        Raises:
            EvaluatorError: not a graph, or one without the tensors, of other ranks, or with too few channels.
        """
        definition = v1.GraphDef()
        try:
            definition.ParseFromString(graph.path.read_bytes())
        except Exception as error:
            # protobuf's DecodeError has no public home of its own.
            raise EvaluatorError(f"--graph {graph.path}: not a frozen TensorFlow graph") from error
        # All of a GPU's memory is not TensorFlow's, and TF32 would move features by a thousandth.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        settings = v1.ConfigProto(gpu_options=v1.GPUOptions(allow_growth=True))
        self.session = v1.Session(graph=tf.Graph(), config=settings)
        with self.session.graph.as_default():
            images = v1.placeholder(tf.float32, (None, None, None, 3))
            try:
                wanted = [POOL, SPATIAL, LOGITS]
                pool, spatial, logits = tf.import_graph_def(definition, {INPUT: images}, wanted, name="")
            except ValueError as error:
                needed = ", ".join((INPUT, *wanted))
                raise EvaluatorError(f"--graph {graph.path}: without the tensors that are needed: {needed}") from error
            _check_ranks(graph, {POOL: pool, SPATIAL: spatial})
            # Inside the graph's scope: the slice is an op of its own.
            self.images, self.outputs = images, (pool, spatial[..., :SPATIAL_CHANNELS])
        self.weights: Array = _classifier(graph, self.session, logits)
        self.widths = self._widths(graph)

    def __call__(self, images: Array) -> Array:
        """(n, H, W, 3) uint8 to pooled and spatial features side by side (n, D + h * w * 7), float32."""
        return np.concatenate(self.run(images), axis=1)

    def run(self, images: Array) -> list[Array]:
        """The two of them apart."""
        found = self.session.run(self.outputs, {self.images: images.astype(np.float32)})
        return [part.reshape(len(images), -1) for part in found]

    def _widths(self, graph: Graph) -> tuple[int, int]:
        """Seen on one black image: the shapes of a frozen graph need not be complete."""
        pool, spatial = self.session.run(self.outputs, {self.images: np.zeros(BLANK, np.float32)})
        where = f"--graph {graph.path}:"
        if pool.shape[:3] != (1, 1, 1) or pool.shape[3] != len(self.weights):
            raise EvaluatorError(
                f"{where} {POOL} is {pool.shape}, (N, 1, 1, {len(self.weights)}) is needed by {LOGITS}"
            )
        if spatial.shape[3] < SPATIAL_CHANNELS:
            raise EvaluatorError(f"{where} {SPATIAL} has {spatial.shape[3]} channels, {SPATIAL_CHANNELS} are needed")
        return pool.size, spatial.size


def _check_ranks(graph: Graph, tensors: dict[str, Any]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != tf.float32 or tensor.shape.rank != 4:
            found = f"{tensor.dtype.name} with axes {tensor.shape}"
            raise EvaluatorError(f"--graph {graph.path}: {name} is {found}, float32 with four axes is needed")


def _classifier(graph: Graph, session: Any, logits: Any) -> Array:
    """The classifier's weights (D, classes): no bias is used."""
    if logits.type != "MatMul" or logits.inputs[1].shape.rank != 2:
        raise EvaluatorError(f"--graph {graph.path}: {LOGITS} is not a product with a matrix of weights")
    weights: Array = session.run(logits.inputs[1])
    return weights.T if logits.get_attr("transpose_b") else weights


def score(task: Task) -> list[Result]:
    """The ADM metrics of every sample set."""
    return adm_protocol.score(task, InceptionGraph(task.graph), folder_name("adm", task.graph.sha256))


if __name__ == "__main__":
    run("adm", tf.__version__, score, adm_protocol.options)
