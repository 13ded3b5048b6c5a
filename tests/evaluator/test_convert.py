"""Networks taken out of frozen graphs: the features that TensorFlow computes, and one line for what cannot be taken."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluator import embedded
from evaluator.embedded import network as digits
from evaluator.inception import convert, graphdef
from evaluator.inception.convert import NORM, fold
from evaluator.inception.graph import resolve
from evaluator.inception.network import Inception, avg_pool, max_pool, resize_bilinear, resize_matrix
from sra.common.errors import EvaluatorError

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "adm"
# What the 2015 graph is made of, between its images and its features.
REAL = {"Conv2D", NORM, "Relu", "MaxPool", "AvgPool", "Concat", "ResizeBilinear", "Sub", "Mul"}


def features(network, images):
    with torch.inference_mode():
        return [tensor.numpy() for tensor in network(torch.from_numpy(images.copy()))]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Random graphs, images, and TensorFlow's features of them."""
    folder = tmp_path_factory.mktemp("graphs")
    script = Path(__file__).with_name("inception_graph.py")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, str(script), str(folder)], env=environment, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["inception", "other"])
def test_features_are_tensorflows(graphs, name):
    images, expected = np.load(graphs / "images.npz")["arr_0"], np.load(graphs / f"{name}.npz")
    network = convert.load(resolve(str(graphs / f"{name}.pb")))
    pool, spatial = features(network, images)
    limit = 2e-5
    np.testing.assert_allclose(pool, expected["pool"].reshape(pool.shape), atol=limit * np.abs(pool).max())
    np.testing.assert_allclose(spatial, expected["spatial"], atol=limit * np.abs(spatial).max())
    np.testing.assert_array_equal(network.weights.numpy(), expected["weights"])
    assert np.ptp(pool, axis=0).max() > 0.1, "features that do not depend on the image"


def test_the_random_graph_has_the_real_operations_and_names(graphs):
    nodes = graphdef.read(graphs / "inception.pb")
    network = convert.trace(graphs / "inception.pb")
    assert {node.op for node in network.nodes} == REAL
    assert {"CheckNumerics", "Identity"} <= {node.op for node in nodes.values()}
    assert sum(node.op == "Conv2D" for node in network.nodes) == 94
    assert {"mixed_10/tower_1/mixed/conv_1", "mixed_3/pool", "mixed_6/tower_1/conv_4"} <= nodes.keys()


def test_folding_takes_every_batch_norm_away_and_changes_rounding_only(graphs):
    images = np.load(graphs / "images.npz")["arr_0"]
    network = convert.trace(graphs / "inception.pb")
    folded = fold(network)
    assert not [node for node in folded.nodes if node.op == NORM]
    for found, plain in zip(*(features(Inception(n), images) for n in (folded, network)), strict=True):
        np.testing.assert_allclose(found, plain, atol=1e-5 * np.abs(plain).max())


def test_a_batch_norm_of_a_shared_convolution_stays(graphs):
    network = convert.trace(graphs / "inception.pb")
    shared = next(node.inputs[0] for node in network.nodes if node.op == NORM)
    folded = fold(dataclasses.replace(network, spatial=shared))
    assert [node.inputs[0] for node in folded.nodes if node.op == NORM] == [shared]


def test_golden_features():
    expected = np.load(GOLDEN / "features_head.npz")
    images = np.load(GOLDEN / "samples.npz")["arr_0"][: len(expected["pool"])]
    pool, spatial = features(convert.load(resolve(str(GOLDEN / "classify_image_graph_def.pb"))), images)
    np.testing.assert_allclose(pool, expected["pool"].reshape(pool.shape), atol=1e-5)
    np.testing.assert_allclose(spatial[..., :7].reshape(len(pool), -1), expected["spatial"], atol=3e-5)


def test_the_embedded_graph_is_the_embedded_network():
    images = np.random.default_rng(0).integers(0, 256, (5, embedded.EDGE, embedded.EDGE, 3), dtype=np.uint8)
    pool, spatial = features(convert.load(resolve("embedded:digits")), images)
    expected = digits.load()(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    np.testing.assert_allclose(pool, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spatial, expected[1].permute(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_a_converted_file_gives_the_same_features_without_tensorflow(tmp_path):
    graph, out = GOLDEN / "classify_image_graph_def.pb", tmp_path / "sub" / "inception.safetensors"
    code = "import sys; from evaluator.inception import convert; convert.main(); print('tensorflow' in sys.modules)"
    command = [sys.executable, "-c", code, str(graph), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[1] == "False"
    assert "2048 features, 17 x 17 x 32 spatial, 40 classes" in done.stdout
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    images = np.load(GOLDEN / "samples.npz")["arr_0"][:2]
    converted, direct = resolve(str(out)), resolve(str(graph))
    for found, expected in zip(*(features(convert.load(g), images) for g in (converted, direct)), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert convert.source_of(converted) == convert.source_of(direct) == convert.Source(graph.name, direct.sha256)


def edited(tmp_path, old, new):
    """The golden graph with every `old` replaced; names keep their length."""
    content = (GOLDEN / "classify_image_graph_def.pb").read_bytes()
    assert old in content
    path = tmp_path / "edited.pb"
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"\x12\x04Relu", b"\x12\x04Rune", r"node \S+: expected one of Add, AddV2.* got 'Rune'"),
        (b"mixed_6/conv", b"mixed_7/conv", "expected the tensors mixed_6/conv"),
        (b"ExpandDims", b"ExpandLess", "expected the tensors ExpandDims"),
        (b"\x1a\x06conv_1", b"\x1a\x06conv_9", "expected a node conv_9"),
        (
            b"\x1a\x0fsoftmax/weights",
            b"\x1a\x0fpool_3/_reshape",
            "softmax/logits/MatMul: expected a constant",
        ),
    ],
)
def test_graphs_that_cannot_be_taken(tmp_path, old, new, message):
    with pytest.raises(EvaluatorError, match=message):
        convert.trace(edited(tmp_path, old, new))


def test_files_that_are_no_graphs(tmp_path):
    whole = (GOLDEN / "classify_image_graph_def.pb").read_bytes()
    (tmp_path / "half.pb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EvaluatorError, match=r"half\.pb: expected a frozen TensorFlow graph"):
        convert.trace(tmp_path / "half.pb")
    with pytest.raises(EvaluatorError, match="expected a file written by convert-inception"):
        convert.read(embedded.WEIGHTS)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(EvaluatorError, match=r"bad\.safetensors: "):
        convert.read(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("graph", "out", "message"),
    [
        ("no.pb", "out.safetensors", "--graph: .* got 'no.pb'"),
        ("embedded:digits", "out.pt", r"OUT: expected a name that ends in \.safetensors"),
        ("embedded:digits", "file/out.safetensors", "file: expected a folder"),
    ],
)
def test_arguments_that_are_refused(tmp_path, monkeypatch, capsys, graph, out, message):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(sys, "argv", ["convert", graph, str(tmp_path / out)])
    with pytest.raises(SystemExit) as ended:
        convert.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("ResizeBilinear", {"align_corners": True}, "ResizeBilinear.*align_corners: .*got True"),
        ("ResizeBilinear", {"half_pixel_centers": True}, "half_pixel_centers: .*got True"),
        ("Conv2D", {"padding": "EXPLICIT"}, "padding: .*got 'EXPLICIT'"),
        ("Conv2D", {"data_format": "NCHW"}, "data_format: .*got 'NCHW'"),
    ],
)
def test_unsupported_attributes_are_refused_by_name(op, attributes, message):
    network = convert.trace(embedded.GRAPH)
    nodes = tuple(
        dataclasses.replace(node, attributes={**node.attributes, **attributes}) if node.op == op else node
        for node in network.nodes
    )
    with pytest.raises(EvaluatorError, match=message):
        Inception(dataclasses.replace(network, nodes=nodes))(torch.zeros(1, 40, 40, 3))


def test_features_that_are_not_finite_are_refused():
    network = convert.trace(embedded.GRAPH)
    weights = next(name for name, array in network.constants.items() if array.ndim == 4)
    broken = {**network.constants, weights: np.full_like(network.constants[weights], np.nan)}
    with pytest.raises(EvaluatorError, match="pool_3: expected finite"):
        Inception(dataclasses.replace(network, constants=broken))(torch.zeros(1, 32, 32, 3))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("size", "window", "stride"), [(7, 3, 1), (8, 3, 2), (7, 4, 3), (5, 2, 2)])
def test_pools_of_a_constant_image_are_that_constant(padding, size, window, stride):
    attributes = {"ksize": [1, window, window, 1], "strides": [1, stride, stride, 1], "padding": padding}
    x = torch.full((1, size, size + 1, 2), -3.0)
    for pool in (avg_pool, max_pool):
        pooled = pool(attributes, x)
        assert torch.allclose(pooled, torch.tensor(-3.0))
        assert pooled.shape[1] == (-(-size // stride) if padding == "SAME" else (size - window) // stride + 1)


def test_resize():
    device = torch.device("cpu")
    # Half the size: every second pixel, no antialias. Double: TensorFlow 1 repeats the border.
    np.testing.assert_array_equal(resize_matrix(4, 2, device), [[1, 0, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(resize_matrix(2, 4, device), [[1, 0], [0.5, 0.5], [0, 1], [0, 1]])
    np.testing.assert_allclose(resize_matrix(256, 299, device).sum(1), 1, rtol=1e-6)
    x = torch.rand(2, 5, 6, 3)
    assert resize_bilinear({}, x, [5, 6]) is x
