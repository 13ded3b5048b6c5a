"""Randomly weighted frozen graphs, and the features that TensorFlow computes with them.

`python inception_graph.py FOLDER [DIVISOR]` (TensorFlow, a process of its own) writes `images.npz`, `inception.pb` with
the operations and node names of the 2015 Inception, `other.pb` with the operations that it lacks, and the features of
each. Widths are the real ones divided by DIVISOR; depth, names, strides and paddings are the real ones.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
SEVEN = [(1, 7), (7, 1)]


class Builder:
    """NodeDefs by hand: what made the real graph is long gone from TensorFlow's Python interface."""

    def __init__(self, divisor):
        self.graph = v1.GraphDef()
        # Before 9, as the real one: later graphs may not hold BatchNormWithGlobalNormalization.
        self.graph.versions.producer = 8
        self.random = np.random.default_rng(0)
        self.divisor = divisor
        self.widths = {}

    def node(self, name, op, inputs=(), **attributes):
        node = self.graph.node.add(name=name, op=op, input=list(inputs))
        for key, value in attributes.items():
            attribute = node.attr[key]
            if isinstance(value, bool):
                attribute.b = value
            elif isinstance(value, tf.DType):
                attribute.type = value.as_datatype_enum
            elif isinstance(value, int):
                attribute.i = value
            elif isinstance(value, float):
                attribute.f = value
            elif isinstance(value, str):
                attribute.s = value.encode()
            elif isinstance(value, list):
                attribute.list.i.extend(value)
            else:
                attribute.tensor.CopyFrom(tf.make_tensor_proto(value))
        return name

    def const(self, name, value):
        value = np.asarray(value)
        dtype = {"f": tf.float32, "i": tf.int32}[value.dtype.kind]
        return self.node(name, "Const", dtype=dtype, value=value.astype(dtype.as_numpy_dtype))

    def conv(self, name, x, width, size=(1, 1), stride=1, padding="SAME"):
        """Conv2D, batch norm, CheckNumerics, control dependency, Relu: the last one carries the name."""
        inner = self.widths[x]
        width = max(8, width // self.divisor)
        spread = np.sqrt(2 / (size[0] * size[1] * inner))
        kernel = self.random.normal(0, spread, (*size, inner, width)).astype(np.float32)
        self.const(f"{name}/conv2d_params", kernel)
        strides = [1, stride, stride, 1]
        inputs = [x, f"{name}/conv2d_params"]
        self.node(f"{name}/Conv2D", "Conv2D", inputs, T=tf.float32, strides=strides, padding=padding)
        for part, low, high in (
            ("beta", -0.1, 0.3),
            ("gamma", 0.8, 1.2),
            ("moving_mean", -0.2, 0.2),
            ("moving_variance", 0.7, 1.3),
        ):
            self.const(f"{name}/batchnorm/{part}", self.random.uniform(low, high, width).astype(np.float32))
        stored = [f"{name}/batchnorm/{part}" for part in ("moving_mean", "moving_variance", "beta", "gamma")]
        settings = {"variance_epsilon": 0.001, "scale_after_normalization": width % 3 != 0}
        op = "BatchNormWithGlobalNormalization"
        self.node(f"{name}/batchnorm", op, [f"{name}/Conv2D", *stored], T=tf.float32, **settings)
        message = f"{name} is not finite"
        self.node(f"{name}/CheckNumerics", "CheckNumerics", [f"{name}/batchnorm"], T=tf.float32, message=message)
        checked = [f"{name}/batchnorm", f"^{name}/CheckNumerics"]
        self.node(f"{name}/control_dependency", "Identity", checked, T=tf.float32)
        self.node(name, "Relu", [f"{name}/control_dependency"], T=tf.float32)
        self.widths[name] = width
        return name

    def chain(self, prefix, x, layers, start=0):
        """Convolutions `conv`, `conv_1`, ... one after another."""
        for place, (width, size, *rest) in enumerate(layers, start):
            x = self.conv(f"{prefix}/conv" + (f"_{place}" if place else ""), x, width, size, *rest)
        return x

    def pool(self, name, op, x, size=3, stride=1, padding="SAME"):
        self.node(
            name, op, [x], T=tf.float32, ksize=[1, size, size, 1], strides=[1, stride, stride, 1], padding=padding
        )
        self.widths[name] = self.widths[x]
        return name

    def join(self, name, parts):
        self.const(f"{name}/concat_dim", np.int32(3))
        self.node(name, "Concat", [f"{name}/concat_dim", *parts], N=len(parts), T=tf.float32)
        self.widths[name] = sum(self.widths[part] for part in parts)
        return name


def build(divisor):
    b = Builder(divisor)
    b.node("DecodeJpeg/contents", "Placeholder", dtype=tf.string)
    b.node("DecodeJpeg", "DecodeJpeg", ["DecodeJpeg/contents"], channels=3)
    b.node("Cast", "Cast", ["DecodeJpeg"], SrcT=tf.uint8, DstT=tf.float32)
    b.const("ExpandDims/dim", np.int32(0))
    b.node("ExpandDims", "ExpandDims", ["Cast", "ExpandDims/dim"], T=tf.float32)
    b.const("ResizeBilinear/size", np.int32([299, 299]))
    b.node("ResizeBilinear", "ResizeBilinear", ["ExpandDims", "ResizeBilinear/size"], T=tf.float32, align_corners=False)
    b.const("Sub/y", np.float32(128))
    b.node("Sub", "Sub", ["ResizeBilinear", "Sub/y"], T=tf.float32)
    b.const("Mul/y", np.float32(1 / 128))
    b.node("Mul", "Mul", ["Sub", "Mul/y"], T=tf.float32)
    b.widths["Mul"] = 3
    x = b.conv("conv", "Mul", 32, (3, 3), 2, "VALID")
    x = b.conv("conv_1", x, 32, (3, 3), 1, "VALID")
    x = b.conv("conv_2", x, 64, (3, 3))
    x = b.pool("pool", "MaxPool", x, 3, 2, "VALID")
    x = b.conv("conv_3", x, 80, (1, 1), 1, "VALID")
    x = b.conv("conv_4", x, 192, (3, 3), 1, "VALID")
    x = b.pool("pool_1", "MaxPool", x, 3, 2, "VALID")
    for name, pooled in (("mixed", 32), ("mixed_1", 64), ("mixed_2", 64)):
        x = grid_35(b, name, x, pooled)
    x = b.join(
        "mixed_3/join",
        [
            b.conv("mixed_3/conv", x, 384, (3, 3), 2, "VALID"),
            b.chain("mixed_3/tower", x, [(64, (1, 1)), (96, (3, 3)), (96, (3, 3), 2, "VALID")]),
            b.pool("mixed_3/pool", "MaxPool", x, 3, 2, "VALID"),
        ],
    )
    for name, width in (("mixed_4", 128), ("mixed_5", 160), ("mixed_6", 160), ("mixed_7", 192)):
        x = grid_17(b, name, x, width)
    tower = [(192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2, "VALID")]
    x = b.join(
        "mixed_8/join",
        [
            b.chain("mixed_8/tower", x, [(192, (1, 1)), (320, (3, 3), 2, "VALID")]),
            b.chain("mixed_8/tower_1", x, tower),
            b.pool("mixed_8/pool", "MaxPool", x, 3, 2, "VALID"),
        ],
    )
    for name, pooled in (("mixed_9", "AvgPool"), ("mixed_10", "MaxPool")):
        x = grid_8(b, name, x, pooled)
    features = b.widths[b.pool("pool_3", "AvgPool", x, 8, 1, "VALID")]
    b.const("pool_3/_reshape/shape", np.int32([-1, features]))
    b.node("pool_3/_reshape", "Reshape", ["pool_3", "pool_3/_reshape/shape"], T=tf.float32)
    b.const("softmax/weights", b.random.normal(0, 0.1, (features, 1008)).astype(np.float32))
    b.node("softmax/logits/MatMul", "MatMul", ["pool_3/_reshape", "softmax/weights"], T=tf.float32)
    b.const("softmax/biases", b.random.normal(0, 0.1, 1008).astype(np.float32))
    b.node("softmax/logits", "BiasAdd", ["softmax/logits/MatMul", "softmax/biases"], T=tf.float32)
    b.node("softmax", "Softmax", ["softmax/logits"], T=tf.float32)
    return b.graph


def grid_35(b, name, x, pooled):
    return b.join(
        f"{name}/join",
        [
            b.conv(f"{name}/conv", x, 64),
            b.chain(f"{name}/tower", x, [(48, (1, 1)), (64, (5, 5))]),
            b.chain(f"{name}/tower_1", x, [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))]),
            b.conv(f"{name}/tower_2/conv", b.pool(f"{name}/tower_2/pool", "AvgPool", x), pooled),
        ],
    )


def grid_17(b, name, x, width):
    first = [(width, (1, 1)), (width, SEVEN[0]), (192, SEVEN[1])]
    second = [(width, (1, 1)), (width, SEVEN[1]), (width, SEVEN[0]), (width, SEVEN[1]), (192, SEVEN[0])]
    return b.join(
        f"{name}/join",
        [
            b.conv(f"{name}/conv", x, 192),
            b.chain(f"{name}/tower", x, first),
            b.chain(f"{name}/tower_1", x, second),
            b.conv(f"{name}/tower_2/conv", b.pool(f"{name}/tower_2/pool", "AvgPool", x), 192),
        ],
    )


def grid_8(b, name, x, pooled):
    first = b.conv(f"{name}/tower/conv", x, 384)
    second = b.chain(f"{name}/tower_1", x, [(448, (1, 1)), (384, (3, 3))])
    split = [
        b.conv(f"{name}/{tower}/mixed/conv{suffix}", source, 384, size)
        for tower, source in (("tower", first), ("tower_1", second))
        for suffix, size in (("", (1, 3)), ("_1", (3, 1)))
    ]
    pool = b.conv(f"{name}/tower_2/conv", b.pool(f"{name}/tower_2/pool", pooled, x), 192)
    return b.join(f"{name}/join", [b.conv(f"{name}/conv", x, 320), *split, pool])


def build_other():
    """Odd sizes, uneven SAME padding, dilation, and what newer graphs hold."""
    random = np.random.default_rng(5)

    def weights(*shape):
        return random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)

    with tf.Graph().as_default() as graph:
        images = v1.placeholder(tf.float32, (None, None, None, 3), name="ExpandDims")
        x = tf.cast(v1.image.resize_bilinear(images, (61, 46)), tf.float32)
        x = tf.nn.leaky_relu(tf.nn.conv2d(x * np.float32(1 / 255), weights(5, 4, 3, 8), 2, "SAME"))
        x = tf.concat([tf.nn.max_pool2d(x, 2, 2, "SAME"), tf.nn.avg_pool2d(x, (3, 2), 2, "SAME")], 3)
        dilated = tf.nn.conv2d(x, weights(3, 3, 16, 16), 1, "SAME", dilations=2)
        x = tf.nn.bias_add(dilated, weights(1, 16)[0], name="mixed_6/conv")
        x = tf.nn.avg_pool2d(x, (4, 3), (3, 2), "SAME") + weights(1, 16)[0]
        gates = tf.nn.softmax(tf.matmul(tf.reduce_mean(x, (1, 2)), weights(16, 16), transpose_b=True))
        pooled = tf.squeeze(tf.reduce_mean(x, (1, 2), keepdims=True), (1, 2)) - gates
        pooled = tf.reshape(tf.expand_dims(pooled, 1), (-1, 1, 1, 16), name="pool_3")
        tf.matmul(tf.reshape(pooled, (-1, 16)), tf.constant(weights(16, 7)), name="softmax/logits/MatMul")
    return graph.as_graph_def()


def run(definition, images):
    """The public evaluator's way: `ExpandDims:0` replaced by the batch."""
    with tf.Graph().as_default() as graph:
        batch = v1.placeholder(tf.float32, (None, None, None, 3))
        wanted = ["pool_3:0", "mixed_6/conv:0", "softmax/logits/MatMul"]
        pool, spatial, logits = v1.import_graph_def(definition, {"ExpandDims:0": batch}, wanted, name="")
        with v1.Session(graph=graph) as session:
            return session.run((pool, spatial, logits.inputs[1]), {batch: images.astype(np.float32)})


def main():
    folder, divisor = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8
    images = np.random.default_rng(1).integers(0, 256, (6, 80, 64, 3), dtype=np.uint8)
    # Smooth ones too: noise alone hides a shifted resize.
    images[3:] = np.indices((80, 64)).sum(0)[None, :, :, None] + np.arange(3) * 30
    np.savez(folder / "images.npz", arr_0=images)
    for name, definition in (("inception", build(divisor)), ("other", build_other())):
        (folder / f"{name}.pb").write_bytes(definition.SerializeToString())
        pool, spatial, weights = run(definition, images)
        np.savez(folder / f"{name}.npz", pool=pool, spatial=spatial, weights=weights)
        print(name, sorted({node.op for node in definition.node}), pool.shape, spatial.shape)


if __name__ == "__main__":
    main()
