"""Convert the Inception network of a frozen TensorFlow graph: `python -m evaluator.inception.convert GRAPH OUT`.

OUT (`.safetensors`) holds the constants as tensors and, in its metadata, the operations between images and features.
TensorFlow is not needed, neither here nor where the result is used.
"""

from __future__ import annotations

import argparse
import graphlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from evaluator.inception import graphdef
from evaluator.inception.graph import BLANK, INPUT, LOGITS, POOL, SPATIAL, Graph, resolve
from evaluator.inception.graphdef import Array, Node
from evaluator.inception.network import OPERATIONS, Inception, Network
from sra.common.errors import EvaluatorError
from sra.common.files import check_place, named_in_utf8, replacing
from sra.common.program import program

PASSED = ("Identity", "CheckNumerics")
"""Operations that hand their first input on."""
NORM = "BatchNormWithGlobalNormalization"
FORMAT = "sra-bench inception 1"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Source:
    """Name and hash of a frozen graph."""

    name: str
    sha256: str


def load(graph: Graph) -> Inception:
    """The network of a frozen graph, or of a file that this module wrote.

    Raises:
        EvaluatorError: neither, or a graph without the tensors, or with an operation that is not known.
    """
    network = read(graph.path) if graph.path.suffix == SUFFIX else trace(graph.path)
    return Inception(fold(network)).eval().requires_grad_(False)


def trace(path: Path) -> Network:
    """Everything between the images and the features of a frozen graph.

    Raises:
        EvaluatorError: a tensor that is needed is absent, or an operation is not known.
    """
    nodes = graphdef.read(path)
    absent = [name for name in (INPUT, POOL, SPATIAL, LOGITS) if name not in nodes]
    if absent:
        raise EvaluatorError(f"--graph {path}: expected the tensors {', '.join(absent)}")
    outputs = [_source(nodes, name, path) for name in (POOL, SPATIAL, nodes[LOGITS].inputs[1])]
    needed = _needed(nodes, outputs, path)
    order = graphlib.TopologicalSorter({name: node.inputs for name, node in needed.items()}).static_order()
    constants = {name: node.attributes["value"] for name, node in needed.items() if node.op == "Const"}
    if outputs[2] not in constants:
        raise EvaluatorError(f"--graph {path}: {LOGITS}: expected a constant as its second input")
    steps = tuple(needed[name] for name in order if name in needed and name not in constants)
    pool, spatial, weights = outputs
    return Network(steps, constants, images=INPUT, pool=pool, spatial=spatial, weights=weights)


def _needed(nodes: dict[str, Node], outputs: list[str], path: Path) -> dict[str, Node]:
    """Nodes that the outputs depend on, down to the images, each with its inputs' true sources."""
    found: dict[str, Node] = {}
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name in found or name == INPUT:
            continue
        node = nodes[name]
        if node.op == "Const":
            if node.attributes.get("value") is None:
                raise EvaluatorError(f"--graph {path}: constant {name}: expected a known dtype")
        elif node.op not in OPERATIONS:
            known = ", ".join(sorted((*OPERATIONS, *PASSED)))
            raise EvaluatorError(f"--graph {path}: node {name}: expected one of {known}, got {node.op!r}")
        found[name] = replace(node, inputs=tuple(_source(nodes, i, path) for i in node.inputs))
        waiting += found[name].inputs
    return found


def _source(nodes: dict[str, Node], tensor: str, path: Path) -> str:
    """The node that makes a tensor, past those that only hand it on."""
    name, _, output = tensor.partition(":")
    if output not in ("", "0"):
        raise EvaluatorError(f"--graph {path}: {tensor}: expected the first output of an operation")
    if name not in nodes:
        raise EvaluatorError(f"--graph {path}: expected a node {name}, which is an input of another")
    node = nodes[name]
    return _source(nodes, node.inputs[0], path) if node.op in PASSED and name != INPUT else name


def fold(network: Network) -> Network:
    """Fold batch norms into the convolutions that only they read: fewer passes over memory, equal up to rounding."""
    used = Counter(name for node in network.nodes for name in node.inputs)
    used.update((network.pool, network.spatial))
    by_name = {node.name: node for node in network.nodes}
    constants = dict(network.constants)
    folded: dict[str, Node] = {}
    for norm in network.nodes:
        convolution = by_name.get(norm.inputs[0])
        if norm.op != NORM or convolution is None or not _foldable(convolution, norm, used, constants):
            continue
        image, kernel = convolution.inputs
        shift_name = f"{norm.name}/shift"
        scale, shift = _scale_and_shift(norm, network.constants)
        constants[kernel] = (constants[kernel] * scale).astype(np.float32)
        constants[shift_name] = shift.astype(np.float32)
        folded[convolution.name] = replace(convolution, name=norm.name, inputs=(image, kernel, shift_name))
    removed = {node.name for node in folded.values()}
    nodes = tuple(folded.get(node.name, node) for node in network.nodes if node.name not in removed)
    needed = {name for node in nodes for name in node.inputs} | {network.weights}
    return replace(network, nodes=nodes, constants={k: v for k, v in constants.items() if k in needed})


def _foldable(convolution: Node, norm: Node, used: Counter[str], constants: dict[str, Array]) -> bool:
    constant_inputs = (convolution.inputs[1], *norm.inputs[1:]) if convolution.op == "Conv2D" else ()
    alone = used[convolution.name] == 1 and used[convolution.inputs[1]] == 1
    return alone and bool(constant_inputs) and all(name in constants for name in constant_inputs)


def _scale_and_shift(norm: Node, constants: dict[str, Array]) -> tuple[Array, Array]:
    """A batch norm as x * scale + shift, float64 (C,)."""
    mean, variance, beta, gamma = (constants[name].astype(np.float64) for name in norm.inputs[1:])
    scale = 1 / np.sqrt(variance + norm.attributes["variance_epsilon"])
    if norm.attributes["scale_after_normalization"]:
        scale = scale * gamma
    return scale, beta - mean * scale


def write(network: Network, graph: Graph, out: Path) -> None:
    """Write a network as safetensors, atomically; the graph's name and hash go with it."""
    nodes = [{**asdict(node), "attributes": _plain(node.attributes)} for node in network.nodes]
    names = {"images": network.images, "pool": network.pool, "spatial": network.spatial, "weights": network.weights}
    metadata = {
        "format": FORMAT,
        "graph": json.dumps({"name": graph.name, "sha256": graph.sha256}),
        "nodes": json.dumps(nodes),
        "names": json.dumps(names),
    }
    with replacing(out) as temporary:
        save_file({name: array.copy() for name, array in network.constants.items()}, temporary, metadata)


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if isinstance(value, (str, int, float, list))}


def read(path: Path) -> Network:
    """A network that `write` wrote.

    Raises:
        EvaluatorError: not such a file.
    """
    try:
        with named_in_utf8(path) as name, safe_open(name, framework="numpy") as content:
            metadata = content.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise EvaluatorError(f"--graph {path}: expected a file written by convert-inception ({FORMAT!r})")
            constants = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        nodes = tuple(Node(**{**node, "inputs": tuple(node["inputs"])}) for node in json.loads(metadata["nodes"]))
        return Network(nodes, constants, **json.loads(metadata["names"]))
    except (SafetensorError, OSError) as error:
        raise EvaluatorError(f"--graph {path}: expected a whole safetensors file") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise EvaluatorError(f"--graph {path}: expected a file written by convert-inception, got: {error}") from error


def source_of(graph: Graph) -> Source:
    """The frozen graph that a graph file was converted from, or itself."""
    if graph.path.suffix != SUFFIX:
        return Source(graph.name, graph.sha256)
    with named_in_utf8(graph.path) as name, safe_open(name, framework="numpy") as content:
        return Source(**json.loads(content.metadata()["graph"]))


def main() -> None:
    """Convert, try the result on a blank image, write."""
    parser = argparse.ArgumentParser(description="Take the Inception network out of a frozen TensorFlow graph.")
    parser.add_argument("graph", help="frozen graph (.pb), or embedded:digits")
    parser.add_argument("out", type=Path, help=f"the network ({SUFFIX})")
    with program():
        options = parser.parse_args()
        if options.out.suffix != SUFFIX:
            raise EvaluatorError(f"OUT: expected a name that ends in {SUFFIX}, got {str(options.out)!r}")
        check_place(options.out, "OUT")
        graph = resolve(options.graph)
        network = trace(graph.path)
        inception = Inception(network).eval()
        with torch.inference_mode():
            pool, spatial = inception(torch.zeros(BLANK))
        write(network, graph, options.out)
    grid = " x ".join(map(str, spatial.shape[1:]))
    sizes = f"{pool.shape[1]} features, {grid} spatial, {inception.weights.shape[1]} classes"
    print(f"{options.out}: {len(network.nodes)} operations, {sizes}")


if __name__ == "__main__":
    main()
