"""Published checkpoints load strictly and safely."""

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch

from sra.common.errors import DataError
from sra.model.weights import load_network, read_state

GOLDEN = Path(__file__).parents[1] / "golden"


def test_bare_state(tmp_path, sit, model, codec, helpers):
    torch.save(helpers.state(sit, "model/"), tmp_path / "bare.pt")
    assert load_network(tmp_path / "bare.pt", model, codec).ap_head is not None


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


class Exploit:
    def __reduce__(self):
        return (Path.touch, (Path("exploited"),))


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"ema": Exploit()}, "bad.pt", pickle_module=pickle)
    with pytest.raises(DataError, match="expected weights"):
        read_state(Path("bad.pt"))
    assert not Path("exploited").exists()
