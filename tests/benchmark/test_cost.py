"""What a plan says that it will cost: counts against known numbers, rates, and honesty about what is not known."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.commands.plan import plan_report, show_plan
from benchmark.manifest.schema import load
from benchmark.plan.cost import LIBRARY_BYTES, Estimate, load_table
from benchmark.plan.counts import evaluations, parameters, shards
from benchmark.plan.plan import Plan, make_plan
from benchmark.plan.prepare import prepare
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory
from sra.config import CodecConfig, ModelConfig, SampleConfig, SampleJob, Size, UserError
from sra.sampling.seeding import make_seeding

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "config.json").read_text())
VAE = CodecConfig()
IMAGENET_STEPS, BATCH = 5004, 256


@pytest.fixture(autouse=True)
def no_measured_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "perf.json"
    monkeypatch.setenv("SRA_BENCH_PERF", str(path))
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return path


@pytest.mark.parametrize(("family", "section"), [("sit", "sit_state_dict"), ("dit", "dit_state_dict")])
def test_parameters_are_those_of_the_golden_state(family: str, section: str) -> None:
    config = GOLDEN["config"]
    size = Size(depth=config["depth"], width=config["hidden_size"], heads=config["num_heads"])
    codec = CodecConfig(factor=4, channels=config["in_channels"])
    model = ModelConfig(
        family=family, size=size, patch=2, resolution=32, convention="sra", classes=config["num_classes"]
    )
    counted = sum(math.prod(shape) for name, shape in GOLDEN[section] if name != "pos_embed")
    assert parameters(model, codec, head=True) == counted


def test_parameters_are_those_that_the_papers_print() -> None:
    model = ModelConfig(size="XL", convention="sra")
    assert parameters(model, VAE) / 1e6 == pytest.approx(675, rel=1e-3)
    extra = parameters(model, VAE, head=True) - parameters(model, VAE)
    assert extra / 1e6 == pytest.approx(5.3, rel=1e-2)


def test_evaluations_count_guidance_only_inside_its_interval() -> None:
    assert evaluations(SampleConfig()) == 250
    assert evaluations(SampleConfig(cfg=1.5)) == 500
    ten = SampleConfig(steps=10, sampler="euler", cfg=1.8, guidance_interval=(0.0, 0.7))
    # Steps start at 1.0, 0.9, 0.8 outside and at 0.7 ... 0.1 inside.
    assert evaluations(ten) == 3 + 2 * 7
    assert evaluations(SampleConfig(steps=10, sampler="heun")) == 19


def plan_of(manifest: str, *overrides: str) -> Plan:
    return make_plan(load(ROOT / "manifests" / manifest, list(overrides)), RunDirectory(Path("/nowhere")))


def of(plan: Plan, name: str, processes: int = 8) -> Estimate:
    stage = next(s for s in plan.stages if s.name == name)
    return stage.kind.cost(stage.job, stage, load_table(), processes)


def test_training_costs_what_the_paper_prints() -> None:
    plan = plan_of("sit_xl_256.yaml")
    plain, aligned = of(plan, "train-baseline"), of(plan, "train-sra")
    # Table 7: 0.394 and 0.476 hours an epoch on eight GPUs, 29.08 and 30.24 GB.
    assert plain.gpu_hours == pytest.approx(0.394 * 8 * 800)
    assert aligned.gpu_hours == pytest.approx(0.476 * 8 * 800)
    assert plain.memory_bytes == pytest.approx(29.08e9)
    assert aligned.memory_bytes == pytest.approx(30.24e9)
    assert "Table 7" in plain.how
    # A checkpoint of XL has 10.88 GB, measured.
    assert plain.copy_bytes == pytest.approx(10.88e9, rel=0.02)
    assert of(plan, "train-baseline", processes=4).memory_bytes > plain.memory_bytes
    sharded = of(plan_of("sit_xl_256.yaml", "train.shard=optimizer"), "train-baseline", processes=8).memory_bytes
    model = plan.loaded.runs[0].model
    saved = 8 * parameters(model, VAE) * 7 / 8
    assert of(plan, "train-baseline", processes=8).memory_bytes - sharded == pytest.approx(saved)


def test_gradients_are_held_beside_activations_only_where_they_are_kept() -> None:
    plan = plan_of("sit_xl_256.yaml")
    count = parameters(plan.loaded.runs[0].model, VAE)
    eight = of(plan, "train-baseline").memory_bytes

    def alone(*overrides: str) -> float:
        return of(plan_of("sit_xl_256.yaml", *overrides), "train-baseline", processes=1).memory_bytes

    assert alone("train.global_batch=32") == pytest.approx(eight - 4 * count)
    assert alone("train.accumulate=8") == pytest.approx(eight)
    # Of two images, gradients take more than activations.
    assert alone("train.global_batch=2") == pytest.approx(20 * count + LIBRARY_BYTES)


def test_sampling_is_priced_from_a_training_step_by_the_stated_formula() -> None:
    found = of(plan_of("sit_b_256_400k.yaml"), "sample-baseline")
    step = 0.096 * 8 / (IMAGENET_STEPS * BATCH)
    assert found.gpu_hours == pytest.approx(50_000 * 250 * step / 3)
    assert "250 evaluations an image at 1/3 of a training step, decoding not counted" in found.how


def test_other_sizes_scale_by_counted_flops_and_say_so() -> None:
    small = of(plan_of("sit_s_256.yaml"), "train-baseline")
    base = of(plan_of("sit_b_256_400k.yaml"), "train-baseline")
    assert small.gpu_hours / base.gpu_hours == pytest.approx(6.06 / 23.01, rel=1e-3)
    assert "sit-B/2 256 px x 0.263 by FLOPs" in small.how
    assert "self-flow priced as sra" in of(plan_of("sit_b_256_400k.yaml"), "train-self-flow").how
    siblings = plan_of("sit_256_layersync_dispersive.yaml")
    plain, aligned = (of(siblings, f"train-xl-{name}") for name in ("400k", "layersync-400k"))
    assert "layersync priced as no alignment" in aligned.how
    assert aligned.gpu_hours == plain.gpu_hours


def test_what_no_table_holds_is_unknown() -> None:
    plan = plan_of("smoke.yaml")
    for name in ("train-sra", "sample-sra", "latents", "score-adm-sra"):
        assert of(plan, name).gpu_hours is None
        assert "not in the table" in of(plan, name).how
    assert of(plan, "images").gpu_hours == 0


def test_a_stage_that_needs_more_memory_than_the_device_has_is_named(no_measured_table: Path, tmp_path: Path) -> None:
    request = RunRequest(manifest=ROOT / "manifests" / "sit_b_256_400k.yaml", out=tmp_path, processes=1)
    first, *_, last = plan_report(prepare(request)).notes
    # 256 images on one device need more than the 80 GB of an A100; half of them do not.
    assert first.startswith("warning: train-baseline: 81.2 GB, but one A100-80G has 80.0 GB")
    assert "sra-bench perf" in last
    assert [note for note in plan_report(prepare(replace(request, processes=2))).notes if "warning" in note] == []
    no_measured_table.write_text(json.dumps(MEASURED))
    assert plan_report(prepare(request)).notes == ()


# With the published codec 64 px are latents of 8 x 8, as 32 px are with that of the digits.
NETWORK = {"family": "sit", "size": "6x96x3", "patch": 2, "resolution": 64, "precision": "fp32"}
MEASURED = {
    "schema": 1,
    "device": "a small GPU",
    "train": [
        {**NETWORK, "align": None, "images_per_device": 32, "seconds_per_image": 0.002, "memory_bytes": 1e9},
        {**NETWORK, "align": "sra", "images_per_device": 32, "seconds_per_image": 0.003},
    ],
    "sample": [{**NETWORK, "seconds_per_evaluation": 1e-4, "seconds_per_decode": 0.01, "memory_bytes": 5e8}],
    "latents": [{"resolution": 32, "seconds_per_image": 0.001}],
}


def test_a_measured_table_comes_first(no_measured_table: Path) -> None:
    no_measured_table.write_text(json.dumps(MEASURED))
    plan = plan_of("smoke.yaml", "train.steps=450", "sample.steps=50")
    assert of(plan, "train-baseline", 1).gpu_hours == pytest.approx(450 * 32 * 0.002 / 3600)
    assert of(plan, "train-baseline", 1).memory_bytes == pytest.approx(1e9)
    assert of(plan, "train-sra", 1).gpu_hours == pytest.approx(450 * 32 * 0.003 / 3600)
    assert of(plan, "train-sra", 1).memory_bytes is None
    assert of(plan, "sample-sra").gpu_hours == pytest.approx(2000 * (50 * 1e-4 + 0.01) / 3600)
    assert of(plan, "latents").gpu_hours == pytest.approx(1797 * 0.001 / 3600)
    assert of(plan, "score-adm-sra").gpu_hours is None
    assert of(plan, "train-sra").how == "measured by sra-bench perf"
    no_measured_table.write_text(json.dumps(MEASURED).replace('"resolution": 64', '"resolution": 32'))
    # A quarter of the tokens were measured.
    scaled = of(plan, "train-baseline", 1)
    assert "sit-6x96x3/2 32 px x 3.7" in scaled.how
    assert scaled.gpu_hours == pytest.approx(450 * 32 * 0.002 * 3.7 / 3600, rel=0.02)


@pytest.mark.parametrize("wrong", [{"train": [{"family": "sit"}]}, {"trian": []}, {"schema": 2}])
def test_a_damaged_table_is_refused(no_measured_table: Path, wrong: dict[str, object]) -> None:
    no_measured_table.write_text(json.dumps({**MEASURED, **wrong}))
    with pytest.raises(UserError, match=rf"perf\.json: expected a cost table: {next(iter(wrong))}"):
        load_table()


def test_checkpoints_that_are_kept_for_good_take_disk_whatever_the_length_is_given_in() -> None:
    sizes = []
    for length in ("train.steps=5600", "train.epochs=100"):
        plan = plan_of(
            "smoke.yaml", length, "train.keep_every=100", *(["train.steps=null"] if "epochs" in length else [])
        )
        stage = next(s for s in plan.stages if s.name == "train-sra")
        sizes.append(stage.disk.bytes)
    assert stage.step == 5600
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("sizes", [(50_000, 64, 250), (50_000, 4, 250), (10, 4, 4), (1001, 8, 17)])
@pytest.mark.parametrize("ranks", [None, 1, 8])
def test_shards_are_those_of_the_sampler(sizes: tuple[int, int, int], ranks: int | None) -> None:
    images, batch, shard = sizes
    seeding = "public-code" if ranks else "per-image"
    sample = SampleConfig(images=images, batch=batch, shard=shard, seeding=seeding, ranks=ranks)
    job = SampleJob(seed=0, codec=VAE, model=ModelConfig(convention="sra"), sample=sample, checkpoint="x.safetensors")
    assert shards(sample) == len(make_seeding(job, torch.device("cpu"), 1).shards)


def test_the_first_stage_that_reads_a_reference_counts_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", arr_0=np.zeros((600, 32, 32, 3), np.uint8), mu=np.zeros(2048))
    plan = plan_of("smoke.yaml", f"score.reference={tmp_path / 'reference.npz'}", "score.tools=[adm,adm-torch]")
    stages = [stage for stage in plan.stages if stage.kind.name == "score"]
    counted = {stage.name: stage.images for stage in stages if stage.images}
    assert counted == {"score-adm-baseline-step200": 600, "score-adm-torch-baseline": 600}
    first, other = (next(s.disk for s in stages if s.name == f"score-adm-{n}-step200") for n in ("baseline", "sra"))
    # Three files of 256 images and the statistics; two folders and the classifier.
    assert first.files - other.files == 3 + 1 + 3
    assert first.bytes - other.bytes == 600 * (2048 + 2023) * 4 + 8 * (2048**2 + 2023**2)


def test_plan_shows_it(tmp_path: Path) -> None:
    manifest = ROOT / "manifests" / "sit_xl_256.yaml"
    document = json.loads(show_plan(RunRequest(manifest=manifest, out=tmp_path), as_json=True))
    stages = {stage["stage"]: stage for stage in document["stages"]}
    assert stages["latents"]["disk_bytes"] == 1_281_167 * 8 * 32 * 32 * 4
    weights = parameters(ModelConfig(convention="sra"), VAE) * 4
    assert stages["train-baseline"]["disk_bytes"] == weights * (3 * 4 + 1)
    assert stages["images"]["disk_at_most"]
    # 1,282 folders and as many records.
    assert stages["images"]["disk_files"] == 1_281_167 + 2 * 1_282 + 9
    assert "in 1,283,740 files" in (text := show_plan(RunRequest(manifest=manifest, out=tmp_path), as_json=False))
    assert document["cost"]["gpu_hours"] == pytest.approx(sum(s["gpu_hours"] or 0 for s in document["stages"]))
    unknown = [s for s in document["stages"] if s["gpu_hours"] is None]
    assert document["cost"]["stages_of_unknown_hours"] == len(unknown) > 0
    assert set(document["absent"]) == set(document["remedies"])
    assert "hours of one A100-80G" in text
    assert "`sra-bench fetch sit-xl2-sra-256-ep800`" in text
