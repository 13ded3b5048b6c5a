"""Feature views: PCA pictures and linear probes, on the smallest networks."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sra.analysis import options, pca, probe
from sra.analysis.features import FeatureExtractor, normalised, pca_image, probe_accuracy, tapped
from sra.analysis.probe import ProbeSettings, split
from sra.common.errors import DataError
from sra.common.files import write_json
from sra.common.validation import ArgumentParser
from sra.config import CodecConfig, ConfigError, ModelConfig, Size, to_plain
from sra.model.transformer import build, initialise

CODEC = ["--codec", "embedded:digits", "--codec-scale", "1", "--codec-factor", "4"]
NETWORK = ["--model", "SiT-3x16x2/2", "--resolution", "32", "--classes", "10", *CODEC]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random networks of both conventions, by convention."""
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    size = Size(depth=3, width=16, heads=2)
    for convention in ("sra", "vanilla-sit", "vanilla-dit"):
        family = "dit" if convention == "vanilla-dit" else "sit"
        model = ModelConfig(family=family, size=size, resolution=32, classes=10, convention=convention)
        network = build(model, CodecConfig(factor=4))
        initialise(network, 0)
        generator = torch.Generator().manual_seed(1)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        found[convention] = folder / f"{convention}.safetensors"
        save_file(network.state_dict(), found[convention])
    return found


def view(weights, *arguments, convention="sra"):
    parser = ArgumentParser()
    options.add_options(parser, "all", (0.5,))
    given = [str(weights[convention]), *NETWORK, "--convention", convention, *arguments]
    return options.view_of(parser.parse_args(given), pca.BLOCKS)


def test_the_tap_sees_what_the_network_computes(weights):
    extractor = FeatureExtractor(view(weights, "--blocks", "1", "3"), torch.device("cpu"))
    x, t, y = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.7]), torch.tensor([1, 2])
    with tapped(extractor.network, (1, 3)) as found:
        extractor.network(x, t, y)
    for block in (1, 3):
        torch.testing.assert_close(found[block], extractor.network.hidden(x, t, y, block=block))
    with tapped(extractor.network, (2,)) as other:
        pass
    extractor.network(x, t, y)
    assert other == {}


def test_what_a_network_is_told_at_a_noise_level(weights):
    assert view(weights).network_time(0.3) == 0.3
    assert view(weights, convention="vanilla-sit").network_time(0.3) == pytest.approx(0.7)
    assert view(weights, "--time", "legacy", convention="vanilla-sit").network_time(0.3) == 0.3


def test_noise_levels_mix_image_and_noise(weights):
    extractor = FeatureExtractor(view(weights, "--blocks", "3"), torch.device("cpu"))
    z, noise, y = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([1])
    clean = extractor.outputs(z, y, noise, 0.0)[3]
    assert torch.equal(clean, extractor.outputs(z, y, -noise, 0.0)[3])
    torch.testing.assert_close(extractor.outputs(z, y, noise, 1.0)[3], extractor.outputs(-z, y, noise, 1.0)[3])


def test_dit_is_told_its_integer_step(weights):
    found = view(weights, "--model", "DiT-3x16x2/2", "--blocks", "2", convention="vanilla-dit")
    extractor = FeatureExtractor(found, torch.device("cpu"))
    z, noise, y = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([1])
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[300]
    x_t = (abar.sqrt() * z + (1 - abar).sqrt() * noise).float()
    expected = extractor.network.hidden(x_t, torch.tensor([300]), y, block=2)
    torch.testing.assert_close(extractor.outputs(z, y, noise, 0.3)[2], expected)


def test_default_blocks_are_those_the_network_has(weights):
    assert view(weights).blocks == (1,)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--blocks", "4"], "--blocks: .*1 to 3.*4"),
        (["--blocks", "0"], "--blocks: .*0"),
        (["--times", "1.5"], r"--times: .*1\.5"),
        (["--time", "legacy"], "--time legacy: .*vanilla-sit"),
        (["--baseline"], "--baseline: .*vanilla-sit"),
        (["--model", "SiT-H/2"], "--model: expected .*'SiT-H/2'"),
        (["--model", "DiT-3x16x2", "--convention", "vanilla-sit"], "convention: .*'vanilla-sit'"),
        (["--model", "3x15x2"], "--model: width: .*15"),
        (["--resolution", "36"], "--resolution: .*8.*36"),
    ],
)
def test_refusals(weights, arguments, problem):
    with pytest.raises(ConfigError, match=problem):
        view(weights, *arguments)


def test_the_convention_is_stated_once(weights, small, tmp_path):
    image = ["--image", "x.png"]
    with pytest.raises(ConfigError, match=r"--convention: missing.*sra, vanilla-sit, vanilla-dit"):
        pca.main([str(weights["sra"]), *NETWORK, *image])
    write_json(tmp_path / "stage.json", {"config": to_plain(small.job)})
    with pytest.raises(ConfigError, match="--stage: "):
        pca.main([str(weights["sra"]), "--stage", str(tmp_path), "--convention", "sra", *image])
    with pytest.raises(ConfigError, match="the following arguments are required: --image"):
        pca.main([str(weights["sra"]), *NETWORK, "--convention", "sra"])
    with pytest.raises(DataError, match="expected a checkpoint"):
        pca.main([str(tmp_path / "no.pt"), *NETWORK, "--convention", "sra", *image])
    with pytest.raises(DataError, match=r"--image .*: expected a file"):
        pca.main([str(weights["sra"]), *NETWORK, "--convention", "sra", "--label", "3", *image])
    with pytest.raises(ConfigError, match=r"--label: .*0 to 9.*88"):
        pca.main([str(weights["sra"]), *NETWORK, "--convention", "sra", *image])


def test_components_span_their_range():
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.normal(size=(16, 8)) * np.array([9, 5, 3, 1, 1, 1, 1, 1]))
    image = pca_image(tokens, 4)
    assert image.shape == (4, 4, 3)
    np.testing.assert_allclose(image.reshape(16, 3).min(0), 0, atol=1e-12)
    np.testing.assert_allclose(image.reshape(16, 3).max(0), 1, atol=1e-12)
    # The widest axis of the data is the first component.
    first = tokens[:, 0].numpy()
    assert abs(np.corrcoef(image.reshape(16, 3)[:, 0], first)[0, 1]) > 0.9
    assert np.array_equal(pca_image(torch.ones(16, 8), 4), np.zeros((4, 4, 3)))


def test_tokens_are_normalised_as_in_the_authors_figure(weights, digit_images, monkeypatch):
    """LayerNorm of each token for SRA's networks; for the baseline, each channel to the range of its tokens."""
    tokens = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 9)
    centred = tokens - tokens.mean(1, keepdim=True)
    expected = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(normalised(tokens, "sra"), expected)
    found = normalised(tokens, "vanilla-sit")
    for channel in range(8):
        values = tokens[:, channel]
        torch.testing.assert_close(found[:, channel], (values - values.min()) / (values.max() - values.min() + 1e-6))
    image, outputs, raw = digit_images / "images" / "00000" / "img00000003.png", FeatureExtractor.outputs, {}
    monkeypatch.setattr(FeatureExtractor, "outputs", lambda *given: raw.update(outputs(*given)) or raw)
    for convention in ("sra", "vanilla-sit"):
        picture = pca.pictures(view(weights, "--blocks", "2", convention=convention), image, 1)[0.5, 2]
        assert np.array_equal(picture, pca_image(normalised(raw[2][0], convention), 4))
        assert not np.array_equal(picture, pca_image(raw[2][0], 4))


def test_a_picture_of_every_block_and_time(weights, digit_images, tmp_path, capsys):
    image = digit_images / "images" / "00000" / "img00000003.png"
    common = [*NETWORK, "--image", str(image), "--label", "3", "--blocks", "1", "2", "3", "--times", "0.7", "0.1"]
    found = {}
    for name, arguments in (("correct", ["--baseline"]), ("legacy", ["--baseline", "--time", "legacy"])):
        out = tmp_path / f"{name}.png"
        pca.main([str(weights["vanilla-sit"]), *common, *arguments, "--out", str(out)])
        picture = Image.open(out)
        assert picture.width > picture.height > 300
        found[name] = np.asarray(picture)
    assert not np.array_equal(found["correct"], found["legacy"])
    assert "blocks (1, 2, 3) x noise levels (0.7, 0.1)" in capsys.readouterr().out
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.png: expected a whole image"):
        pca.main([str(weights["sra"]), *common, "--convention", "sra", "--image", str(broken)])


def test_another_network_than_stated_is_refused(weights, digit_images, tmp_path):
    image = str(digit_images / "images" / "00000" / "img00000003.png")
    with pytest.raises(DataError, match=r"final_layer\.linear"):
        pca.main([str(weights["sra"]), *NETWORK, "--baseline", "--image", image, "--label", "1"])


def settings(**changes):
    return {"epochs": 30, "batch": 64, "lr": 0.05, "seed": 0, "device": torch.device("cpu"), **changes}


def test_a_probe_learns_what_is_linear_and_no_more():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    features = rng.normal(size=(400, 6)).astype(np.float32)
    separable = features + 8 * np.eye(6, dtype=np.float32)[labels]
    halves = [(separable[s], labels[s]) for s in (slice(200), slice(200, None))]
    assert probe_accuracy(*halves, 4, **settings()) == (1.0, 1.0)
    noise = [(features[s], labels[s]) for s in (slice(200), slice(200, None))]
    assert probe_accuracy(*noise, 4, **settings())[1] < 0.45


def test_the_split_is_disjoint_and_complete():
    learn, judge = split(50, ProbeSettings(holdout=0.3), 0)
    assert (len(learn), len(judge)) == (35, 15)
    assert sorted([*learn, *judge]) == list(range(50))
    assert sum(map(len, split(50, ProbeSettings(limit=20), 0))) == 20


def test_probing_writes_accuracies_and_a_plot_and_continues(weights, digit_latents, tmp_path, monkeypatch, capsys):
    out = tmp_path / "probe"
    arguments = [
        str(weights["sra"]),
        *NETWORK,
        "--convention",
        "sra",
        "--latents",
        str(digit_latents),
        "--out",
        str(out),
    ]
    arguments += ["--epochs", "3", "--batch", "16", "--forward-batch", "7"]
    probe.main([*arguments, "--times", "0.2"])
    first = json.loads((out / "probe.json").read_text())
    assert [(row["t"], row["block"]) for row in first["rows"]] == [(0.2, 1), (0.2, 2), (0.2, 3)]
    assert first["settings"]["optimizer"] == "adam"
    assert Image.open(out / "probe.png").width > 500
    capsys.readouterr()
    probe.main([*arguments, "--times", "0.2", "0.8"])
    both = json.loads((out / "probe.json").read_text())
    assert both["rows"][:3] == first["rows"]
    assert [row["t"] for row in both["rows"][3:]] == [0.8] * 3
    assert "t = 0.2" not in capsys.readouterr().out
    monkeypatch.setattr("sra.analysis.features.load_network", lambda *_: pytest.fail("nothing is left to do"))
    probe.main([*arguments, "--times", "0.2", "0.8"])


def test_features_do_not_depend_on_the_batch_or_the_label(weights, digit_latents):
    extractor = FeatureExtractor(view(weights, "--blocks", "3"), torch.device("cpu"))
    data = probe.PackedFolder(digit_latents)
    indices = np.array([5, 2, 40, 11])
    whole = probe.pooled(extractor, data, indices, 0.5, 4)
    np.testing.assert_allclose(whole, probe.pooled(extractor, data, indices, 0.5, 3), atol=1e-5)
    single = probe.pooled(extractor, data, indices[2:3], 0.5, 1)
    np.testing.assert_allclose(whole[:, 2:3], single, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--epochs", "0"], "--epochs: .*0"),
        (["--holdout", "1"], "--holdout: "),
        (["--classes", "5"], "packed: .*5 classes.*10"),
        (["--resolution", "64"], r"expected .*\(8, 8, 8\)"),
    ],
)
def test_probing_refuses(weights, digit_latents, tmp_path, arguments, problem):
    common = [str(weights["sra"]), *NETWORK, "--convention", "sra", "--latents", str(digit_latents)]
    with pytest.raises((ConfigError, DataError), match=problem):
        probe.main([*common, "--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out").exists()


def test_too_much_memory_is_said_before_the_work(weights, digit_latents, tmp_path, monkeypatch):
    monkeypatch.setattr(probe.os, "sysconf", lambda _: 10)
    common = [str(weights["sra"]), *NETWORK, "--convention", "sra", "--latents", str(digit_latents)]
    with pytest.raises(ConfigError, match="give fewer --blocks or a --limit"):
        probe.main([*common, "--out", str(tmp_path / "out")])
