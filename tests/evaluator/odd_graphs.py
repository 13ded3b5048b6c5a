"""Run by `test_adm.py` in a process of its own: small frozen graphs, good and bad, and what the evaluator says of them.

Prints JSON: the widths or the error of each graph; for the good one, our numbers and the plain numerics'.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from evaluator.dev import plain_numerics
from evaluator.images.image_set import open_images
from evaluator.inception.graph import resolve
from evaluator.tools import adm, adm_protocol, base
from sra.common.errors import EvaluatorError

v1 = tf.compat.v1
GENERATOR = np.random.default_rng(0)


def constant(*shape):
    return tf.constant(GENERATOR.normal(size=shape).astype(np.float32) / 4)


def build(place, *, channels=9, width=24, rows=None, spatial="mixed_6/conv", flat=False, resized=(7, 11)):
    """A network of two convolutions: grid 3 x 5, `width` pooled features, 6 classes."""
    graph = tf.Graph()
    with graph.as_default():
        images = v1.placeholder(tf.float32, (None, None, None, 3), name="ExpandDims")
        x = (v1.image.resize_bilinear(images, resized) - 128) / 128
        x = tf.nn.conv2d(x, constant(3, 3, 3, channels), 2, "VALID", name=spatial)
        pool = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, constant(1, 1, channels, width), 1, "SAME")), (1, 2))
        shape = (-1, width) if flat else (-1, 1, 1, width)
        tf.reshape(pool, shape, name="pool_3")
        wide = tf.pad(pool, ((0, 0), (0, (rows or width) - width)))
        tf.matmul(wide, constant(rows or width, 6), name="softmax/logits/MatMul")
    place.write_bytes(graph.as_graph_def().SerializeToString())
    return place


def numbers(graph, folder):
    """Two image sets of 20 and 30, fewer than features plus one: both covariances are singular."""
    sides = []
    for name, count in (("reference", 20), ("samples", 23)):
        pixels = GENERATOR.integers(0, 256, (count, 12, 20, 3), dtype=np.uint8)
        np.savez(folder / f"{name}.npz", arr_0=pixels)
        sides.append(folder / f"{name}.npz")
    options = argparse.Namespace(trust_statistics=False, no_intervals=True, views=None, metrics=(), differences=None)
    task = base.Task(open_images(sides[0]), [open_images(sides[1])], resolve(str(graph)), None, options)
    network = adm.InceptionGraph(task.graph)
    (result,) = adm_protocol.score(task, network, "adm")
    plain = [plain_numerics.features(network.run, side) for side in sides]
    fids = [plain_numerics.frechet_distance(*map(plain_numerics.statistics, pair)) for pair in zip(*plain, strict=True)]
    score = plain_numerics.inception_score(plain[1][0], network.weights)
    shares = plain_numerics.precision_recall(plain[0][0], plain[1][0])
    names = ("fid", "sfid", "is", "precision", "recall")
    return {"ours": result.metrics, "plain": dict(zip(names, [*fids, score, *shares], strict=True))}


def main(folder):
    graphs = {
        "good": build(folder / "good.pb"),
        "few channels": build(folder / "few.pb", channels=6),
        "other names": build(folder / "names.pb", spatial="mixed_5/conv"),
        "flat": build(folder / "flat.pb", flat=True),
        "classifier of another width": build(folder / "rows.pb", rows=30),
        "not a graph": folder / "text.pb",
    }
    graphs["not a graph"].write_bytes(b"not a graph at all")
    found = {}
    for name, path in graphs.items():
        try:
            found[name] = adm.InceptionGraph(resolve(str(path))).widths
        except EvaluatorError as error:
            found[name] = str(error)
    print(json.dumps({"graphs": found, "numbers": numbers(graphs["good"], folder)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
