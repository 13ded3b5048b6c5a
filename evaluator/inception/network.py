"""The operations of a frozen Inception graph in torch, and the network that runs them.

Tensors keep TensorFlow's layout (N, H, W, C): convolutions and pools see them as channels-last views, so nothing is
copied and every axis number of the graph holds as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluator.inception.graphdef import Array, Node
from sra.common.errors import EvaluatorError

Attributes = dict[str, Any]
CPU_PART = 4
"""Images that a CPU takes at once: what it works on then stays in its cache, which more than doubles the speed."""
FLOAT32 = 1
"""TensorFlow's number of the dtype."""


@dataclass(frozen=True)
class Network:
    """What a frozen graph computes between its images and its features."""

    nodes: tuple[Node, ...]
    """In an order that runs; no constants among them."""
    constants: dict[str, Array]
    images: str
    """Name of the images (N, H, W, 3) in [0, 255]."""
    pool: str
    """Name of the pooled features (N, 1, 1, D)."""
    spatial: str
    """Name of the spatial features (N, h, w, C)."""
    weights: str
    """Name of the classifier's weights (D, classes)."""


class UnsupportedError(Exception):
    """A setting of an operation that is not known here."""


def _allow(attributes: Attributes, **allowed: Any) -> None:
    for name, value in allowed.items():
        found = attributes.get(name, value)
        if found != value:
            raise UnsupportedError(f"{name} {found!r} is not known, only {value!r}")


def _margins(size: int, window: int, stride: int, padding: str) -> tuple[int, int]:
    """TensorFlow's padding before and after an axis; SAME puts the odd cell after."""
    if padding == "VALID":
        return 0, 0
    if padding != "SAME":
        raise UnsupportedError(f"padding {padding!r} is not known, only 'SAME' and 'VALID'")
    total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def _padding(x: Tensor, windows: list[int], attributes: Attributes) -> tuple[list[int], list[int], list[int]]:
    """Strides, and padding (before, after) of the axes H and W of (N, C, H, W)."""
    _allow(attributes, data_format="NHWC")
    strides = attributes["strides"][1:3]
    pairs = [
        _margins(size, window, stride, attributes["padding"])
        for size, window, stride in zip(x.shape[2:], windows, strides, strict=True)
    ]
    return strides, [before for before, _ in pairs], [after for _, after in pairs]


def _pad(x: Tensor, before: list[int], after: list[int], value: float) -> Tensor:
    return F.pad(x, (before[1], after[1], before[0], after[0]), value=value)


def conv2d(attributes: Attributes, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution of (N, H, W, C) with a kernel already in torch's order (out, in, h, w), and a bias folded into it."""
    dilations = attributes.get("dilations", [1, 1, 1, 1])[1:3]
    windows = [(size - 1) * dilation + 1 for size, dilation in zip(kernel.shape[2:], dilations, strict=True)]
    x = x.permute(0, 3, 1, 2)
    strides, before, after = _padding(x, windows, attributes)
    if before != after:
        x, before = _pad(x, before, after, 0), [0, 0]
    return F.conv2d(x, kernel, bias, stride=strides, padding=before, dilation=dilations).permute(0, 2, 3, 1)


def max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Maximum over windows; padding never wins."""
    windows = attributes["ksize"][1:3]
    x = x.permute(0, 3, 1, 2)
    strides, before, after = _padding(x, windows, attributes)
    if before != after:
        x, before = _pad(x, before, after, -math.inf), [0, 0]
    return F.max_pool2d(x, windows, strides, before).permute(0, 2, 3, 1)


def avg_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Mean over the cells of a window that lie inside the image: TensorFlow leaves padding out."""
    windows = attributes["ksize"][1:3]
    x = x.permute(0, 3, 1, 2)
    strides, before, after = _padding(x, windows, attributes)
    if before == after:
        pooled = F.avg_pool2d(x, windows, strides, before, count_include_pad=False)
    else:
        inside = _pad(torch.ones_like(x[:1, :1]), before, after, 0)
        pooled = F.avg_pool2d(_pad(x, before, after, 0), windows, strides) / F.avg_pool2d(inside, windows, strides)
    return pooled.permute(0, 2, 3, 1)


def batch_norm(attributes: Attributes, x: Tensor, *stored: Tensor) -> Tensor:
    """`BatchNormWithGlobalNormalization`: stored statistics; gamma counts only after `scale_after_normalization`."""
    mean, variance, beta, gamma = stored
    weight = gamma if attributes["scale_after_normalization"] else None
    epsilon = attributes["variance_epsilon"]
    x = x.permute(0, 3, 1, 2)
    return F.batch_norm(x, mean, variance, weight, beta, eps=epsilon).permute(0, 2, 3, 1)


def resize_matrix(size: int, out: int, device: torch.device) -> Tensor:
    """(out, size) weights of TensorFlow 1's bilinear resize along an axis: no half pixel, corners not aligned."""
    scale = np.float32(size) / np.float32(out)
    place = np.arange(out, dtype=np.float32) * scale
    lower = np.minimum(place.astype(np.int64), size - 1)
    share = place - lower.astype(np.float32)
    matrix = np.zeros((out, size), np.float32)
    rows = np.arange(out)
    np.add.at(matrix, (rows, lower), 1 - share)
    np.add.at(matrix, (rows, np.minimum(lower + 1, size - 1)), share)
    return torch.from_numpy(matrix).to(device)


def resize_bilinear(attributes: Attributes, x: Tensor, size: list[int]) -> Tensor:
    """Two matrix products, one an axis; an image that has the size already is left as it is."""
    _allow(attributes, align_corners=False, half_pixel_centers=False)
    for axis, (found, wanted) in enumerate(zip(x.shape[1:3], size, strict=True)):
        if found != wanted:
            matrix = resize_matrix(found, wanted, x.device)
            x = torch.einsum("oh,nhwc->nowc" if axis == 0 else "ow,nhwc->nhoc", matrix, x)
    return x


def concat(_attributes: Attributes, axis: int, *parts: Tensor) -> Tensor:
    """`Concat`: the axis comes first."""
    return torch.cat(parts, axis)


def concat_v2(_attributes: Attributes, *inputs: Any) -> Tensor:
    """`ConcatV2`: the axis comes last."""
    return torch.cat(inputs[:-1], inputs[-1])


def cast(attributes: Attributes, x: Tensor) -> Tensor:
    """To float32."""
    _allow(attributes, DstT=FLOAT32)
    return x.float()


def mean(attributes: Attributes, x: Tensor, axes: int | list[int]) -> Tensor:
    """Over axes."""
    return x.mean(axes, keepdim=attributes.get("keep_dims", False))


def squeeze(attributes: Attributes, x: Tensor) -> Tensor:
    """The named axes, or all of length one."""
    axes = attributes.get("squeeze_dims")
    return x.squeeze(tuple(axes)) if axes else x.squeeze()


def matmul(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    """Matrix product."""
    a = a.T if attributes.get("transpose_a") else a
    return a @ (b.T if attributes.get("transpose_b") else b)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda _, a, b: a + b,
    "AddV2": lambda _, a, b: a + b,
    "AvgPool": avg_pool,
    "BatchNormWithGlobalNormalization": batch_norm,
    "BiasAdd": lambda _, x, bias: x + bias,
    "Cast": cast,
    "Concat": concat,
    "ConcatV2": concat_v2,
    "Conv2D": conv2d,
    "ExpandDims": lambda _, x, axis: x.unsqueeze(axis),
    "LeakyRelu": lambda attributes, x: F.leaky_relu(x, attributes["alpha"]),
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Mean": mean,
    "Mul": lambda _, a, b: a * b,
    "Relu": lambda _, x: F.relu(x),
    "Reshape": lambda _, x, shape: x.reshape(shape),
    "ResizeBilinear": resize_bilinear,
    "Softmax": lambda _, x: x.softmax(-1),
    "Squeeze": squeeze,
    "Sub": lambda _, a, b: a - b,
}
"""TensorFlow operation: function of its attributes and inputs; integer constants come as Python numbers."""


class Inception(nn.Module):
    """A network taken out of a frozen graph, with the graph's tensor interface."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.numbers: dict[str, Any] = {}
        # TensorFlow's names may hold dots, which torch's must not.
        self.places: dict[str, str] = {}
        kernels = {node.inputs[1] for node in network.nodes if node.op == "Conv2D"}
        for name, array in network.constants.items():
            if not np.issubdtype(array.dtype, np.floating):
                self.numbers[name] = array.tolist()
                continue
            tensor = torch.from_numpy(array.copy())
            if name in kernels:
                tensor = tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            self.places[name] = f"constant_{len(self.places)}"
            self.register_buffer(self.places[name], tensor)
        self.kept = {network.pool, network.spatial}
        self.last = {name: place for place, node in enumerate(network.nodes) for name in node.inputs}

    @property
    def weights(self) -> Tensor:
        """The classifier's weights (D, classes); no bias is used."""
        weights: Tensor = self.get_buffer(self.places[self.network.weights])
        return weights

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that the graph resizes its images to; None where it does not."""
        node = next((node for node in self.network.nodes if node.op == "ResizeBilinear"), None)
        return tuple(self.numbers[node.inputs[1]]) if node else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) in [0, 255] to pooled features (N, D) and spatial ones (N, h, w, C).

        Raises:
            EvaluatorError: an operation with a setting that is not known, or features that are not finite.
        """
        parts = torch.split(images, CPU_PART) if images.device.type == "cpu" else (images,)
        pooled, spatial = zip(*map(self._run, parts), strict=True)
        return torch.cat(pooled), torch.cat(spatial)

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        values: dict[str, Any] = {name: self.get_buffer(place) for name, place in self.places.items()}
        values |= self.numbers | {self.network.images: images.float()}
        for place, node in enumerate(self.network.nodes):
            inputs = [values[name] for name in node.inputs]
            try:
                values[node.name] = OPERATIONS[node.op](node.attributes, *inputs)
            except UnsupportedError as error:
                raise EvaluatorError(f"graph: node {node.name} ({node.op}): {error}") from error
            for name in set(node.inputs) - self.kept:
                if self.last[name] == place:
                    del values[name]
        return self._checked(values[self.network.pool], values[self.network.spatial])

    def _checked(self, pool: Tensor, spatial: Tensor) -> tuple[Tensor, Tensor]:
        if pool.dim() != 4 or spatial.dim() != 4:
            raise EvaluatorError(f"graph: {self.network.pool} and {self.network.spatial} must have four axes")
        if not bool(torch.isfinite(pool).all()):
            raise EvaluatorError(f"graph: {self.network.pool} is not finite")
        return pool.flatten(1), spatial
