"""The ADM protocol on the frozen TensorFlow graph: `python -m evaluator.tools.adm`. The only module with TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluator.features.cache import folder_name
from evaluator.inception import graph as graphs
from evaluator.inception.graph import BLANK, LOGITS, Graph
from evaluator.tools import adm_protocol
from evaluator.tools.adm_protocol import SPATIAL_CHANNELS
from evaluator.tools.base import Result, Task, run, silent_stderr
from sra.common.errors import EvaluatorError

with silent_stderr():
    import tensorflow as tf

v1 = tf.compat.v1
Array = np.ndarray[Any, Any]
INPUT, POOL, SPATIAL = (f"{name}:0" for name in (graphs.INPUT, graphs.POOL, graphs.SPATIAL))
"""Tensors: the first output of each operation."""


class InceptionGraph:
    """A frozen graph with the interface of ADM's Inception; widths, grid and classes are the graph's own."""

    at_once = 1

    def __init__(self, graph: Graph) -> None:
        """Load and check a graph.

        Raises:
            EvaluatorError: not a graph, or one without the tensors, of other ranks, or with too few channels.
        """
        definition = v1.GraphDef()
        try:
            definition.ParseFromString(graph.path.read_bytes())
        except Exception as error:
            # protobuf's DecodeError has no public name here.
            raise EvaluatorError(f"--graph {graph.path}: expected a frozen TensorFlow graph") from error
        # Leave GPU memory to other processes; TF32 would change features by a thousandth.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        settings = v1.ConfigProto(gpu_options=v1.GPUOptions(allow_growth=True))
        self.session = v1.Session(graph=tf.Graph(), config=settings)
        with self.session.graph.as_default():
            images = v1.placeholder(tf.float32, (None, None, None, 3))
            try:
                outputs = [POOL, SPATIAL, LOGITS]
                pool, spatial, logits = tf.import_graph_def(definition, {INPUT: images}, outputs, name="")
            except ValueError as error:
                needed = ", ".join((INPUT, *outputs))
                raise EvaluatorError(f"--graph {graph.path}: expected the tensors {needed}") from error
            _check_ranks(graph, {POOL: pool, SPATIAL: spatial})
            # Inside the graph's scope: the slice is an op of its own.
            self.images, self.outputs = images, (pool, spatial[..., :SPATIAL_CHANNELS])
        self.weights: Array = _classifier(graph, self.session, logits)
        self.widths = self._widths(graph)

    def __call__(self, images: Array) -> Array:
        """(n, H, W, 3) uint8 to pooled and spatial features side by side (n, D + h * w * 7), float32."""
        return np.concatenate(self.run(images), axis=1)

    def run(self, images: Array) -> list[Array]:
        """Pooled and spatial features separately."""
        found = self.session.run(self.outputs, {self.images: images.astype(np.float32)})
        return [part.reshape(len(images), -1) for part in found]

    def _widths(self, graph: Graph) -> tuple[int, int]:
        """Measured on one black image: the shapes stored in a frozen graph need not be complete."""
        pool, spatial = self.session.run(self.outputs, {self.images: np.zeros(BLANK, np.float32)})
        where = f"--graph {graph.path}:"
        if pool.shape[:3] != (1, 1, 1) or pool.shape[3] != len(self.weights):
            raise EvaluatorError(
                f"{where} {POOL}: expected shape (N, 1, 1, {len(self.weights)}) as {LOGITS} has it, got {pool.shape}"
            )
        if spatial.shape[3] < SPATIAL_CHANNELS:
            raise EvaluatorError(
                f"{where} {SPATIAL}: expected {SPATIAL_CHANNELS} channels or more, got {spatial.shape[3]}"
            )
        return pool.size, spatial.size


def _check_ranks(graph: Graph, tensors: dict[str, Any]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != tf.float32 or tensor.shape.rank != 4:
            found = f"{tensor.dtype.name} with axes {tensor.shape}"
            raise EvaluatorError(f"--graph {graph.path}: {name}: expected float32 with four axes, got {found}")


def _classifier(graph: Graph, session: Any, logits: Any) -> Array:
    """The classifier's weights (D, classes): no bias is used."""
    if logits.type != "MatMul" or logits.inputs[1].shape.rank != 2:
        raise EvaluatorError(f"--graph {graph.path}: {LOGITS}: expected a MatMul with a matrix of weights")
    weights: Array = session.run(logits.inputs[1])
    return weights.T if logits.get_attr("transpose_b") else weights


def score(task: Task) -> list[Result]:
    """The ADM metrics of every sample set."""
    return adm_protocol.score(task, InceptionGraph(task.graph), folder_name("adm", task.graph.sha256))


if __name__ == "__main__":
    run("adm", tf.__version__, score, adm_protocol.options)
