"""What holds for every alignment: the same random numbers, the right labels, settings that survive JSON."""

import copy
import dataclasses
import itertools
import json

import pytest
import torch

from sra.alignment import LOSSES, build_alignment
from sra.alignment.dispersive import dispersion
from sra.config import ALIGNMENTS as SETTINGS
from sra.config import (
    CodecConfig,
    DispersiveSettings,
    DtsAsSettings,
    LayerSyncSettings,
    ModelConfig,
    SelfFlowSettings,
    Size,
    Sra2Settings,
    SraSettings,
    TrainConfig,
    TrainJob,
    from_plain,
    to_plain,
)
from sra.model.flops import count
from sra.model.transformer import build, initialise
from sra.runtime.random_streams import Randoms
from sra.training.losses import TrainingModule, needs_teacher

ALIGNMENTS = {
    "sra": SraSettings(blocks=(1, 2)),
    "sra2": Sra2Settings(block=2, mlp_width=24, mlp_activation="silu"),
    "self-flow": SelfFlowSettings(blocks=(1, 2)),
    "dts-as": DtsAsSettings(blocks=(1, 2)),
    "layersync": LayerSyncSettings(blocks=(1, 3)),
    "dispersive": DispersiveSettings(block=2, local_batch=16),
}
MODEL = ModelConfig(size=Size(depth=3, width=16, heads=2), resolution=64, classes=10, convention="sra")
CODEC = CodecConfig()
COUNT = 64
X, LABELS = torch.randn(COUNT, 4, 8, 8), torch.arange(COUNT) % 10


class Watched(Randoms):
    """Keeps what was drawn."""

    def __init__(self):
        super().__init__(0, torch.arange(COUNT))
        self.drawn = {}

    def uniform(self, name, shape=()):
        return self._kept(name, super().uniform(name, shape))

    def normal(self, name, shape=()):
        return self._kept(name, super().normal(name, shape))

    def _kept(self, name, numbers):
        assert name not in self.drawn, "a stream gives the same numbers again"
        self.drawn[name] = numbers
        return numbers


def one_step(align, model=MODEL, dropout=0.5, watch=None):
    """Losses, random numbers, and what student and teacher were shown."""
    module = TrainingModule(model, CODEC, TrainConfig(steps=1, label_dropout=dropout), align)
    initialise(module.network, 0)
    teacher = copy.deepcopy(module.network).eval().requires_grad_(False)
    seen = {}
    for name, network in (("student", module.network), ("teacher", teacher)):
        network.x_embedder.register_forward_pre_hook(lambda _, a, name=name: seen.__setitem__(f"{name}.x", a[0]))
        network.y_embedder.register_forward_pre_hook(lambda _, a, name=name: seen.__setitem__(f"{name}.y", a[0]))
        network.t_embedder.register_forward_pre_hook(lambda _, a, name=name: seen.__setitem__(f"{name}.t", a[0]))
    randoms = Watched()
    return module(X, LABELS, randoms, teacher), randoms.drawn, seen, module


def test_all_registered_alignments_are_tested_here():
    assert set(ALIGNMENTS) == set(SETTINGS) == set(LOSSES)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_baseline_draws_the_same_numbers(kind):
    _, baseline, plain, _ = one_step(None)
    _, drawn, seen, module = one_step(ALIGNMENTS[kind])
    assert set(baseline) == {"t", "noise", "dropout"}
    for name, numbers in baseline.items():
        assert torch.equal(numbers, drawn[name])
    assert all(name.startswith("align.") for name in set(drawn) - set(baseline))
    assert torch.equal(plain["student.y"], seen["student.y"])
    if "align.group" not in drawn:
        assert torch.equal(plain["student.x"], seen["student.x"])
        return
    # Two times in one image: the larger group keeps the baseline's.
    group1 = module.network.per_cell(_larger(drawn["align.group"])).bool().expand_as(X)
    assert torch.equal(plain["student.x"][group1], seen["student.x"][group1])
    assert torch.equal(seen["student.t"][1], plain["student.t"])


def _larger(uniform):
    ranks = uniform.argsort(dim=1, stable=True).argsort(dim=1)
    return (ranks >= uniform.shape[1] // 4).float()


@pytest.mark.parametrize(("kind", "after_dropout"), [("sra", True), ("self-flow", False), ("dts-as", False)])
def test_labels_of_the_teacher(kind, after_dropout):
    _, _, seen, _ = one_step(ALIGNMENTS[kind])
    dropped = seen["student.y"] == 10
    assert 0 < dropped.sum() < COUNT
    assert torch.equal(seen["student.y"][~dropped], LABELS[~dropped])
    assert torch.equal(seen["teacher.y"], seen["student.y"] if after_dropout else LABELS)


def test_teachers_of_dual_timesteps_see_the_times_they_should():
    _, _, seen, _ = one_step(SelfFlowSettings(blocks=(1, 2)))
    assert torch.equal(seen["teacher.t"], seen["student.t"].amin(0))
    _, drawn, seen, _ = one_step(DtsAsSettings(blocks=(1, 2)))
    difference = seen["student.t"] - seen["teacher.t"]
    assert difference.min() >= 0
    assert difference.max() <= 0.2 + 1e-6
    assert not torch.equal(drawn["align.time"][:, 0], drawn["align.time"][:, 1])
    _, _, seen, _ = one_step(SelfFlowSettings(blocks=(1, 2), teacher="min-and-clean"))
    assert torch.equal(seen["teacher.t"], seen["student.t"].amin(0).expand(2, -1))
    clean = (seen["teacher.x"] == X).float().mean()
    assert clean == pytest.approx(0.75, abs=0.01)


def test_sra2_has_no_teacher_and_aims_at_the_clean_patches():
    settings = ALIGNMENTS["sra2"]
    assert not needs_teacher(settings)
    assert {kind for kind, s in ALIGNMENTS.items() if needs_teacher(s)} == {"sra", "self-flow", "dts-as"}
    losses, _, seen, module = one_step(settings)
    assert "teacher.x" not in seen
    network = module.network
    linears = [m for m in network.ap_head if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in linears] == [24, 24, 24, 24, 16]
    assert torch.equal(network.unpatchify(network.patchify(X)), X)
    with torch.no_grad():
        _, hidden = network(seen["student.x"], seen["student.t"], seen["student.y"], taps=(2,))
        found = torch.nn.functional.smooth_l1_loss(network.ap_head(hidden), network.patchify(X), beta=0.05)
    torch.testing.assert_close(found, losses.alignment)
    torch.testing.assert_close(losses.total, losses.generation.mean() + losses.alignment)


def test_layersync_moves_only_the_earlier_of_its_two_blocks():
    losses, _, seen, module = one_step(ALIGNMENTS["layersync"])
    with torch.no_grad():
        _, later, earlier = module.network(seen["student.x"], seen["student.t"], seen["student.y"], taps=(3, 1))
    expected = -torch.nn.functional.cosine_similarity(earlier, later, dim=-1)
    torch.testing.assert_close(losses.alignment.detach(), expected)
    torch.testing.assert_close(losses.student_norm, earlier.norm(dim=-1).mean())
    torch.testing.assert_close(losses.teacher_norm, later.norm(dim=-1).mean())
    losses.alignment.mean().backward()
    moved = {name.split(".")[1] for name, p in module.network.blocks.named_parameters(prefix="b") if p.grad is not None}
    assert moved == {"0"}


def test_a_local_batch_is_independent_of_the_number_of_processes():
    """A process of 4 images and one of 8 compute the same loss: on parts of `local_batch` images."""
    module = TrainingModule(MODEL, CODEC, TrainConfig(steps=1), DispersiveSettings(block=2, local_batch=4))
    initialise(module.network, 0)
    whole = module(X[:8], LABELS[:8], Randoms(0, torch.arange(8)), None)
    halves = [module(X[i : i + 4], LABELS[i : i + 4], Randoms(0, torch.arange(i, i + 4)), None) for i in (0, 4)]
    torch.testing.assert_close(whole.total, torch.stack([half.total for half in halves]).mean())
    torch.testing.assert_close(whole.alignment, torch.cat([half.alignment for half in halves]))
    _, z = module.network(X[:4], torch.zeros(4), LABELS[:4], taps=(2,))
    pairs = (z.flatten(1)[:, None] - z.flatten(1)[None]).pow(2).mean(2)
    torch.testing.assert_close(dispersion(z.flatten(1), 0.5), (-pairs / 0.5).exp().mean().log())


@pytest.mark.parametrize(("size", "layers", "millions"), [("B", 2, 1), ("B", 5, 8), ("XL", 5, 18)])
def test_sra2_heads_have_the_parameters_that_the_paper_prints(size, layers, millions):
    """The default width, 2 D, gives every printed count; the paper cuts them to whole millions."""
    network = ModelConfig(size=size, convention="sra")
    settings = Sra2Settings(mlp_layers=layers, mlp_activation="silu").resolved(network, CODEC)
    with torch.device("meta"):
        head = build_alignment(settings, 256).head(build(network, CODEC).shape)
    assert sum(p.numel() for p in head.parameters()) // 1_000_000 == millions


def test_sra2_at_xl_adds_four_percent_and_needs_its_unpublished_activation():
    network = ModelConfig(size="XL", convention="sra")
    with pytest.raises(ValueError, match=r"align\.mlp_activation: missing"):
        Sra2Settings().resolved(network, CODEC)
    settings = Sra2Settings(mlp_activation="silu").resolved(network, CODEC)
    assert (settings.block, settings.weight, settings.distance) == (8, 1.0, "smooth-l1")
    widths = settings.work(network.dimensions.width, 16).head_widths
    head = network.tokens(CODEC) * sum(before * after for before, after in itertools.pairwise(widths))
    assert head / count(network, CODEC).forward == pytest.approx(0.0402, abs=5e-5)


@pytest.mark.parametrize("kind", ALIGNMENTS)
def test_settings_survive_json_and_the_loss_reaches_the_head(kind):
    job = TrainJob(seed=0, codec=CODEC, model=MODEL, train=TrainConfig(steps=1), align=ALIGNMENTS[kind])
    assert from_plain(TrainJob, json.loads(json.dumps(to_plain(job)))) == job
    losses, _, _, module = one_step(ALIGNMENTS[kind])
    losses.total.backward()
    if module.network.ap_head is not None:
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.network.ap_head.parameters())


@pytest.mark.parametrize("kind", sorted(ALIGNMENTS.keys() - {"dispersive"}))
def test_no_default_for_sizes_without_a_published_row(kind):
    settings = dataclasses.replace(ALIGNMENTS[kind], **{"block" if kind == "sra2" else "blocks": None})
    for model in (ModelConfig(size="S", convention="sra"), MODEL):
        with pytest.raises(ValueError, match=rf"align\.blocks?: .*{model.name}"):
            settings.resolved(model, CODEC)


def test_dropout_has_its_rate():
    tiny = ModelConfig(size=Size(depth=1, width=8, heads=1), resolution=16, classes=10, convention="sra")
    module = TrainingModule(tiny, CODEC, TrainConfig(steps=1), None)
    seen = []
    module.network.y_embedder.register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    count = 20_000
    module(torch.zeros(count, 4, 2, 2), torch.zeros(count).long(), Randoms(0, torch.arange(count)), None)
    assert float((seen[0] == 10).float().mean()) == pytest.approx(0.1, abs=0.01)
