"""The worked example of docs/alignments.md is registered and trained with, as the page says."""

import ast
import dataclasses
import re
import sys
import types
from pathlib import Path

import pytest
import torch

from benchmark.manifest.schema import ManifestError, load
from sra.alignment import registry
from sra.alignment.distances import DISTANCES
from sra.config import TrainConfig
from sra.model.transformer import initialise
from sra.runtime.random_streams import Randoms
from sra.training.module import TrainingModule, needs_teacher

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "alignments.md").read_text()
SMOKE = ROOT / "manifests" / "smoke.yaml"


@pytest.fixture
def registered(monkeypatch):
    program, line = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    ((name, place),) = ast.literal_eval("{" + line.strip() + "}").items()
    module = types.ModuleType(place)
    monkeypatch.setitem(sys.modules, place, module)
    exec(compile(program, place, "exec"), module.__dict__)
    monkeypatch.setitem(registry.MODULES, name, place)
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
    with pytest.raises(ManifestError, match=r"align\.blocks has no published default"):
        load(SMOKE, [f"variants.sra.align={registered}"])
    with pytest.raises(ManifestError, match="did you mean 'blocks'"):
        load(SMOKE, [f"variants.sra.align={{kind: {registered}, block: [1, 2]}}"])


def test_page_names_every_alignment_key_and_distance():
    for kind in registry.MODULES:
        assert f"`{kind}`" in PAGE
        for key in (f.name for f in dataclasses.fields(registry.settings_class(kind))):
            assert key == "kind" or f"`{key}`" in PAGE, (kind, key)
    assert all(f"`{name}`" in PAGE for name in DISTANCES)
