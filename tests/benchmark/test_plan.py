"""Plans: stages, keys, sharing and reuse. Nothing is run."""

import dataclasses
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmark.commands.plan import show_plan
from benchmark.manifest.schema import load
from benchmark.plan import plan as planning
from benchmark.plan.inputs import examine
from benchmark.plan.plan import Plan, make_plan, state_of
from benchmark.plan.prepare import prepare, register
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory, is_done, read_json, write_json
from benchmark.plan.saved_plan import load_plan, save_plan
from benchmark.plan.stages import FEATURES_PER_IMAGE
from benchmark.run.executor import command_of
from sra.common.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures"
SMOKE = Path(__file__).parents[2] / "manifests" / "smoke.yaml"


def plan_of(tmp_path: Path, *overrides: str, variants: list[str] | None = None, accept_moved: bool = False) -> Plan:
    return make_plan(load(SMOKE, list(overrides), variants), RunDirectory(tmp_path), accept_moved=accept_moved)


def keys(plan: Plan) -> dict[str, str]:
    return {stage.name: stage.key for stage in plan.stages}


def finish(plan: Plan) -> None:
    for stage in plan.stages:
        stage.directory.mkdir(parents=True, exist_ok=True)
        write_json(stage.directory / "stage.json", stage.record([]))
        for name in stage.outputs:
            (stage.directory / name).parent.mkdir(parents=True, exist_ok=True)
            (stage.directory / name).write_bytes(b"x")
        write_json(stage.directory / "done.json", {"key": stage.key, "outputs": dict.fromkeys(stage.outputs, 1)})


def test_variants_share_images_and_latents(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    kinds = [stage.kind.name for stage in plan.stages]
    assert kinds.count("images") == kinds.count("latents") == 1
    assert kinds.count("train") == 2
    assert kinds.count("sample") == 4
    assert kinds.count("score") == 8
    assert next(s for s in plan.stages if s.kind.name == "latents").variants == ("baseline", "sra")


def test_keys_change_with_what_a_stage_depends_on_and_nothing_else(tmp_path: Path) -> None:
    before = keys(plan_of(tmp_path))
    score = keys(plan_of(tmp_path, "score.tools=[adm]"))
    assert all(before[name] == key for name, key in score.items())
    sampling = keys(plan_of(tmp_path, "sample.steps=20"))
    assert sampling["train-sra"] == before["train-sra"]
    assert sampling["sample-sra"] != before["sample-sra"]
    assert sampling["score-adm-sra"] != before["score-adm-sra"]
    align = keys(plan_of(tmp_path, "variants.sra.align.weight=0.3"))
    assert align["train-sra"] != before["train-sra"]
    assert {n: k for n, k in align.items() if "baseline" in n} == {n: k for n, k in before.items() if "baseline" in n}


def test_a_variant_alone_keeps_its_keys(tmp_path: Path) -> None:
    everything = keys(plan_of(tmp_path))
    alone = keys(plan_of(tmp_path, variants=["sra"]))
    assert alone["train-sra"] == everything["train-sra"]
    assert alone["score-adm-sra"] == everything["score-adm-sra"]


def test_keys_do_not_depend_on_the_place(tmp_path: Path) -> None:
    assert keys(plan_of(tmp_path / "a")) == keys(plan_of(tmp_path / "b"))


def test_finished_stages_are_skipped_and_changes_are_named(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    plan = plan_of(tmp_path)
    assert {state_of(s, directory)[0] for s in plan.stages} == {"to run"}
    finish(plan)
    assert {state_of(s, directory)[0] for s in plan_of(tmp_path).stages} == {"done"}
    changed = plan_of(tmp_path, "variants.sra.align.weight=0.3")
    states = {s.name: state_of(s, directory) for s in changed.stages}
    assert states["train-baseline"][0] == "done"
    assert states["train-sra"] == ("to run", "changed: align.weight 0.2 -> 0.3")


def states(plan: Plan, root: Path) -> dict[str, str]:
    """By stage: `done`, or why it is to run."""
    found = {stage.name: state_of(stage, RunDirectory(root)) for stage in plan.stages}
    return {name: "done" if state == "done" else why for name, (state, why) in found.items()}


def forget_identities(root: Path) -> None:
    """Make stage records those of version 0.1.0."""
    for path in root.glob("stages/*/stage.json"):
        document = read_json(path) or {}
        write_json(path, {n: v for n, v in document.items() if n not in ("identity", "contents")} | {"schema": 2})


def begin_checkpoint(plan: Plan, name: str, step: int) -> None:
    stage = next(stage for stage in plan.stages if stage.name == name)
    (stage.directory / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)


FREE = {
    "train.log_every=7": "train",
    "train.checkpoint_every=50": "train",
    "train.keep=5": "train",
    "train.workers=1": "train",
    "train.trackers=[tensorboard]": "train",
    "train.grid_every=100": "train",
    "train.shard=optimizer": "train",
    "train.on_nonfinite=skip": "train",
    "sample.batch=3": "sample",
    "sample.shard=100": "sample",
}


@pytest.mark.parametrize("old", [False, True])
def test_settings_that_change_no_result_run_nothing_again(tmp_path: Path, old: bool) -> None:
    plan = plan_of(tmp_path)
    finish(plan)
    if old:
        forget_identities(tmp_path)
    for override in FREE:
        again = plan_of(tmp_path, override)
        assert set(states(again, tmp_path).values()) == {"done"}, override
        assert keys(again) == keys(plan), override
    assert set(states(plan_of(tmp_path, *FREE), tmp_path).values()) == {"done"}
    assert "train-sra" in {n for n, s in states(plan_of(tmp_path, "train.lr=2e-4"), tmp_path).items() if s != "done"}


def test_the_public_codes_batch_changes_its_images(tmp_path: Path) -> None:
    finish(plan_of(tmp_path, "sample.seeding=public-code"))
    changed = states(plan_of(tmp_path, "sample.seeding=public-code", "sample.batch=3"), tmp_path)
    assert changed["sample-sra"] == "changed: sample.batch 125 -> 3"


@pytest.mark.parametrize("old", [False, True])
def test_a_longer_training_continues(tmp_path: Path, old: bool) -> None:
    images = "sample.milestone_images=null"
    plan = plan_of(tmp_path, images)
    finish(plan)
    begin_checkpoint(plan, "train-sra", 800)
    if old:
        forget_identities(tmp_path)
    longer = plan_of(tmp_path, images, "train.steps=1000", "train.milestones=[200, 800, 900]")
    found = states(longer, tmp_path)
    assert found["train-sra"].startswith("train.milestones")
    assert found["train-sra"].endswith("train.steps 800 -> 1000: continues from step 800")
    assert keys(longer)["train-sra"] == keys(plan)["train-sra"]
    # The scores of step 800 stay what they are.
    assert found["score-adm-sra-step200"] == found["score-adm-sra-step800"] == "done"
    assert found["sample-sra-step900"] == "new"
    assert found["sample-sra"] == "changed: what an earlier stage makes"
    # Epochs of the same data are steps.
    epochs = plan_of(tmp_path, "train.steps=null", "train.epochs=20", "train.milestones=[]")
    assert states(epochs, tmp_path)["train-sra"].endswith("continues from step 800")


def test_an_extended_training_is_that_of_both_plans(tmp_path: Path) -> None:
    finish(plan_of(tmp_path))
    finish(plan_of(tmp_path, "train.steps=1000"))
    for steps in ("800", "1000"):
        assert set(states(plan_of(tmp_path, f"train.steps={steps}"), tmp_path).values()) == {"done"}
    short = states(plan_of(tmp_path, "train.steps=500"), tmp_path)["train-sra"]
    assert "the weights of step 500 are not there: trains again from step 0" not in short
    begin_checkpoint(plan_of(tmp_path), "train-sra", 1000)
    short = states(plan_of(tmp_path, "train.steps=500"), tmp_path)["train-sra"]
    assert short.endswith("the weights of step 500 are not there: trains again from step 0")


def test_variants_that_share_an_extended_training_get_the_weights_of_both(tmp_path: Path) -> None:
    long = "variants.long={train: {steps: 1000}}"
    finish(plan_of(tmp_path, variants=["baseline"]))
    plan = plan_of(tmp_path, long, variants=["long", "baseline"])
    stage = next(stage for stage in plan.stages if stage.kind.name == "train")
    assert stage.outputs == tuple(f"weights/step-{step:08d}.safetensors" for step in (200, 800, 1000))
    assert stage.variants == ("long", "baseline")
    found = states(plan, tmp_path)
    assert found["score-adm-baseline"] == "done"
    assert found["sample-long"] == "new"


def test_a_planned_stage_stays_where_it_is_planned(tmp_path: Path) -> None:
    """Its job may wait in a queue while a shorter training of another variant runs."""
    overrides, variants = "variants.long={train: {steps: 1000}}", ["baseline", "long"]
    plan = plan_of(tmp_path, overrides, variants=variants)
    save_plan(plan, RunDirectory(tmp_path), "x")
    short = dataclasses.replace(plan, stages=tuple(stage for stage in plan.stages if "long" not in stage.variants))
    finish(short)
    assert keys(plan_of(tmp_path, overrides, variants=variants)) == keys(plan)


def test_another_seed_or_name_trains_nothing_again(tmp_path: Path) -> None:
    finish(plan_of(tmp_path, variants=["sra"]))
    found = states(plan_of(tmp_path, "train.seeds=[0, 1]", variants=["sra"]), tmp_path)
    assert {name for name, state in found.items() if state == "done"} >= {"train-sra-seed0", "score-adm-sra-seed0"}
    assert found["train-sra-seed1"] == "new"


def test_images_for_each_file_are_written_from_the_samples(tmp_path: Path) -> None:
    finish(plan_of(tmp_path))
    found = states(plan_of(tmp_path, "sample.png=true"), tmp_path)
    assert found["sample-sra"] == "sample.png False -> True: continues"
    assert found["score-adm-sra"] == "done"


def test_variants_that_share_samples_get_files_of_images_if_one_wants_them(tmp_path: Path) -> None:
    finish(plan_of(tmp_path, variants=["baseline"]))
    plan = plan_of(tmp_path, "variants.files={sample: {png: true}}", variants=["baseline", "files"])
    shared = [s for s in plan.stages if s.kind.name == "sample"]
    assert all("png/" in " ".join(stage.outputs) for stage in shared)


def test_begun_shards_keep_their_size(tmp_path: Path) -> None:
    finish(plan_of(tmp_path))
    stage = next(s for s in plan_of(tmp_path, "sample.shard=3").stages if s.name == "sample-sra")
    assert stage.record([])["config"]["sample"]["shard"] == load(SMOKE).runs[1].sample.shard


def test_a_run_of_version_0_1_0_is_done(tmp_path: Path) -> None:
    """The fixture has records and no large files: files of their sizes stand in."""
    with zipfile.ZipFile(FIXTURES / "run-schema1.zip") as archive:
        archive.extractall(tmp_path)
    directory = RunDirectory(tmp_path)
    saved = load_plan(directory)
    assert saved is not None
    for done in tmp_path.glob("stages/*/done.json"):
        for name, size in (read_json(done) or {})["outputs"].items():
            (done.parent / name).parent.mkdir(exist_ok=True)
            (done.parent / name).touch()
            os.truncate(done.parent / name, size)
    assert set(states(make_plan(saved[0].loaded, directory), tmp_path).values()) == {"done"}
    runs = tuple(
        dataclasses.replace(
            run,
            train=dataclasses.replace(run.train, log_every=3, keep=7) if run.train else None,
            sample=dataclasses.replace(run.sample, batch=3),
        )
        for run in saved[0].loaded.runs
    )
    plan = make_plan(dataclasses.replace(saved[0].loaded, runs=runs), directory)
    assert set(states(plan, tmp_path).values()) == {"done"}


# -- inputs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("cats/a.png", "cats/b.png", "dogs/c.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "photos"


def test_a_changed_input_is_told_by_its_files(tmp_path: Path, photos: Path) -> None:
    root, given = tmp_path / "run", f"data.images={photos}"
    plan = plan_of(root, given)
    register(plan, RunDirectory(root), "sra-bench run")
    finish(plan)
    os.utime(photos / "cats")
    moved = photos.rename(tmp_path / "elsewhere")
    given = f"data.images={moved}"
    assert set(states(plan_of(root, given), root).values()) == {"done"}
    (moved / "cats" / "a.png").write_bytes(b"other")
    (moved / "dogs" / "d.png").write_bytes(b"new")
    (moved / "dogs" / "c.png").unlink()
    found = states(plan_of(root, given, accept_moved=True), root)
    files = "1 added (dogs/d.png), 1 removed (dogs/c.png), 1 changed (cats/a.png)"
    assert found["images"] == f"changed: {moved}: {files}"
    assert found["latents"] == found["train-sra"] == "changed: what an earlier stage makes"


def old_run(root: Path, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of version 0.1.0, whose keys had place, size and time of each input."""

    def by_time(place: str) -> object:
        return dataclasses.replace(found := examine(place), now=found.before)

    with monkeypatch.context() as patch:
        patch.setattr(planning, "examine", by_time)
        finish(plan_of(root, given))
    forget_identities(root)


def test_an_old_run_is_done_while_its_inputs_stay(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, given = tmp_path / "run", f"data.images={photos}"
    old_run(root, given, monkeypatch)
    for changes in ((), ("train.log_every=3", "sample.batch=2")):
        assert set(states(plan_of(root, given, *changes), root).values()) == {"done"}
    # Once a run has seen them, times do not matter.
    register(plan_of(root, given), RunDirectory(root), "sra-bench run")
    os.utime(photos / "cats")
    assert set(states(plan_of(root, given), root).values()) == {"done"}


def test_an_old_run_whose_inputs_were_touched_is_done_if_the_user_says_so(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, given = tmp_path / "run", f"data.images={photos}"
    old_run(root, given, monkeypatch)
    os.utime(photos / "cats")
    assert "--accept-moved" in states(plan_of(root, given), root)["images"]
    accepted = plan_of(root, given, accept_moved=True)
    assert set(states(accepted, root).values()) == {"done"}
    assert states(plan_of(root, given, "train.lr=2e-4", accept_moved=True), root)["train-sra"] != "done"
    register(accepted, RunDirectory(root), "sra-bench run")
    assert set(states(plan_of(root, given), root).values()) == {"done"}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("codec.path=org/one", "codec.path=org/other", "latents"),
        ("data.images=embedded:digits", "data.images={photos}", "images"),
    ],
)
def test_another_codec_or_data_set_is_no_moved_input(
    tmp_path: Path, photos: Path, before: str, after: str, told: str
) -> None:
    root = tmp_path / "run"
    finish(plan_of(root, before))
    forget_identities(root)
    found = states(plan_of(root, after.format(photos=photos), accept_moved=True), root)
    assert found[told].startswith(f"changed: {before.split('=')[0]} ")
    assert found["train-sra"] != "done"


def test_damaged_output_is_not_done(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    finish(plan)
    stage = plan.stages[0]
    (stage.directory / stage.outputs[0]).write_bytes(b"longer")
    assert not is_done(stage.directory, stage.key)
    assert state_of(stage, RunDirectory(tmp_path))[1] == "its outputs are missing or damaged"


def test_checkpoint_skips_images_latents_and_training(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"x")
    overrides = [f"variants.only.checkpoint={weights}", f"score.reference={weights}"]
    plan = plan_of(tmp_path, *overrides, variants=["only"])
    assert {stage.kind.name for stage in plan.stages} == {"sample", "score"}
    weights.write_bytes(b"other")
    assert keys(plan) != keys(plan_of(tmp_path, *overrides, variants=["only"]))


def test_absent_inputs_are_marked(tmp_path: Path) -> None:
    assert plan_of(tmp_path, "data.images=/no/such/folder").absent == ("/no/such/folder",)


def test_an_unset_variable_and_a_missing_asset_are_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SURELY_UNSET", raising=False)
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path / "assets"))
    overrides = ["data.images=$SURELY_UNSET/train", "codec.path=asset:sd-vae-ft-ema", "codec.factor=8"]
    plan = plan_of(tmp_path, *overrides, "model.patch=4")
    assert plan.absent == ("$SURELY_UNSET/train", str(tmp_path / "assets" / "sd-vae-ft-ema"))


def test_given_samples_are_only_scored(tmp_path: Path) -> None:
    given = tmp_path / "given.npz"
    given.write_bytes(b"x")
    plan = plan_of(tmp_path, f"variants.given.samples={given}", f"score.reference={given}", variants=["given"])
    assert {stage.kind.name for stage in plan.stages} == {"score"}
    assert {stage.inputs.samples for stage in plan.stages} == {str(given)}
    given.write_bytes(b"other")
    assert keys(plan) != keys(
        plan_of(tmp_path, f"variants.given.samples={given}", f"score.reference={given}", variants=["given"])
    )


def test_stages_of_one_name_and_two_resolutions_do_not_share_a_process(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "variants.large={model: {resolution: 64}}")
    images = [stage for stage in plan.stages if stage.kind.name == "images"]
    assert len({stage.batch for stage in images}) == len(images) == 2


def test_one_process_serves_all_samples_and_one_each_tool(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert len({stage.batch for stage in plan.stages if stage.kind.name == "sample"}) == 1
    assert len({stage.batch for stage in plan.stages if stage.kind.name == "score"}) == 3
    samples = [stage for stage in plan.stages if stage.kind.name == "sample"]
    command = command_of(samples, RunDirectory(tmp_path))
    assert command.module == "sra.sampling.sample"
    assert sum(part.endswith("stage.json") for part in command.arguments) == 4


@pytest.mark.parametrize("epochs", [2])
def test_epochs_count_whole_batches(tmp_path: Path, epochs: int) -> None:
    overrides = ["train.steps=null", f"train.epochs={epochs}", "train.milestones=[]"]
    train = next(s for s in plan_of(tmp_path, *overrides).stages if s.kind.name == "train")
    assert train.outputs == (f"weights/step-{epochs * (1797 // 32):08d}.safetensors",)


def test_stage_configuration_is_json(tmp_path: Path) -> None:
    for stage in plan_of(tmp_path).stages:
        json.dumps(stage.record([]))


def test_sets_of_samples_share_their_training(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "sample.seeds=[0, 1]", "train.milestones=[]")
    names = [stage.name for stage in plan.stages if stage.kind.name in ("train", "sample")]
    assert sorted(names) == sorted(
        ["train-baseline", "train-sra", *(f"sample-{row}-sample{k}" for row in ("baseline", "sra") for k in (0, 1))]
    )


def test_adm_torch_is_a_tool_of_its_own_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    before = keys(plan_of(tmp_path))
    assert not [name for name in before if "adm-torch" in name]
    plan = plan_of(tmp_path, "score.tools=[adm,adm-torch]")
    assert keys(plan)["score-adm-sra"] == before["score-adm-sra"]
    stage = next(s for s in plan.stages if s.name == "score-adm-torch-sra")
    command = command_of([stage], RunDirectory(tmp_path))
    assert command.module == "evaluator.tools.adm_torch"
    assert command.arguments[command.arguments.index("--views") + 1] == str(stage.directory / "views")


def test_a_network_is_a_tool_with_weights_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path / "assets"))
    before, plan = keys(plan_of(tmp_path)), plan_of(tmp_path, "score.tools=[adm,dinov2]")
    assert keys(plan)["score-adm-sra"] == before["score-adm-sra"]
    stage = next(s for s in plan.stages if s.name == "score-dinov2-sra")
    weights = tmp_path / "assets" / "dinov2-vit-l14" / "dinov2_vitl14_pretrain.pth"
    assert str(weights) in stage.places
    command = command_of([stage], RunDirectory(tmp_path))
    assert command.module == "evaluator.tools.dinov2"
    assert command.arguments[command.arguments.index("--graph") + 1] == str(weights)
    assert not {"--views", "--metrics", "--extractor"} & set(command.arguments)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"x")
    after = keys(plan_of(tmp_path, "score.tools=[adm,dinov2]"))
    assert {name for name, key in after.items() if key != keys(plan)[name]} == {
        f"score-dinov2-{row}" for row in ("baseline", "sra")
    }


def test_the_extractor_changes_the_tools_that_have_one(tmp_path: Path) -> None:
    before, plan = keys(plan_of(tmp_path)), plan_of(tmp_path, "score.extractor=graph")
    changed = {name for name, key in keys(plan).items() if key != before[name]}
    assert changed == {f"score-{tool}-{row}" for tool in ("clean-fid", "torch-fidelity") for row in ("baseline", "sra")}
    stage = next(s for s in plan.stages if s.name == "score-clean-fid-sra")
    arguments = command_of([stage], RunDirectory(tmp_path)).arguments
    assert arguments[arguments.index("--extractor") + 1] == "graph"


def test_named_metrics_are_those_of_the_protocol_and_change_no_other_key(tmp_path: Path) -> None:
    before, plan = keys(plan_of(tmp_path)), plan_of(tmp_path, "score.metrics=[kid, fid@50000]")
    changed = {name for name, key in keys(plan).items() if key != before[name]}
    stages = [stage for stage in plan.stages if stage.tool == "adm" and "-step" not in stage.name]
    assert changed == {stage.name for stage in stages}
    command = command_of(stages, RunDirectory(tmp_path))
    assert "--metrics kid fid@50000 --" in " ".join(command.arguments)
    assert "metrics" not in plan_of(tmp_path).stages[-1].record([])["config"]


def test_training_and_validation_images_are_given_to_the_tools_that_use_them(tmp_path: Path) -> None:
    held_out = tmp_path / "validation.npz"
    np.savez(held_out, arr_0=np.zeros((10, 32, 32, 3), np.uint8))
    named = "score.metrics=[authenticity, copying]", "score.training=images", f"score.validation={held_out}"
    before, plan = keys(plan_of(tmp_path)), plan_of(tmp_path, *named)
    changed = {name for name, key in keys(plan).items() if key != before[name]}
    stages = [stage for stage in plan.stages if stage.tool == "adm" and "-step" not in stage.name]
    assert changed == {stage.name for stage in stages}
    images = next(s for s in plan.stages if s.kind.name == "images")
    arguments = " ".join(command_of(stages, RunDirectory(tmp_path)).arguments)
    assert f"--training {images.directory / 'images'} --validation {held_out}" in arguments
    assert str(held_out) in stages[0].places
    # Features of real images are cached once: training images and reference are the same here.
    read = {stage: (stage.images, stage.further) for stage in plan.stages if stage.tool == "adm"}
    assert [read.pop(stage)[1] for stage in stages] == [(10,), ()]
    assert sorted(read.values(), key=str) == [(images.images, ()), (None, ())]
    first, second = (stage.disk for stage in stages)
    assert (first.bytes - second.bytes, first.files - second.files) == (10 * 4 * FEATURES_PER_IMAGE, 1)
    held_out.write_bytes(b"others")
    other = keys(plan_of(tmp_path, *named))
    assert all(other[stage.name] != stage.key for stage in stages)
    assert any(stage.disk.bytes is None for stage in plan_of(tmp_path, *named).stages)


def test_tools_are_told_how_many_images_were_sampled(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    plan = plan_of(tmp_path, "sample.images=500", "sample.milestone_images=100")
    stages = [s for s in plan.stages if s.tool == "adm"]
    arguments = command_of(stages, directory).arguments
    start = arguments.index("--expect-images") + 1
    counts = dict(zip((s.name for s in stages), arguments[start : start + len(stages)], strict=True))
    assert {counts.pop(f"score-adm-{row}") for row in ("baseline", "sra")} == {"500"}
    assert set(counts.values()) == {"100"}
    given = tmp_path / "given.npz"
    given.write_bytes(b"x")
    plan = plan_of(tmp_path, f"variants.given.samples={given}", f"score.reference={given}", variants=["given"])
    assert "--expect-images" not in command_of([plan.stages[0]], directory).arguments


def test_scores_depend_on_the_weights_of_their_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path / "assets"))
    graph = tmp_path / "graph.pb"
    graph.write_bytes(b"x")

    def found(*overrides: str) -> dict[str, str]:
        return keys(plan_of(tmp_path, f"score.graph={graph}", *overrides, variants=["sra"]))

    def changed(place: str, *overrides: str) -> set[str]:
        before, file = found(*overrides), tmp_path / "assets" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(file.read_bytes() + b"x" if file.exists() else b"x")
        return {name for name, key in found(*overrides).items() if key != before[name]}

    script, state = "inception-2015-12-05.pt", "weights-inception-2015-12-05-6726825d.pth"
    for place in (f"clean-fid-inception/{script}", f"clean-fid-inception/{script}", script):
        assert changed(place) == {"score-clean-fid-sra"}
    assert changed(f"torch-fidelity-inception/{state}") == {"score-clean-fid-sra", "score-torch-fidelity-sra"}
    # Both tools see another network then.
    assert changed(script, "score.extractor=graph") == changed(state, "score.graph=embedded:digits") == set()


def test_a_saved_plan_is_read_back(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.create()
    plan = plan_of(tmp_path)
    save_plan(plan, directory, "sra-bench run")
    assert load_plan(directory) == (plan, "sra-bench run")


@pytest.mark.parametrize("schema", [2, 3])
def test_a_saved_plan_is_read_where_its_run_was_moved_or_copied(tmp_path: Path, schema: int) -> None:
    """Schema 2 has absolute paths."""
    before, after = (RunDirectory(tmp_path / name) for name in ("before", "after"))
    before.create()
    save_plan(plan_of(before.root), before, f"sra-bench run --out {before.root}")
    document = read_json(before.root / "plan.json") or {}
    assert str(tmp_path) not in json.dumps(document)
    if schema == 2:
        write_json(before.root / "plan.json", {**before.located(document), "schema": 2})
    shutil.copytree(before.root, after.root)
    found = load_plan(after)
    assert found is not None
    assert found[0] == plan_of(after.root)
    if schema == 3:
        assert found[1] == f"sra-bench run --out {after.root}"


def test_a_plan_of_schema_1_is_read(tmp_path: Path) -> None:
    """There, the tool of a scoring stage and what it reads are among the inputs."""
    directory = RunDirectory(tmp_path)
    directory.create()
    plan = plan_of(tmp_path)
    save_plan(plan, directory, "sra-bench run")
    document = read_json(tmp_path / "plan.json") or {}
    loaded = {name: document.pop(name) for name in ("name", "runs", "smoke", "notes")}
    for stage in document["stages"]:
        stage |= {"config": stage.pop("job"), "brief": stage.pop("smoke"), "outputs": []}
        stage["inputs"] = {name: place for name, place in stage["inputs"].items() if place}
        if stage["kind"] == "score":
            job = stage["config"]
            stage["config"] = {"images": job["images"]}
            names = ("tool", "reference", "graph", "extractor")
            stage["inputs"] |= {name: job[name] or "" for name in names}
        if stage["kind"] == "sample":
            stage["inputs"]["checkpoint"] = stage["config"]["checkpoint"]
    old = {"schema": 1, "command": "sra-bench run", "stages": document["stages"]}
    write_json(tmp_path / "plan.json", {**old, "loaded": {**loaded, "path": document["manifest"]}})
    assert load_plan(directory) == (plan, "sra-bench run")


def classes_of(tmp_path: Path, *overrides: str) -> str:
    settings = (f"data.images={tmp_path / 'set'}", "train.global_batch=1", *overrides)
    return show_plan(RunRequest(manifest=SMOKE, out=tmp_path / "out", overrides=settings), as_json=False)


def image_folders(root: Path, *names: str) -> None:
    for name in names:
        (root / "set" / name).mkdir(parents=True)
        (root / "set" / name / "a.png").touch()


def test_class_folders_and_their_order_are_shown(tmp_path: Path) -> None:
    image_folders(tmp_path, *map(str, range(1, 11)))
    assert "classes of " in (text := classes_of(tmp_path))
    assert "0 1, 1 10, 2 2, ..., 9 9" in text
    assert "label 1 is '10', not '2'" in text


def test_images_of_a_folder_are_counted(tmp_path: Path) -> None:
    image_folders(tmp_path, *map(str, range(10)))
    (tmp_path / "set" / "0" / "notes.txt").touch()
    plan = plan_of(
        tmp_path,
        f"data.images={tmp_path / 'set'}",
        "train.global_batch=4",
        "train.steps=null",
        "train.epochs=3",
        "train.milestones=[]",
    )
    images, latents, train = plan.stages[:3]
    # Three epochs of ten images, each of two whole batches.
    assert train.step == 3 * (10 // 4)
    assert images.disk.bytes == 10 * 32 * 32 * 3
    assert latents.disk.bytes == 10 * 8 * 8 * 8 * 4
    with pytest.raises(UserError, match=r"train\.global_batch: expected at most the 10 images of the data, got 16"):
        classes_of(tmp_path, "train.global_batch=16")


def test_classes_of_finished_images_are_those_of_their_record(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set", "w") as archive:
        archive.writestr("unread", b"")
    assert "classes of" not in classes_of(tmp_path)
    plan = make_plan(load(SMOKE, [f"data.images={tmp_path / 'set'}"]), RunDirectory(tmp_path / "out"))
    write_json(plan.stages[0].directory / "images.json", {"class_names": {"3": "ape", "5": "cat"}})
    assert f"classes of {tmp_path / 'set'}: 3 ape, 5 cat" in classes_of(tmp_path)


@pytest.mark.parametrize(
    ("folders", "problem"),
    [
        (("a", "b", "c"), r"model\.classes: expected the 3 classes .*train\.allow_unused_classes: true.*, got 10"),
        (("train", "val"), r"got folders train, val \(did you mean .*/train\?\)"),
        (("test_set", "training_set"), r"got folders test_set, training_set \(did you mean .*/training_set\?\)"),
        (("trainA", "testA", "unlabeled"), r"did you mean .*/trainA\?"),
        (("all/ape", "all/cat"), r"got folders all \(did you mean .*/all\?\)"),
    ],
)
def test_classes_that_the_data_lack_are_refused(tmp_path: Path, folders: tuple[str, ...], problem: str) -> None:
    image_folders(tmp_path, *folders)
    with pytest.raises(UserError, match=problem):
        classes_of(tmp_path)


def test_a_reference_that_is_several_sets_is_refused(tmp_path: Path) -> None:
    image_folders(tmp_path / "real", "train/ape", "val/ape")
    reference = f"score.reference={tmp_path / 'real' / 'set'}"
    with pytest.raises(UserError, match=r"score\.reference .*: expected one data set, got folders train, val"):
        prepare(RunRequest(manifest=SMOKE, overrides=(reference,)))
    assert prepare(RunRequest(manifest=SMOKE, overrides=(f"{reference}/train",))).plan.absent == ()


def test_classes_of_a_listing_are_counted(tmp_path: Path) -> None:
    image_folders(tmp_path, "00000")
    write_json(tmp_path / "set" / "dataset.json", {"labels": [["00000/a.png", 3], ["00000/b.png", 5]]})
    with pytest.raises(UserError, match=r"model\.classes: expected the 2 classes"):
        classes_of(tmp_path)
    with pytest.raises(UserError, match=r"model\.classes: expected the 6 classes"):
        classes_of(tmp_path, "model.classes=2")


def test_classes_of_a_zip_are_counted(tmp_path: Path) -> None:
    for number, (name, content) in enumerate(
        [("a/x.png", b""), ("dataset.json", b'{"labels": [["a/x.png", 0],\n["b, 1].png", 1]]}')], start=1
    ):
        with zipfile.ZipFile(tmp_path / "set", "a") as archive:
            archive.writestr(name, content)
        with pytest.raises(UserError, match=rf"model\.classes: expected the {number} classes"):
            classes_of(tmp_path)


def test_a_folder_of_two_names_is_one_class(tmp_path: Path) -> None:
    image_folders(tmp_path, "a", "b")
    (tmp_path / "set" / "c").symlink_to("a")
    assert "0 a, 1 b\n" in classes_of(tmp_path, "model.classes=2") + "\n"


def test_unused_classes_can_be_allowed_and_change_no_key_otherwise(tmp_path: Path) -> None:
    image_folders(tmp_path, "a", "b", "c")
    assert "0 a, 1 b, 2 c" in classes_of(tmp_path, "train.allow_unused_classes=true")
    assert keys(plan_of(tmp_path)) == keys(plan_of(tmp_path, "train.allow_unused_classes=false"))
    assert plan_of(tmp_path).stages[2].key == "eae36c39d5a90152"


def test_samples_that_depend_on_the_number_of_processes_say_so(tmp_path: Path) -> None:
    public = "sample.seeding=public-code"
    finish(plan_of(tmp_path, public))
    for item, said in ((public, "finished; no new run for another number of processes than 8"), ("sample.ranks=8", "")):
        stage = next(s for s in plan_of(tmp_path, public, item).stages if s.kind.name == "sample")
        if stage.directory.is_dir():
            write_json(stage.directory / "samples.json", {"ranks": 8})
        assert state_of(stage, RunDirectory(tmp_path))[1].startswith(said)
