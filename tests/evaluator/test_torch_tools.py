"""The torch tools: networks are never fetched nor swapped unsaid. `accept` holds adm-torch to the golden numbers."""

import argparse
import dataclasses
import importlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from evaluator.features import extractor
from evaluator.images.image_set import open_images
from evaluator.inception.graph import resolve
from evaluator.metrics import backend
from evaluator.tools import adm_torch, base, clean_fid, score_record, torch_fidelity
from evaluator.tools.score_record import NamedFile
from sra.common.errors import EvaluatorError, ToolError
from sra.common.files import sha256_file

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "adm"
GRAPH = GOLDEN / "classify_image_graph_def.pb"
GENERATOR = np.random.default_rng(0)


@pytest.fixture
def unfetched(monkeypatch):
    """Whatever wants the network is noted and refused."""
    wanted = []

    def refuse(*arguments, **_options):
        wanted.append(arguments)
        raise AssertionError(f"the network was asked for: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return wanted


def image_set(folder, name, pixels):
    path = folder / f"{name}.npz"
    np.savez(path, arr_0=pixels)
    return open_images(path)


def task(tmp_path, graph=GRAPH, pixels=None, **options):
    pixels = GENERATOR.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8) if pixels is None else pixels
    reference, samples = image_set(tmp_path, "reference", pixels[::2]), image_set(tmp_path, "samples", pixels[1::2])
    shared = {"views": None, "trust_statistics": False, "no_intervals": True}
    given = {**shared, "extractor": "own", "assets": tmp_path / "assets", **options}
    return base.Task(
        reference,
        [samples],
        resolve(str(graph)),
        None,
        argparse.Namespace(**{"metrics": (), "differences": None, **given}),
    )


@pytest.fixture(scope="module")
def halves():
    from sra.embedded import digits

    return digits(32)[0][np.random.default_rng(0).permutation(1797)][:800]


def test_adm_torch_keeps_its_features_apart(tmp_path, halves, monkeypatch):
    given = dataclasses.replace(task(tmp_path, "embedded:digits", halves), cache=tmp_path / "cache")
    first = adm_torch.score(given)
    assert first[0].settings.extractor == "converted from graph embedded:digits"
    (folder,) = (tmp_path / "cache").iterdir()
    assert folder.name.startswith("adm-torch-")
    monkeypatch.setattr(adm_torch.TorchInception, "__call__", lambda self, x: np.zeros((len(x), 64 + 343), np.float32))
    assert adm_torch.score(given)[0].metrics == first[0].metrics


def test_several_devices_share_a_sample_set(tmp_path, halves, monkeypatch):
    given = task(tmp_path, "embedded:digits", halves)
    (one,) = adm_torch.score(given)
    monkeypatch.setattr(extractor, "devices", lambda: [torch.device("cpu")] * 3)
    both, calls, take = threading.Barrier(2, timeout=60), itertools.count(), extractor.Replicas.one

    @contextmanager
    def one_of_two(replicas):
        with take(replicas) as found:
            if next(calls) in (1, 2):  # after the blank image that tells the widths
                both.wait()
            yield found

    monkeypatch.setattr(extractor.Replicas, "one", one_of_two)
    (three,) = adm_torch.score(given)
    assert three.metrics == one.metrics


def test_replicas_are_networks_of_their_own_and_metrics_go_to_the_first_gpu(monkeypatch):
    gpu = torch.device("meta")
    monkeypatch.setattr(extractor, "devices", lambda: [gpu] * 3)
    replicas = extractor.Replicas(nn.Linear(2, 2))
    with replicas.one() as (first, _), replicas.one() as (second, _), replicas.one() as (third, device):
        assert len({id(first), id(second), id(third)}) == replicas.count == 3
        assert third.weight.device == device == gpu
    assert backend.used().device == gpu


def test_adm_torch_uses_stored_statistics_and_refuses_those_of_samples(tmp_path, halves):
    given = task(tmp_path, "embedded:digits", halves)
    own = adm_torch.score(given)[0].metrics
    arrays = {"mu": np.zeros(64), "sigma": np.eye(64), "mu_s": np.zeros(343), "sigma_s": np.eye(343)}
    np.savez(tmp_path / "reference.npz", arr_0=halves[::2], **arrays)
    (result,) = adm_torch.score(given)
    metrics = result.metrics
    assert result.settings.stored_statistics is True
    assert metrics["fid_images"] == own["fid"]
    assert metrics["fid"] > 2 * own["fid"]
    np.savez(tmp_path / "samples.npz", arr_0=halves[1::2], **arrays)
    with pytest.raises(EvaluatorError, match=r"samples\.npz: .*--trust-statistics"):
        adm_torch.score(given)
    given.options.trust_statistics = True
    assert adm_torch.score(given)[0].metrics["fid"] == pytest.approx(0, abs=1e-6)


def test_adm_torch_draws_its_views(tmp_path, halves):
    given = task(tmp_path, "embedded:digits", halves, views=[tmp_path / "views"])
    (result,) = adm_torch.score(given)
    assert Path(result.views.nearest).is_file()
    given.options.views.append(tmp_path / "more")
    with pytest.raises(EvaluatorError, match="--views: expected 1 folders"):
        adm_torch.score(given)


@pytest.mark.parametrize(
    ("module", "file"), [("clean_fid", "inception-2015-12-05.pt"), ("torch_fidelity", "6726825d.pth")]
)
def test_absent_weights_are_named_and_never_fetched(tmp_path, unfetched, module, file):
    with pytest.raises(ToolError, match=rf"weights not found: .*{file}; `sra-bench fetch .*from https://") as caught:
        importlib.import_module(f"evaluator.tools.{module}").score(task(tmp_path))
    assert "--extractor graph" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert unfetched == []


def test_absent_weights_stand_in_the_record_and_the_process_ends_well(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=GENERATOR.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8))
    arguments = ["--samples", tmp_path / "a.npz", "--reference", tmp_path / "a.npz", "--graph", GRAPH]
    command = [sys.executable, "-m", "evaluator.tools.torch_fidelity", *map(str, arguments)]
    command += ["--json", str(tmp_path / "s.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), extractor.FOLDER_VARIABLE: str(tmp_path / "assets")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    record = score_record.read(tmp_path / "s.json")
    assert record.metrics == {}
    assert str(tmp_path / "assets" / "torch-fidelity-inception") in record.error


def test_the_graphs_network_is_named_where_it_stands_in(tmp_path, unfetched, halves):
    graph = task(tmp_path, "embedded:digits", halves, extractor="graph")
    own = task(tmp_path, "embedded:digits", halves)
    expected = "converted from graph embedded:digits"
    found, embedded = (torch_fidelity.score(t)[0] for t in (graph, own))
    assert found.settings.extractor == expected
    assert found.metrics == pytest.approx(embedded.metrics, rel=1e-4)
    found, embedded = (clean_fid.score(t)[0] for t in (graph, own))
    assert {mode.extractor for mode in found.settings.modes.values()} == {expected}
    for name in ("fid", "kid"):
        # 32 pixels are what the network sees: no mode resizes anything.
        for suffix in ("", "_legacy_pytorch", "_legacy_tensorflow"):
            assert found.metrics[name + suffix] == pytest.approx(embedded.metrics[name], rel=1e-4)
    assert unfetched == []


def test_clean_fids_modes_differ_by_their_resize_only(tmp_path):
    given = task(tmp_path, extractor="graph")
    found, _ = clean_fid.modes(given)
    batch = next(given.samples[0].batches())
    features = {mode: found[mode].compute(batch).numpy() for mode in clean_fid.MODES}
    direct = adm_torch.TorchInception(given.graph)(batch)[:, :2048]
    np.testing.assert_allclose(features["legacy_tensorflow"], direct, rtol=1e-5, atol=1e-6)
    assert np.abs(features["clean"] - direct).max() > 1e-3
    assert np.abs(features["legacy_pytorch"] - direct).max() > 1e-3
    assert np.abs(features["clean"] - features["legacy_pytorch"]).max() > 1e-3


class TinyInception(nn.Module):
    """The shape of clean-fid's TorchScript file: `layers`, and a forward that resizes by itself."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 2048, 9, stride=40), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x, return_features: bool = False):
        x = nn.functional.interpolate(x, size=(299, 299), mode="nearest")
        return self.layers((x - 128) / 128).flatten(1)


def placed(tmp_path):
    path = tmp_path / "assets" / "clean-fid-inception" / "inception-2015-12-05.pt"
    path.parent.mkdir(parents=True)
    torch.jit.script(TinyInception().eval()).save(path)
    return path


def test_clean_fids_own_weights_are_used_where_they_lie(tmp_path, unfetched):
    path = placed(tmp_path)
    given = task(tmp_path)
    found, reasons = clean_fid.modes(given)
    assert set(found) == {"clean", "legacy_tensorflow"}
    assert "6726825d.pth" in reasons["legacy_pytorch"]
    assert found["clean"].settings.weights == NamedFile(name=path.name, sha256=sha256_file(path))
    batch = next(given.samples[0].batches())
    with torch.inference_mode():
        clean, tensorflow = (found[mode].compute(batch) for mode in ("clean", "legacy_tensorflow"))
        network = torch.jit.load(path)
        inside = network(torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float(), return_features=True)
    np.testing.assert_allclose(tensorflow, inside, rtol=1e-5)
    assert clean.shape == (10, 2048)
    assert not np.allclose(clean, tensorflow)
    assert unfetched == []


def test_the_state_dict_that_both_tools_know_is_read_safely(tmp_path, unfetched):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.utils import create_feature_extractor

    path = tmp_path / "assets" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir()
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "load_state_dict", lambda *_: None)
        patch.setattr(torch, "load", lambda *_args, **_options: {})
        blank = FeatureExtractorInceptionV3("blank", ["2048"], feature_extractor_weights_path="unread")
    torch.save(blank.state_dict(), path)
    given = task(tmp_path)
    chosen, description, weights = torch_fidelity._network(given)
    assert description == "torch-fidelity's own"
    assert weights == NamedFile(name=path.name, sha256=sha256_file(path))
    network = create_feature_extractor(chosen.pop("feature_extractor"), ["2048"], cuda=False, verbose=False, **chosen)
    batch = next(given.samples[0].batches())[:2]
    found, reasons = clean_fid.modes(given)
    assert set(found) == {"legacy_pytorch"}
    assert set(reasons) == {"clean", "legacy_tensorflow"}
    with torch.inference_mode():
        resized = nn.functional.interpolate(torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float(), (299, 299))
        same = resized.byte()
        ours = found["legacy_pytorch"].compute(same.permute(0, 2, 3, 1).numpy())
        # 299 pixels: neither resizes. (x - 128) / 128 and 2 x / 255 - 1 are the rest of the difference.
        np.testing.assert_allclose(ours, network(same)[0], rtol=0.1, atol=0.02)
    assert unfetched == []


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path(os.environ["PAYLOAD"]),))


@pytest.mark.parametrize("content", ["pickle", "truncated"])
def test_weights_that_hold_more_or_less_than_tensors_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "ran"))
    path = tmp_path / "assets" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir()
    torch.save({"x": Payload() if content == "pickle" else torch.ones(1000)}, path)
    (tmp_path / "ran").unlink(missing_ok=True)
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ToolError, match=r"6726825d\.pth: expected a whole file of tensors"):
        torch_fidelity.score(task(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_a_torchscript_file_that_is_none_is_refused(tmp_path):
    placed(tmp_path).write_bytes(b"nothing of the kind")
    with pytest.raises(ToolError, match="not a whole TorchScript file"):
        clean_fid.score(task(tmp_path))


def test_few_images_give_a_reason_and_the_other_numbers(tmp_path, halves, monkeypatch):
    # The released clean-fid, where the root of a singular product has an imaginary part.
    monkeypatch.setattr(clean_fid.clean.linalg, "sqrtm", lambda m, **_options: (m + 1j * np.eye(len(m)), None))
    (result,) = clean_fid.score(task(tmp_path, "embedded:digits", halves[:31]))
    assert result.metrics.keys() == {"kid"}
    assert result.settings.reasons["clean"].endswith("from 15 images of 64 features: Imaginary component 1.0")


def test_kid_is_seeded_and_zero_on_average_for_one_distribution():
    a, b = (GENERATOR.normal(size=(400, 16)).astype(np.float32) for _ in range(2))
    first = clean_fid._kid(a, b)
    np.random.seed(99)
    assert clean_fid._kid(a, b) == first
    assert abs(first) < 0.01 < clean_fid._kid(a + 0.5, b)


def test_torch_fidelity_reads_in_order_and_holds_one_batch(tmp_path):
    pixels = GENERATOR.integers(0, 256, (150, 4, 6, 3), dtype=np.uint8)
    images = image_set(tmp_path, "a", pixels)
    passes = []
    reading = images.batches
    images.batches = lambda: passes.append(None) or reading()
    dataset = torch_fidelity.Images(images)
    for places in ([0], range(150), [149, 3, 70, 140], [0]):
        for place in places:
            np.testing.assert_array_equal(dataset[place], pixels[place].transpose(2, 0, 1))
    # Only going back opens the file again.
    assert len(passes) == 3
    assert dataset.batch.shape == (64, 4, 6, 3)
    with pytest.raises(IndexError):
        dataset[150]


def test_images_of_another_size_are_refused_by_the_embedded_network(tmp_path):
    pixels = GENERATOR.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    for module in (clean_fid, torch_fidelity):
        with pytest.raises(ToolError, match=r"\.npz: expected images of 32 x 32 pixels, got \(16, 16\)"):
            module.score(task(tmp_path, "embedded:digits", pixels))
