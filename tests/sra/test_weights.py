"""Published checkpoints load strictly and safely; states are found as people save them."""

import dataclasses
import os
import pickle
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmark.plan.counts import parameters
from benchmark.plan.prepare import prepare
from benchmark.plan.request import RunRequest
from sra.common.checkpoints import read_headers
from sra.common.errors import DataError, UserError
from sra.model.state import network_shapes, shapes_of
from sra.model.transformer import build
from sra.model.weights import load_network, read_state
from sra.parity.golden import open_golden

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
STATE = {"x_embedder.weight": torch.zeros(2), "blocks.0.bias": torch.ones(3)}


def test_bare_state(tmp_path, sit, model, codec, helpers):
    torch.save(helpers.state(sit, "model/"), tmp_path / "bare.pt")
    assert load_network(tmp_path / "bare.pt", model, codec).ap_head is not None


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_folder_whose_name_is_not_utf8(tmp_path, sit, model, codec, helpers, name):
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    state = {key: value.contiguous() for key, value in helpers.state(sit, "model/").items()}
    (save_file if name.endswith("safetensors") else torch.save)(state, folder / name)
    assert load_network(folder / name, model, codec).ap_head is not None


def test_what_does_not_fit_is_named(tmp_path, sit, model, codec, helpers):
    state = helpers.state(sit, "model/")
    del state["blocks.0.attn.qkv.bias"]
    state["stranger"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(DataError, match=r"missing: blocks\.0\.attn\.qkv\.bias; unexpected: stranger"):
        load_network(tmp_path / "odd.pt", model, codec)
    wide = dataclasses.replace(model, classes=20)
    with pytest.raises(DataError, match=r"y_embedder\.embedding_table\.weight \(11, 32\).*\(21, 32\)"):
        load_network(GOLDEN / "published_format.pt", wide, codec, which="model")


def test_self_flows_file_is_a_vanilla_network_under_other_names(tmp_path, codec):
    golden = GOLDEN / "siblings"
    with np.load(golden / "self_flow.npz", allow_pickle=False) as arrays:
        theirs = {k.removeprefix("model/"): torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith("model/")}
    torch.save({"state_dict": {f"module.{name}": value for name, value in theirs.items()}}, tmp_path / "theirs.pt")
    vanilla = open_golden(golden).config.model("sit", "vanilla-sit")
    network = load_network(tmp_path / "theirs.pt", vanilla, codec)
    patch = torch.randn(1, 4, 2, 2)
    linear = theirs["x_embedder.proj.weight"] @ patch.flatten()
    torch.testing.assert_close(network.x_embedder.proj(patch).flatten(), linear + theirs["x_embedder.proj.bias"])
    assert network.ap_head is None
    with pytest.raises(DataError, match=r"x_embedder\.proj\.weight \(32, 16\)"):
        load_network(tmp_path / "theirs.pt", dataclasses.replace(vanilla, patch=4), codec)


class Exploit:
    def __reduce__(self):
        return (Path.touch, (Path("exploited"),))


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"ema": Exploit()}, "bad.pt", pickle_module=pickle)
    with pytest.raises(DataError, match=r"got an object of class .*getattr, which is not unpickled"):
        read_state(Path("bad.pt"))
    assert not Path("exploited").exists()


def prefixed(prefix):
    return {prefix + name: value for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (STATE, ""),
        ({"ema": STATE, "model": prefixed("other."), "opt": {"state": {}, "lr": 1.0}}, ""),
        ({"state_dict": STATE, "epoch": 3}, "has no state 'ema'; its only one, 'state_dict', is used"),
        ({"model": STATE, "step": 7}, "'model', is used"),
        ({"state_dict": {"ema": STATE, "model": prefixed("other.")}}, ""),
        ({"ema": prefixed("module.")}, "'module.' is taken off"),
        ({"ema": prefixed("_orig_mod.")}, "'_orig_mod.' is taken off"),
        ({"ema": prefixed("module._orig_mod.")}, "'_orig_mod.module.' is taken off"),
        ({"ema": prefixed("_orig_mod.module.")}, "'_orig_mod.module.' is taken off"),
        (dict(zip(("x_embedder.weight", "blocks.0._orig_mod.bias"), STATE.values(), strict=True)), "'_orig_mod.'"),
        (prefixed("net.ema_model."), "'net.ema_model.' is taken off"),
    ],
)
def test_states_as_people_save_them(tmp_path, capsys, document, said):
    torch.save(document, tmp_path / "a.pt")
    found = read_state(tmp_path / "a.pt")
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in STATE.items()}
    output = capsys.readouterr().out
    assert said in output
    assert bool(said) == bool(output)


class Settings:
    pass


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"generator": STATE, "critic": STATE}, "a state 'ema' of named tensors, got generator, critic"),
        ({"ema": 3, "epoch": 1}, "got ema, epoch"),
        ([torch.zeros(1)], "got no keys, but a list"),
        ({"ema": STATE, "args": Path("a")}, r"got an object of class pathlib\.\S*PosixPath"),
        ({"ema": STATE, "args": Settings()}, r"got an object of class .*Settings, which .* save its state_dict\(\)"),
        ({"ema": STATE, "loss": np.float64(1)}, r"got an object of class numpy\.\S*scalar"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_state_is_named(tmp_path, document, message, zipped):
    torch.save(document, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=rf"a\.pt: expected .*{message}"):
        read_state(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"", "expected weights, .* got none"),
        ("a.pt", b"not a pickle", "expected weights, .* got none"),
        ("a.pt", b"PK\3\4 and no more", "expected a whole .zip file"),
        ("a.pt", bytes(range(256)) * 9, "expected weights, .* got none"),
        ("a.safetensors", b"", "expected a safetensors file"),
        ("a.safetensors", b"\xff" * 90, "expected a safetensors file"),
        ("a.safetensors", b"\x02" + bytes(7) + b"{}" + bytes(5), "expected a whole safetensors file"),
        ("a.safetensors", (100_000).to_bytes(8, "little") + b"[" * 100_000, "expected a safetensors file"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        read_state(tmp_path / name)
    with pytest.raises(DataError, match="expected a checkpoint, got a folder"):
        read_state(tmp_path)


@pytest.fixture
def planned(tmp_path):
    """A plan of the smoke manifest's network with the weights of a file."""
    given = ("variants={}", "train=null")

    def plan(name, *overrides):
        checkpoint = f"variants.given.checkpoint={tmp_path / name}"
        path = ROOT / "manifests" / "smoke.yaml"
        return prepare(RunRequest(manifest=path, overrides=(*given, checkpoint, *overrides))).plan

    return plan


def test_a_plan_refuses_a_checkpoint_that_cannot_be_loaded(tmp_path, planned):
    torch.save({"ema": STATE, "args": Settings()}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"smoke\.yaml: variants\.given\.checkpoint: .*a\.pt: .* class .*Settings"):
        planned("a.pt")


@pytest.mark.parametrize("name", ["a.pt", "old.pt", "a.safetensors"])
def test_a_plan_refuses_weights_of_another_network(tmp_path, planned, name):
    run = planned("missing").loaded.runs[0]
    state = build(run.model, run.codec, head=True).state_dict()
    if name == "a.safetensors":
        save_file(state, tmp_path / name)
    else:
        document = {"model": {}, "ema": {f"module.{key}": value for key, value in state.items()}, "step": 3}
        torch.save(document, tmp_path / name, _use_new_zipfile_serialization=name == "a.pt")
    assert planned(name).absent == ()
    for override, message in (
        ("model.classes=9", r"other shapes: y_embedder\.embedding_table\.weight \(11, 96\) instead of \(10, 96\)"),
        ("model.size={depth: 5, width: 96, heads: 3}", r"unexpected: blocks\.5\.adaLN_modulation\.1\.bias, .* \.\.\."),
        ("model.resolution=16", r"other shapes: pos_embed \(1, \d+, 96\)"),
        ("model.convention=vanilla-sit", r"other shapes: final_layer\.linear\.bias \(16,\) instead of \(32,\)"),
    ):
        with pytest.raises(UserError, match=rf"{name}: expected weights of the manifest's network, got {message}"):
            planned(name, override)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: (value * 10).to(torch.int8), r"expected floating-point numbers, got torch\.int8"),
        (lambda value: value.to("meta"), "expected floating-point numbers, got meta"),
        (lambda value: value.to_sparse(), r"expected floating-point numbers, got torch\.sparse_coo"),
        (lambda value: value / 0, r"expected finite numbers, got NaN or infinity \(in 1 tensors\)"),
    ],
)
def test_tensors_that_are_no_weights(tmp_path, sit, model, codec, helpers, change, message):
    state = helpers.state(sit, "model/")
    torch.save(state | {"pos_embed": change(state["pos_embed"])}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=rf"a\.pt: pos_embed: {message}"):
        load_network(tmp_path / "a.pt", model, codec)


def test_a_flipped_byte_of_a_checkpoint_is_found(tmp_path, sit, model, codec, helpers):
    torch.save(helpers.state(sit, "model/"), path := tmp_path / "a.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pt: .*Bad CRC-32 for file 'a/data/\d+'"):
        load_network(path, model, codec)


@pytest.mark.parametrize("family", ["sit", "dit"])
@pytest.mark.parametrize("head", [True, False])
def test_shapes_that_are_known_without_torch_are_those_of_the_network(model, codec, family, head):
    convention = "sra" if family == "sit" else "vanilla-dit"
    settings = dataclasses.replace(model, family=family, convention=convention, patch=4)
    network = build(settings, codec, head=head)
    assert network_shapes(settings, codec, head=head) == shapes_of(network.state_dict())
    assert parameters(settings, codec, head=head) == sum(each.numel() for each in network.parameters())


def test_headers_are_those_of_the_tensors(tmp_path):
    """As torch writes parameters, ordered dicts, other types, views and shared tensors."""
    linear = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
    shared = torch.zeros(4, 6)
    state = {**linear.state_dict(), "parameter": linear.weight, "view": shared[:2].t(), "scalar": torch.tensor(3)}
    document = {
        "ema": OrderedDict(state, shared=shared),
        "opt": {"state": {0: {"step": 1.5}}},
        "args": Namespace(a=(1,)),
    }
    for zipped in (True, False):
        torch.save(document, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
        found = read_headers(tmp_path / "a.pt")
        assert {name: header.shape for name, header in found["ema"].items()} == {
            name: tuple(value.shape) for name, value in document["ema"].items()
        }
        assert found["opt"] == {"state": {0: {"step": 1.5}}}
