"""Parse frozen TensorFlow graphs without TensorFlow: nodes, attributes and constants.

The few messages that a frozen graph is made of are declared here by field number (TensorFlow's
`core/framework/{graph,node_def,attr_value,tensor,tensor_shape}.proto`); protobuf itself does the parsing and skips
every field that is not declared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from sra.common.errors import EvaluatorError

Array = np.ndarray[Any, Any]
PACKAGE = "frozen"
# Message: field: (number, type or message, repeated). A map is a list of entries on the wire.
MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "Graph": {"node": (1, "Node", True)},
    "Node": {
        "name": (1, "string", False),
        "op": (2, "string", False),
        "input": (3, "string", True),
        "attr": (5, "Entry", True),
    },
    "Entry": {"key": (1, "string", False), "value": (2, "Value", False)},
    "Value": {
        "list": (1, "List", False),
        "s": (2, "bytes", False),
        "i": (3, "int64", False),
        "f": (4, "float", False),
        "b": (5, "bool", False),
        "type": (6, "int32", False),
        "tensor": (8, "Tensor", False),
    },
    "List": {"s": (2, "bytes", True), "i": (3, "int64", True), "f": (4, "float", True)},
    "Tensor": {
        "dtype": (1, "int32", False),
        "shape": (2, "Shape", False),
        "content": (4, "bytes", False),
        "float": (5, "float", True),
        "double": (6, "double", True),
        "int32": (7, "int32", True),
        "int64": (10, "int64", True),
    },
    "Shape": {"dim": (2, "Dimension", True)},
    "Dimension": {"size": (1, "int64", False)},
}
# TensorFlow's number of a dtype: numpy's, and the field that holds single values.
DTYPES = {1: (np.float32, "float"), 2: (np.float64, "double"), 3: (np.int32, "int32"), 9: (np.int64, "int64")}


@dataclass(frozen=True)
class Node:
    """One operation: its name, type, input tensors (`name:k`; without `:k` the first output) and attributes."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]


def read(path: Path) -> dict[str, Node]:
    """Nodes of a frozen graph by name; a constant's array is its attribute `value`.

    Raises:
        EvaluatorError: not a frozen graph.
    """
    graph = _message("Graph")()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise EvaluatorError(f"--graph {path}: expected a frozen TensorFlow graph") from error
    nodes: dict[str, Node] = {}
    for node in graph.node:
        # Control inputs (^name) order execution and carry no tensor.
        inputs = tuple(name for name in node.input if not name.startswith("^"))
        attributes = {entry.key: _value(entry.value) for entry in node.attr}
        nodes[node.name] = Node(node.name, node.op, inputs, attributes)
    return nodes


@cache
def _message(name: str) -> Any:
    # proto2: a field that was written, be it false or zero, is told from one that was not.
    file = descriptor_pb2.FileDescriptorProto(name="frozen_graph.proto", package=PACKAGE, syntax="proto2")
    kinds, labels = descriptor_pb2.FieldDescriptorProto.Type, descriptor_pb2.FieldDescriptorProto.Label
    for message, fields in MESSAGES.items():
        declared = file.message_type.add(name=message)
        for field, (number, kind, repeated) in fields.items():
            label = labels.Value("LABEL_REPEATED" if repeated else "LABEL_OPTIONAL")
            one = declared.field.add(name=field, number=number, label=label)
            if kind in MESSAGES:
                one.type, one.type_name = kinds.Value("TYPE_MESSAGE"), f".{PACKAGE}.{kind}"
            else:
                one.type = kinds.Value(f"TYPE_{kind.upper()}")
    # A pool of its own: the names never meet TensorFlow's.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _value(value: Any) -> Any:
    """An attribute as Python has it; None for kinds that no operation here reads (shapes, functions)."""
    for field, content in value.ListFields():
        if field.name == "tensor":
            return _array(content)
        if field.name == "list":
            return [_text(item) for _, items in content.ListFields() for item in items]
        return _text(content)
    return None


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _array(tensor: Any) -> Array | None:
    """A constant; None for a dtype that no operation here takes (strings)."""
    if tensor.dtype not in DTYPES:
        return None
    dtype, field = DTYPES[tensor.dtype]
    shape = tuple(dimension.size for dimension in tensor.shape.dim)
    if tensor.content:
        return np.frombuffer(tensor.content, dtype).reshape(shape)
    values = np.asarray(getattr(tensor, field), dtype)
    array = np.zeros(math.prod(shape), dtype)
    array[: len(values)] = values
    # TensorFlow leaves out what repeats the last value.
    array[len(values) :] = values[-1] if len(values) else 0
    return array.reshape(shape)
