"""The operations of a frozen Inception graph in torch, and the network that runs them.

Tensors keep TensorFlow's layout (N, H, W, C): convolutions and pools see them as channels-last views, so nothing is
copied and axis numbers of the graph need no change.
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
CPU_BATCH_IMAGES = 4
"""Images per pass on a CPU: activations then fit in its cache, which more than doubles the speed."""
FLOAT32 = 1
"""TensorFlow's number of this dtype."""


@dataclass(frozen=True)
class Network:
    """Operations of a frozen graph from images to features."""

    nodes: tuple[Node, ...]
    """In topological order, without constants."""
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
    """An attribute of an operation has an unsupported value."""


def _allow(attributes: Attributes, **allowed: Any) -> None:
    for name, value in allowed.items():
        found = attributes.get(name, value)
        if found != value:
            raise UnsupportedError(f"{name}: expected {value!r}, got {found!r}")


def _margins(size: int, window: int, stride: int, padding: str) -> tuple[int, int]:
    """TensorFlow's padding before and after an axis; SAME puts an odd cell after."""
    if padding == "VALID":
        return 0, 0
    if padding != "SAME":
        raise UnsupportedError(f"padding: expected 'SAME' or 'VALID', got {padding!r}")
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
    """Convolution of (N, H, W, C) with a kernel in torch's order (out, in, h, w), plus a folded batch norm's bias."""
    dilations = attributes.get("dilations", [1, 1, 1, 1])[1:3]
    windows = [(size - 1) * dilation + 1 for size, dilation in zip(kernel.shape[2:], dilations, strict=True)]
    x = x.permute(0, 3, 1, 2)
    strides, before, after = _padding(x, windows, attributes)
    if before != after:
        x, before = _pad(x, before, after, 0), [0, 0]
    return F.conv2d(x, kernel, bias, stride=strides, padding=before, dilation=dilations).permute(0, 2, 3, 1)


def max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Maximum over windows, without padding cells."""
    windows = attributes["ksize"][1:3]
    x = x.permute(0, 3, 1, 2)
    strides, before, after = _padding(x, windows, attributes)
    if before != after:
        x, before = _pad(x, before, after, -math.inf), [0, 0]
    return F.max_pool2d(x, windows, strides, before).permute(0, 2, 3, 1)


def avg_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """Mean over windows, without padding cells, as in TensorFlow."""
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
    """`BatchNormWithGlobalNormalization`: fixed statistics; gamma is used only with `scale_after_normalization`."""
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
    """One matrix product an axis; none for an axis that has its size already."""
    _allow(attributes, align_corners=False, half_pixel_centers=False)
    for axis, (found, target) in enumerate(zip(x.shape[1:3], size, strict=True)):
        if found != target:
            matrix = resize_matrix(found, target, x.device)
            x = torch.einsum("oh,nhwc->nowc" if axis == 0 else "ow,nhwc->nhoc", matrix, x)
    return x


def concat(_attributes: Attributes, axis: int, *parts: Tensor) -> Tensor:
    """`Concat`: the axis comes first."""
    return torch.cat(parts, axis)


def concat_v2(_attributes: Attributes, *inputs: Any) -> Tensor:
    """`ConcatV2`: the axis comes last."""
    return torch.cat(inputs[:-1], inputs[-1])


def cast(attributes: Attributes, x: Tensor) -> Tensor:
    """Convert to float32."""
    _allow(attributes, DstT=FLOAT32)
    return x.float()


def mean(attributes: Attributes, x: Tensor, axes: int | list[int]) -> Tensor:
    """Mean over axes."""
    return x.mean(axes, keepdim=attributes.get("keep_dims", False))


def squeeze(attributes: Attributes, x: Tensor) -> Tensor:
    """Remove the given axes, or all of length one."""
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
"""TensorFlow operation: function of its attributes and inputs; integer constants are Python numbers."""


class Inception(nn.Module):
    """The network of a frozen graph as a torch module."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.numbers: dict[str, Any] = {}
        # Names in TensorFlow may contain dots, names of torch's buffers may not.
        self._buffer_names: dict[str, str] = {}
        kernels = {node.inputs[1] for node in network.nodes if node.op == "Conv2D"}
        for name, array in network.constants.items():
            if not np.issubdtype(array.dtype, np.floating):
                self.numbers[name] = array.tolist()
                continue
            tensor = torch.from_numpy(array.copy())
            if name in kernels:
                tensor = tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            self._buffer_names[name] = f"constant_{len(self._buffer_names)}"
            self.register_buffer(self._buffer_names[name], tensor)
        self._outputs = {network.pool, network.spatial}
        self._last_use = {name: place for place, node in enumerate(network.nodes) for name in node.inputs}

    @property
    def weights(self) -> Tensor:
        """The classifier's weights (D, classes); no bias is used."""
        weights: Tensor = self.get_buffer(self._buffer_names[self.network.weights])
        return weights

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that the graph resizes its images to; None if it does not."""
        node = next((node for node in self.network.nodes if node.op == "ResizeBilinear"), None)
        return tuple(self.numbers[node.inputs[1]]) if node else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (N, D) and spatial features (N, h, w, C) of images (N, H, W, 3) in [0, 255].

        Raises:
            EvaluatorError: an unsupported attribute of an operation, or features that are not finite.
        """
        parts = torch.split(images, CPU_BATCH_IMAGES) if images.device.type == "cpu" else (images,)
        pooled, spatial = zip(*map(self._run, parts), strict=True)
        return torch.cat(pooled), torch.cat(spatial)

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        values: dict[str, Any] = {name: self.get_buffer(place) for name, place in self._buffer_names.items()}
        values |= self.numbers | {self.network.images: images.float()}
        for place, node in enumerate(self.network.nodes):
            inputs = [values[name] for name in node.inputs]
            try:
                values[node.name] = OPERATIONS[node.op](node.attributes, *inputs)
            except UnsupportedError as error:
                raise EvaluatorError(f"graph: node {node.name} ({node.op}): {error}") from error
            for name in set(node.inputs) - self._outputs:
                if self._last_use[name] == place:
                    del values[name]
        return self._checked(values[self.network.pool], values[self.network.spatial])

    def _checked(self, pool: Tensor, spatial: Tensor) -> tuple[Tensor, Tensor]:
        if pool.dim() != 4 or spatial.dim() != 4:
            names = f"{self.network.pool}, {self.network.spatial}"
            raise EvaluatorError(f"graph: {names}: expected four axes, got {pool.dim()} and {spatial.dim()}")
        if not bool(torch.isfinite(pool).all()):
            raise EvaluatorError(f"graph: {self.network.pool}: expected finite values, got NaN or infinity")
        return pool.flatten(1), spatial
