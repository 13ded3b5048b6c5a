"""Networks other than Inception: small random ones of the same architectures against other implementations of them."""

import argparse
import dataclasses

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from evaluator.features import extractor
from evaluator.images.image_set import open_images
from evaluator.inception.graph import resolve
from evaluator.metrics.frechet import frechet_distance, gaussian
from evaluator.metrics.kernel_distance import CMMD_SCALE, GAUSSIAN, KernelDistance
from evaluator.tools import base, clip, convnext, dinov2, networks
from sra.common.errors import EvaluatorError, ToolError

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 48, 40, 3), dtype=np.uint8)
TRANSFORMER = {"embed_dim": 32, "depth": 2, "num_heads": 4}
SMALL = {
    "dinov2": dataclasses.replace(dinov2.NETWORK, options={**dinov2.NETWORK.options, **TRANSFORMER}, width=32),
    "clip": dataclasses.replace(clip.NETWORK, options={**TRANSFORMER, "num_classes": 16}, width=16),
    "convnext": dataclasses.replace(
        convnext.NETWORK, options={"num_classes": 0, "depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, width=32
    ),
}


def random_state(shapes):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def transformer(edge, *, clip):
    """Published weights of a small vision transformer, by timm's names."""
    shapes = {"cls_token": (1, 1, 32), "pos_embed": (1, 1 + edge**2, 32), "patch_embed.proj.weight": (32, 3, 14, 14)}
    shapes |= (
        {"norm_pre.weight": (32,), "norm_pre.bias": (32,), "head.weight": (16, 32), "head.bias": (16,)}
        if clip
        else {
            "patch_embed.proj.bias": (32,),
            "mask_token": (1, 32),
        }
    )
    for block in (f"blocks.{number}" for number in range(2)):
        for layer, (rows, columns) in {
            "attn.qkv": (96, 32),
            "attn.proj": (32, 32),
            "mlp.fc1": (128, 32),
            "mlp.fc2": (32, 128),
        }.items():
            shapes |= {f"{block}.{layer}.weight": (rows, columns), f"{block}.{layer}.bias": (rows,)}
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (32,), f"{block}.{norm}.bias": (32,)}
        shapes |= {} if clip else {f"{block}.ls1.gamma": (32,), f"{block}.ls2.gamma": (32,)}
    return random_state(shapes | {"norm.weight": (32,), "norm.bias": (32,)})


def plain_transformer(state, x, positions, epsilon, activation):
    """Features (n, D) of images, from the papers."""

    def norm(x, name):
        return F.layer_norm(x, (32,), state[f"{name}.weight"], state[f"{name}.bias"], epsilon)

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    patches = F.conv2d(x, state["patch_embed.proj.weight"], state.get("patch_embed.proj.bias"), stride=14)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1) + positions
    x = norm(x, "norm_pre") if "norm_pre.weight" in state else x
    for block in ("blocks.0", "blocks.1"):
        q, k, v = (
            linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").reshape(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
        )
        mixed = ((q @ k.transpose(-1, -2)) / 8**0.5).softmax(-1) @ v
        x = x + state.get(f"{block}.ls1.gamma", 1) * linear(mixed.transpose(1, 2).flatten(2), f"{block}.attn.proj")
        hidden = activation(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + state.get(f"{block}.ls2.gamma", 1) * linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")[:, 0]


def test_dinov2(tmp_path):
    state = transformer(37, clip=False)
    torch.save(state, tmp_path / "weights.pth")
    # Positions as facebookresearch/dinov2 scales them for 224 px.
    plane = state["pos_embed"][:, 1:].reshape(1, 37, 37, 32).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
    positions = torch.cat([state["pos_embed"][:, :1], plane.permute(0, 2, 3, 1).reshape(1, 256, 32)], 1)
    # Images as NVlabs/edm2 resizes them.
    x = F.interpolate(torch.tensor(PIXELS).permute(0, 3, 1, 2).float(), size=(224, 224), mode="bicubic", antialias=True)
    x = x / 255 - torch.tensor([0.485, 0.456, 0.406]).reshape(1, -1, 1, 1)
    x = x / torch.tensor([0.229, 0.224, 0.225]).reshape(1, -1, 1, 1)
    expected = plain_transformer(state, x, positions, 1e-6, F.gelu)
    found = SMALL["dinov2"].load(tmp_path / "weights.pth")(SMALL["dinov2"].transform(PIXELS))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_clip(tmp_path):
    state = transformer(24, clip=True)
    save_file(state, tmp_path / "weights.safetensors")
    x = SMALL["clip"].transform(PIXELS[:4])
    expected = plain_transformer(state, x, state["pos_embed"], 1e-5, lambda x: x * torch.sigmoid(1.702 * x))
    found = SMALL["clip"].load(tmp_path / "weights.safetensors")(x)
    torch.testing.assert_close(found, expected @ state["head.weight"].T + state["head.bias"], rtol=1e-4, atol=1e-4)
    assert clip.adapt({})["head.bias"].shape == (768,), "CLIP's projection has none"
    # The middle square, resized.
    assert x.shape == (4, 3, 336, 336)
    middle = clip.transform(np.ascontiguousarray(PIXELS[:4, 4:44]))
    assert torch.equal(x, middle)


def test_convnext(tmp_path):
    widths = (8, 16, 24, 32)
    blocks = [CNBlockConfig(a, b, 1) for a, b in zip(widths, (*widths[1:], None), strict=True)]
    other = ConvNeXt(blocks, stochastic_depth_prob=0.0, layer_scale=1.0, num_classes=5).eval()
    other.load_state_dict(random_state({name: tensor.shape for name, tensor in other.state_dict().items()}))
    layers = {
        "layer_scale": "gamma",
        "block.0.": "conv_dw.",
        "block.2.": "norm.",
        "block.3.": "mlp.fc1.",
        "block.5.": "mlp.fc2.",
    }
    state = {}
    for name, tensor in other.state_dict().items():
        first, number, *rest = name.split(".")
        if first == "classifier":
            new = f"head.{'norm' if number == '0' else 'fc'}.{rest[0]}"
        elif int(number) % 2:  # a stage
            new = f"stages.{int(number) // 2}.blocks.{name.split('.', 2)[2]}"
            for theirs, ours in layers.items():
                new = new.replace(theirs, ours)
        else:
            new = (
                f"stem.{'.'.join(rest)}" if number == "0" else f"stages.{int(number) // 2}.downsample.{'.'.join(rest)}"
            )
        state[new] = tensor.flatten() if new.endswith("gamma") else tensor.contiguous()
    save_file(state, tmp_path / "weights.safetensors")
    x = SMALL["convnext"].transform(PIXELS[:4])
    assert x.shape == (4, 3, 224, 224)
    other.classifier[2] = nn.Identity()
    found = SMALL["convnext"].load(tmp_path / "weights.safetensors")(x)
    torch.testing.assert_close(found, other(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [dinov2, clip, convnext])
def test_published_sizes(module):
    network = module.NETWORK
    shape = network.transform(PIXELS[:1]).shape
    with torch.device("meta"):
        found = timm.create_model(network.architecture, pretrained=False, **network.options)
        assert found(torch.empty(shape)).shape == (1, network.width)


def test_cmmd_is_that_of_its_public_code():
    random = np.random.default_rng(1)
    x, y = (random.normal(size=(n, 16)).astype(np.float32) + shift for n, shift in ((70, 0.0), (50, 0.2)))
    a, b = (rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))

    def mean(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 200).mean()

    expected = 1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b))
    assert CMMD_SCALE * KernelDistance(x, y, GAUSSIAN).biased == pytest.approx(expected, rel=1e-4)
    assert KernelDistance(x, x, GAUSSIAN).biased == pytest.approx(0, abs=1e-9)


@pytest.fixture
def task(tmp_path):
    """Makes a task of 12 samples against a reference, with the small CLIP."""
    save_file(transformer(24, clip=True), tmp_path / "weights.safetensors")
    np.savez(tmp_path / "samples.npz", arr_0=PIXELS[:12])
    # Stored statistics of a reference batch are Inception's.
    np.savez(tmp_path / "reference.npz", arr_0=PIXELS[12:], mu=np.zeros(2048), sigma=np.zeros((2048, 2048)))

    def make(weights="weights.safetensors", reference="reference.npz"):
        sets = [open_images(tmp_path / "samples.npz")]
        options = argparse.Namespace(no_intervals=False)
        found = base._open_reference(tmp_path / reference, sets[0])
        return base.Task(found, sets, resolve(str(tmp_path / weights)), tmp_path / "cache", options)

    return make


def test_metrics_and_their_cache(task, tmp_path, monkeypatch):
    (result,) = networks.score(task(), SMALL["clip"])
    assert list(result.metrics) == ["fd", "kid", "precision", "recall", "cmmd"]
    assert result.intervals.keys() == result.metrics.keys()
    module = SMALL["clip"].load(tmp_path / "weights.safetensors")
    with torch.inference_mode():
        sets = [module(clip.transform(images)).numpy() for images in (PIXELS[:12], PIXELS[12:])]
    assert result.metrics["fd"] == pytest.approx(frechet_distance(*map(gaussian, sets)), rel=1e-4)
    assert result.metrics["kid"] == pytest.approx(KernelDistance(*sets).value, rel=1e-4)
    assert result.metrics["cmmd"] == pytest.approx(1000 * KernelDistance(*sets, GAUSSIAN).biased, rel=1e-4)
    monkeypatch.setattr(clip, "_square", None)
    assert networks.score(task(), SMALL["clip"])[0].metrics == result.metrics


def test_ratio_to_validation_images_and_copies_of_training_images(task, tmp_path):
    np.savez(tmp_path / "validation.npz", arr_0=PIXELS[6:18])
    np.savez(tmp_path / "training.npz", arr_0=PIXELS[[0, 5, 20, 21, 22]])
    sets = {name: open_images(tmp_path / f"{name}.npz") for name in ("training", "validation")}
    (plain,), (result,) = (networks.score(one, SMALL["clip"]) for one in (task(), dataclasses.replace(task(), **sets)))
    assert plain.metrics.items() < result.metrics.items()
    module = SMALL["clip"].load(tmp_path / "weights.safetensors")
    with torch.inference_mode():
        held_out, reference = (module(clip.transform(images)).numpy() for images in (PIXELS[6:18], PIXELS[12:]))
    expected = frechet_distance(*map(gaussian, (held_out, reference)))
    assert result.settings.validation_fd == pytest.approx(expected, rel=1e-4)
    assert result.metrics["fdr"] == pytest.approx(result.metrics["fd"] / expected, rel=1e-4)
    assert result.intervals.keys() == result.metrics.keys()
    assert {(one.sample, one.training) for one in result.copies if not one.distance} == {(0, 0), (5, 1)}
    assert 0 < result.metrics["authenticity"] <= 10 / 12


def test_the_reference_is_no_validation_set(task):
    images = task()
    with pytest.raises(EvaluatorError, match=r"--validation .*: expected other images than the reference's"):
        networks.score(dataclasses.replace(images, validation=images.reference), SMALL["clip"])


def test_statistics_alone(task, tmp_path):
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(16), sigma=np.eye(16))
    (result,) = networks.score(task(reference="statistics.npz"), SMALL["clip"])
    assert list(result.metrics) == ["fd"]
    assert list(result.absent) == ["kid", "precision", "recall", "cmmd"]
    assert result.settings.statistics.name == "statistics.npz"
    np.savez(tmp_path / "other.npz", mu=np.zeros(64), sigma=np.eye(64))
    with pytest.raises(EvaluatorError, match=r"other.npz: mu: expected 16 values .* got 64"):
        networks.score(task(reference="other.npz"), SMALL["clip"])


def test_weights_of_another_network_are_one_line(task, tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ToolError, match=r"other.safetensors: expected the weights of vit_large") as caught:
        networks.score(task("other.safetensors"), SMALL["clip"])
    assert "\n" not in str(caught.value)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes()[:-9])
    with pytest.raises(ToolError, match=r"cut.safetensors: expected a whole file of tensors"):
        extractor.state_dict(tmp_path / "cut.safetensors")
