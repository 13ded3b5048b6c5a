"""Manifests: what is accepted, and the one line for what is refused."""

import json
from pathlib import Path

import pytest
import yaml

from benchmark.manifest.schema import ManifestError, load, schema
from sra.common.errors import UserError

SMOKE = Path(__file__).parents[2] / "manifests" / "smoke.yaml"


def refusal(*overrides: str, path: Path = SMOKE) -> str:
    with pytest.raises(ManifestError) as caught:
        load(path, list(overrides))
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.lrr=1", ["train: expected one of the keys", "did you mean 'lr'"]),
        ("train.lr=abc", ["train.lr", "'abc'", "number"]),
        ("train.steps=on", ["train.steps: expected a number, got a boolean"]),
        ("variants.sra.align.blocks=[true, 4]", ["align.blocks: expected a number, got a boolean"]),
        ("model.size.width=97", ["model.size.width: expected a multiple of heads"]),
        ("train.precision=FP16", ["train.precision: ", "did you mean 'fp16'"]),
        ("sample.steps=1e11", ["sample.steps: ", "at most"]),
        ("trian=1", ["'trian'", "did you mean 'train'"]),
        ("model.patch=3", ["model.patch: ", "1, 2, 4 or 8", "3"]),
        ("model.resolution=30", ["30", "codec.factor x patch = 8"]),
        ("sample.guidance_interval=[0.7, 0.2]", ["guidance_interval", "0.7", "0.2"]),
        ("sample.sampler=ddpm", ["sampler", "euler-maruyama"]),
        ("variants.sra.align.blocks=[4, 2]", ["blocks", "m <= n", "[4, 2]"]),
        ("variants.sra.align.blocks=[2, 7]", ["blocks", "6 (depth)"]),
        ("variants.sra.align=sraa", ["'sraa'", "did you mean 'sra'"]),
        ("variants.sra.align.distnce=l1", ["distnce", "did you mean 'distance'"]),
        ("variants.sra.train.stepss=1", ["stepss", "did you mean 'steps'"]),
        ("score.metrics=[kid, coverag]", ["score.metrics.1: ", "'coverag'", "did you mean 'coverage'"]),
        ("score.metrics=[authenticity]", ["score.training: expected images", "has authenticity, got none"]),
        ("score.training=images", ["score.training: expected authenticity or copying among", "got neither"]),
        ("score.metrics=[fid@0]", ["score.metrics.0: ", "'fid@0'"]),
        ("variants.sra.score={metrics: [kid], tools: [clean-fid]}", ["score.metrics: ", "adm, adm-torch", "clean-fid"]),
        ("score.tools=[adm, cleanfid]", ["score.tools", "'clean-fid'", "'cleanfid'"]),
        ("train.milestones=[800]", ["milestones", "799"]),
        ("train.epochs=3", ["steps and epochs"]),
        ("model.convention=vanilla-dit", ["convention", "vanilla-dit"]),
        ("train.accumulate=5", ["global_batch", "accumulate 5"]),
        ("train.lr=nan", ["train.lr", "finite", "'nan'"]),
        ("sample.cfg=.inf", ["sample.cfg", "finite"]),
        ("train.lr=-1", ["train.lr: ", "positive", "-1"]),
        ("train.workers=-1", ["train.workers: ", "-1"]),
        ("train.log_every=true", ["train.log_every: ", "number", "boolean"]),
        ("sample.steps=on", ["sample.steps: ", "number", "boolean"]),
        ("train.betas=[0.9, true]", ["train.betas: ", "number", "boolean"]),
        ("train.seeds=[1, 1]", ["train.seeds: ", "[1, 1]"]),
        ("train.seeds=[]", ["train.seeds: ", "[]"]),
        ("seed=-1", ["seed: ", "2^63 - 1", "-1"]),
        ("name=../evil", ["'../evil'", "letters, digits"]),
        ("variants.sra.samples=x.npz", ["expected one of align, checkpoint, samples", "got align and samples"]),
        ("variants.sra.checkpoint=x.pt", ["expected one of align, checkpoint, samples", "got align and checkpoint"]),
    ],
)
def test_refusals_name_the_key_and_what_is_allowed(override: str, expected: list[str]) -> None:
    text = refusal(override)
    for part in expected:
        assert part in text


@pytest.mark.parametrize(
    ("item", "steps", "lr"),
    [("train.steps=4e2", 400, None), ("train.lr=1e-4", None, 1e-4), ("train.lr=2", None, 2.0)],
)
def test_numbers_as_people_write_them(item: str, steps: int | None, lr: float | None) -> None:
    (run, *_) = load(SMOKE, [item]).runs
    assert run.train is not None
    assert steps in (None, run.train.steps)
    assert lr in (None, run.train.lr)


@pytest.mark.parametrize(("number", "base"), [("010", 8), ("-0_7", 8), ("13:20", 60), ("1:30.5", 60)])
def test_numbers_in_other_bases_are_refused(number: str, base: int, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(SMOKE.read_text().replace("steps: 800", f"steps: {number}"))
    assert f"line 17, column 10 expected YAML: {number} is a number in base {base}" in refusal(path=path)
    with pytest.raises(ManifestError, match=f"in base {base}"):
        load(SMOKE, [f"train.steps={number}"])


def test_a_revision_that_begins_as_a_number_is_text() -> None:
    assert load(SMOKE, ["codec.revision=31e2abff"]).runs[0].codec.revision == "31e2abff"


def test_an_override_adds_no_variant_by_mistake() -> None:
    with pytest.raises(ManifestError, match=r"variants\.sraa\.train\.lr.*did you mean 'sra'"):
        load(SMOKE, ["variants.sraa.train.lr=1"])
    assert [run.variant for run in load(SMOKE, ["variants.new.checkpoint=x.pt"], ["new"]).runs] == ["new"]
    assert [run.variant for run in load(SMOKE, ["variants.new={train: {lr: 1}}"], ["new"]).runs] == ["new"]


def test_names_are_names_of_folders(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(SMOKE.read_text().replace("  sra:", '  "a b/c":'))
    assert "a letter or digit first (it names a folder), got 'a b/c'" in refusal(path=path)


def test_a_key_that_stands_twice_in_an_override() -> None:
    with pytest.raises(ManifestError, match="column 12 expected YAML: key 'steps' stands twice"):
        load(SMOKE, ["train={steps: 1, steps: 2}"])


def test_a_key_that_stands_twice_and_an_alias_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("name: x\nmodel:\n  patch: 2\n  patch: 4\n")
    assert "line 4, column 3 expected YAML: key 'patch' stands twice" in refusal(path=path)
    path.write_text("name: &a [*a]\n")
    assert "an alias that holds itself" in refusal(path=path)
    path.write_text("base: &b {steps: 1}\ntrain: {<<: *b, steps: 2}\nother: {<<: *b}\n")
    assert "stands twice" not in refusal(path=path)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "smoke.yaml").write_text("name: x")
    assert "did you mean 'smoke.yaml'" in refusal(path=tmp_path / "smok.yaml")


def test_broken_yaml_gives_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: x\nmodel: {patch: 2\nseed: 1\n")
    assert "line" in refusal(path=path)


def test_missing_key_has_no_default(tmp_path: Path) -> None:
    document = yaml.safe_load(SMOKE.read_text())
    del document["model"]["convention"]
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump(document))
    assert "model.convention: missing" in refusal(path=path)


def test_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(ManifestError, match="did you mean 'baseline'"):
        load(SMOKE, variants=["base"])


def test_variants_differ_in_nothing_but_alignment() -> None:
    baseline, sra = load(SMOKE).runs
    assert baseline.align is None
    assert sra.align is not None
    assert (baseline.train, baseline.model, baseline.sample, baseline.seed) == (
        sra.train,
        sra.model,
        sra.sample,
        sra.seed,
    )


def test_resolved_manifest_writes_every_default() -> None:
    resolved = yaml.safe_load(load(SMOKE).resolved_yaml())
    sra = resolved["runs"]["sra"]
    assert sra["train"]["eps"] == 1e-8
    assert sra["align"]["distance"] == "smooth-l1"
    assert sra["sample"]["last_step"] == 0.04
    assert sra["sample"]["seed"] == 0


def test_published_block_defaults_by_size() -> None:
    loaded = load(SMOKE, ["model.size=XL", "variants.sra.align=sra"])
    assert loaded.runs[1].align.blocks == (8, 20)  # type: ignore[union-attr]


def test_training_seeds_give_one_run_each() -> None:
    names = [run.variant for run in load(SMOKE, ["train.seeds=[0, 1]"]).runs]
    assert names == ["baseline-seed0", "baseline-seed1", "sra-seed0", "sra-seed1"]


def test_sample_seeds_give_one_run_each_and_exclude_the_only_one() -> None:
    runs = load(SMOKE, ["sample.seeds=[3, 4]"], ["sra"]).runs
    assert [(run.variant, run.network, run.sample.seed) for run in runs] == [
        ("sra-sample3", "sra", 3),
        ("sra-sample4", "sra", 4),
    ]
    for wrong in (["sample.seeds=[3, 3]"], ["sample.seeds=[]"], ["sample.seeds=[3, 4]", "sample.seed=1"]):
        with pytest.raises(ManifestError, match=r"sample\.seeds: expected"):
            load(SMOKE, wrong)


def test_ema_shorthand_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_PLACE", "/data")
    run = load(SMOKE, ["train.ema=0.5", "codec.path=$VAE_PLACE/vae"]).runs[0]
    assert run.train is not None
    assert run.train.ema.decay == 0.5
    assert run.codec.path == "/data/vae"


def test_an_unset_variable_and_an_asset_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SURELY_UNSET", raising=False)
    run = load(SMOKE, ["data.images=$SURELY_UNSET/train", "codec.path=asset:sd-vae-ft-ema"]).runs[0]
    assert run.data.images == "$SURELY_UNSET/train"
    assert run.codec.path == "asset:sd-vae-ft-ema"
    with pytest.raises(UserError, match="did you mean 'inception-graph'"):
        load(SMOKE, ["score.graph=asset:inception-grpah"])


def test_schema_is_json_and_closed() -> None:
    document = json.loads(json.dumps(schema()))
    assert document["additionalProperties"] is False
    assert "convention" in document["$defs"]["ModelConfig"]["required"]


@pytest.mark.parametrize("change", [f"name={'n' * 101}", f"variants.{'v' * 300}.align=sra"])
def test_names_are_not_too_long(change: str) -> None:
    with pytest.raises(ManifestError, match=r"name: expected at most 100 letters"):
        load(SMOKE, [change])
