"""Settings of the method in manifests: each plug-in by name, and the one line for what does not fit."""

from pathlib import Path

import pytest

from benchmark.manifest.schema import ManifestError, load
from benchmark.manifest.smoke_form import scaled
from benchmark.plan.prepare import check_batch_split

SMOKE = Path(__file__).parents[2] / "manifests" / "smoke.yaml"
DIT = ["model.family=dit", "model.convention=vanilla-dit", "sample.sampler=ddpm", "model.time_scale=1.0"]
XL = ["model.size=XL"]
SRA2 = "{kind: sra2, mlp_width: 96, mlp_activation: silu}"


def aligned(value: str, *others: str):
    return load(SMOKE, [*others, f"variants.sra.align={value}"]).runs[1].align


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sra", {"blocks": (8, 20), "weight": 0.2}),
        (SRA2, {"block": 8, "weight": 1.0}),
        ("self-flow", {"blocks": (8, 20), "weight": 0.5, "separated": False}),
        ("dts-as", {"blocks": (8, 20), "weight": 0.5, "separated": True}),
        ("layersync", {"blocks": (8, 16), "weight": 0.2}),
        ("dispersive", {"block": 28, "tau": 1.0, "weight": 0.25, "local_batch": 32}),
    ],
)
def test_defaults_by_name(value: str, expected: dict[str, object]) -> None:
    settings = aligned(value, *XL)
    assert {key: getattr(settings, key) for key in expected} == expected


def test_dit_is_trained_and_sampled() -> None:
    runs = load(SMOKE, DIT).runs
    assert [run.sample.sampler for run in runs] == ["ddpm", "ddpm"]
    assert aligned("sra", *DIT, "model.size=B").blocks == (3, 7)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["variants.sra.align=self-flow", *DIT, *XL], ["model.family: ", "'sit'", "'self-flow'", "'dit'"]),
        (["variants.sra.align=dts-as"], ["align.blocks: missing", "SiT-6x96x3/2"]),
        (["variants.sra.align=sra", "model.size=S"], ["align.blocks: missing", "SiT-S/2"]),
        (["variants.sra.align=sra2", *XL], ["align.mlp_activation: missing"]),
        (["variants.sra.align=self-flw"], ["'self-flw'", "did you mean 'self-flow'"]),
        ([f"variants.sra.align={SRA2}", *DIT, *XL], ["align.block: missing", "DiT-XL/2"]),
        (["variants.sra.align={kind: dts-as, blocks: [1, 2], teacher: none}"], ["teacher", "'own-times'", "'none'"]),
        (["variants.sra.align={kind: dts-as, blocks: [1, 2], weight: -1}"], ["align.weight: ", "-1"]),
        (["variants.sra.align={kind: sra2, blck: 2}"], ["blck", "did you mean 'block'"]),
        (["variants.sra.align={kind: sra, blocks: [4, 2]}"], ["align.blocks: ", "m <= n <= 6", "[4, 2]"]),
        (["variants.sra.align={kind: layersync, blocks: [4, 2]}"], ["align.blocks: ", "m < n <= 6", "[4, 2]"]),
        (["variants.sra.align={kind: layersync, blocks: [3, 3]}"], ["align.blocks: ", "[3, 3]"]),
        (["variants.sra.align={kind: layersync, blocks: [3, 7]}"], ["align.blocks: ", "[3, 7]"]),
        (["variants.sra.align=layersync", "model.size=B"], ["align.blocks: missing", "SiT-B/2"]),
        (["variants.sra.align=layersink"], ["'layersink'", "did you mean 'layersync'"]),
        (["variants.sra.align={kind: dispersive, block: 7}"], ["align.block: ", "7"]),
        (["variants.sra.align={kind: dispersive, block: 0}"], ["align.block: ", "0"]),
        (["variants.sra.align={kind: dispersive, tau: 0}"], ["align.tau: ", "0"]),
        (["variants.sra.align={kind: dispersive, local_batch: 1}"], ["align.local_batch: ", "1"]),
        ([*DIT, "train.times=lognormal"], ["train.times", "lognormal"]),
        ([*DIT, "model.interpolant=cosine"], ["model.interpolant: ", "cosine"]),
        ([*DIT, "sample.steps=1001"], ["sample.steps: ", "1000", "1001"]),
        ([*DIT, "sample.guidance_interval=[0.0, 0.7]"], ["guidance_interval", "ddpm"]),
        (["model.family=dit", "model.convention=vanilla-dit"], ["sample.sampler: ", "'euler-maruyama'", "ddpm"]),
        (["model.convention=vanilla-sit"], ["vanilla-sit", "model.convention: expected 'sra'"]),
        (["codec.channels=2", "sample.cfg_channels=3"], ["cfg_channels", "2"]),
    ],
)
def test_refusals(overrides: list[str], expected: list[str]) -> None:
    with pytest.raises(ManifestError) as caught:
        load(SMOKE, overrides)
    text = str(caught.value)
    assert "\n" not in text
    assert "smoke.yaml" in text
    for part in expected:
        assert part in text


@pytest.mark.parametrize(("local", "processes"), [(5, 1), (16, 4), (64, 1)])
def test_a_local_batch_that_does_not_divide_that_of_a_process_is_refused(local: int, processes: int) -> None:
    settings = [f"variants.sra.align={{kind: dispersive, local_batch: {local}}}", "train.global_batch=32"]
    with pytest.raises(ManifestError, match=rf"variants\.sra: align\.local_batch: .*{32 // processes}.*got {local}"):
        check_batch_split(load(SMOKE, settings), processes)
    check_batch_split(load(SMOKE, [settings[0].replace(f": {local}", ": 8"), settings[1]]), processes)


def test_the_smoke_form_scales_the_projection_of_sra2_with_the_network() -> None:
    loaded = load(SMOKE.with_name("sit_b_256_400k.yaml"), variants=["sra2"])
    assert loaded.runs[0].align.mlp_width == 2 * 768  # type: ignore[union-attr]
    run = scaled(loaded).runs[0]
    assert run.align.mlp_width == 2 * run.model.dimensions.width  # type: ignore[union-attr]
