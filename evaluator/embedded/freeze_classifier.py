"""Write the digit classifier as a frozen TensorFlow graph: `python -m evaluator.embedded.freeze_classifier`.

Names and ranks are those of the ADM Inception graph: input `ExpandDims:0` (N, H, W, 3) in [0, 255], resized in the
graph; outputs `pool_3:0` (N, 1, 1, D) and `mixed_6/conv:0` (N, h, w, C); the classifier's weights (D, classes) are the
second input of `softmax/logits/MatMul`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from safetensors.numpy import load_file

from evaluator import embedded
from sra.common.program import program

SLOPE = 0.1


def build() -> Any:
    """The graph definition, weights as constants."""
    w = load_file(embedded.WEIGHTS)
    v1 = tf.compat.v1
    graph = tf.Graph()
    with graph.as_default():
        images = v1.placeholder(tf.float32, (None, None, None, 3), name="ExpandDims")
        x = v1.image.resize_bilinear(images, (embedded.EDGE, embedded.EDGE), name="ResizeBilinear")
        x = (x - 128.0) * np.float32(1 / 128)
        x = tf.nn.leaky_relu(_convolution(x, w["conv1.weight"], w["conv1.bias"], "mixed/conv"), SLOPE)
        spatial = _convolution(x, w["conv2.weight"], w["conv2.bias"], "mixed_6/conv")
        x = tf.nn.leaky_relu(spatial, SLOPE)
        x = tf.nn.leaky_relu(_convolution(x, w["conv3.weight"], w["conv3.bias"], "mixed_10/conv"), SLOPE)
        pooled = tf.reduce_mean(x, (1, 2), keepdims=True, name="pool_3")
        weights = tf.constant(np.ascontiguousarray(w["logits.weight"].T), name="softmax/weights")
        logits = tf.matmul(tf.reshape(pooled, (-1, embedded.FEATURES)), weights, name="softmax/logits/MatMul")
        tf.nn.softmax(logits, name="softmax")
    return graph.as_graph_def()


def _convolution(x: Any, weight: Any, bias: Any, name: str) -> Any:
    """Stride 2 without padding, torch's (out, in, h, w) weights; the sum with the bias carries the name."""
    kernel = tf.constant(np.ascontiguousarray(weight.transpose(2, 3, 1, 0)))
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, strides=2, padding="VALID"), tf.constant(bias), name=name)


def main() -> None:
    """Write the graph."""
    embedded.GRAPH.write_bytes(build().SerializeToString())
    print(f"{embedded.GRAPH}: {embedded.GRAPH.stat().st_size} bytes")


if __name__ == "__main__":
    with program():
        main()
