"""The worked example of docs/alignments.md is registered and trained with, as the page says."""

import dataclasses
import re
import types
from pathlib import Path

import pytest
import torch

from benchmark.manifest.schema import ManifestError, load
from sra import alignment
from sra.alignment.distances import DISTANCES
from sra.config import TrainConfig
from sra.config import alignment as config
from sra.model.transformer import initialise
from sra.runtime.random_streams import Randoms
from sra.training.losses import TrainingModule, needs_teacher

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "alignments.md").read_text()
SMOKE = ROOT / "manifests" / "smoke.yaml"


@pytest.fixture
def registered(monkeypatch):
    settings, settings_line, loss, loss_line = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    monkeypatch.setattr(config, "SameTimeSettings", None, raising=False)
    # As in its module, which begins with this import.
    exec("from __future__ import annotations\n" + settings, vars(config))
    module = types.ModuleType("sra.alignment.same_time")
    exec(compile(loss, "same_time.py", "exec"), module.__dict__)
    (name,) = added = eval("{" + settings_line + "}", vars(config))
    monkeypatch.setitem(config.ALIGNMENTS, name, added[name])
    monkeypatch.setitem(alignment.LOSSES, name, eval("{" + loss_line + "}", module.__dict__)[name])
    return name


def test_example_is_chosen_in_a_manifest_and_trains(registered):
    run = load(SMOKE, [f"variants.sra.align={{kind: {registered}, blocks: [2, 4]}}"]).runs[1]
    assert run.align.kind == registered
    assert needs_teacher(run.align)
    module = TrainingModule(run.model, run.codec, TrainConfig(steps=1), run.align)
    initialise(module.network, 0)
    x, y = torch.randn(2, 4, 8, 8), torch.arange(2)
    losses = module(x, y, Randoms(0, torch.arange(2)), module.network)
    # A fresh network passes its tokens through, so both sides agree at the same time.
    assert losses.alignment == 0
    torch.testing.assert_close(losses.total, losses.generation.mean())
    with torch.no_grad():
        for block in module.network.blocks[2:]:
            block.adaLN_modulation[1].bias.fill_(0.5)
    assert module(x, y, Randoms(0, torch.arange(2)), module.network).alignment > 0


def test_example_refuses_what_the_page_says_is_refused(registered):
    with pytest.raises(ManifestError, match=r"align\.blocks: "):
        load(SMOKE, [f"variants.sra.align={registered}"])
    with pytest.raises(ManifestError, match="did you mean 'blocks'"):
        load(SMOKE, [f"variants.sra.align={{kind: {registered}, block: [1, 2]}}"])


def test_page_names_every_alignment_key_and_distance():
    for kind in config.ALIGNMENTS:
        assert f"`{kind}`" in PAGE
        for key in (f.name for f in dataclasses.fields(config.settings_class(kind))):
            assert key == "kind" or f"`{key}`" in PAGE, (kind, key)
    assert all(f"`{name}`" in PAGE for name in DISTANCES)
