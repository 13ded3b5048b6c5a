"""The manifests in manifests/: they load, plan without anything at hand, and say what their rows' protocols say."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.manifest.schema import Run, load
from benchmark.manifest.smoke_form import scaled
from benchmark.plan.plan import make_plan
from benchmark.plan.run_directory import RunDirectory
from sra.config import DispersiveSettings, Sra2Settings, TrainConfig, to_plain

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "manifests").glob("*.yaml"))
REGISTRY = yaml.safe_load((ROOT / "benchmark" / "published" / "published.yaml").read_text())
ROWS = {row["id"]: row for row in REGISTRY["rows"]}
# Rows that no manifest names, and why.
NOT_RUN = {
    "sit-b2-sra-256-400k-rerun": "the same settings as sit-b2-sra-256-400k",
    "sit-xl2-repa-256-400k": "needs an external encoder",
    "sit-xl2-repa-256-800ep-cfg": "needs an external encoder",
    "sit-xl2-repa-256-4m": "needs an external encoder",
    "sit-xl2-256-7m-selfflow-table": "sit-xl2-256-7m, printed by another paper",
    **{row: "the training of its SDE row, sampled by an ODE" for row in ROWS if row.endswith("2-256-400k-ode")},
    **{r: "read in a summary only" for r in ROWS if ROWS[r]["kind"] == "note" and ROWS[r]["papers"] == ["sra2"]},
    **{row: "the same settings as the paper's row" for row in ROWS if row.endswith("-diversedit")},
    **{row: "another point of a curve" for row in ROWS if row.endswith(("-256-100k-fid10k", "-256-800k-fid10k"))},
    "sit-b2-single-as-256-400k-fid10k": "one part of a method, no variant yet",
}


def settings_of(section: str, name: str) -> dict[str, Any]:
    """A protocol or training of the registry with what it extends filled in."""
    settings = dict(REGISTRY[section][name])
    while "extends" in settings:
        settings = {**REGISTRY[section][settings.pop("extends")], **settings}
    return settings


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("IMAGENET", raising=False)


def runs() -> list[Run]:
    return [run for path in MANIFESTS for run in load(path).runs]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_plans_with_neither_data_nor_network(path: Path, tmp_path: Path) -> None:
    loaded = load(path)
    assert loaded.name == path.stem
    plan = make_plan(loaded, RunDirectory(tmp_path))
    assert plan.stages
    embedded = path.stem in ("smoke", "digits")
    assert bool(plan.absent) != embedded


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_names_rows_that_exist(path: Path) -> None:
    named = [run.published for run in load(path).runs if run.published]
    assert set(named) <= ROWS.keys()
    assert named or path.stem in ("smoke", "digits")


def test_every_row_is_run_or_said_not_to_be() -> None:
    named = {run.published for run in runs() if run.published}
    assert named.isdisjoint(NOT_RUN)
    assert named | NOT_RUN.keys() == ROWS.keys()


@pytest.mark.parametrize("run", [r for r in runs() if r.published], ids=lambda r: f"{r.variant}-{r.published}")
def test_settings_are_those_of_the_rows_protocol(run: Run) -> None:
    assert run.published is not None
    row = ROWS[run.published]
    protocol = settings_of("protocols", row["protocol"])
    assert run.model.resolution == row["resolution"]
    if row["protocol"] == "evaluator-only":
        assert run.samples is not None
        return
    family, size, patch = row["model"].replace("/", "-").split("-")
    assert (run.model.family, run.model.size, run.model.patch) == (family.lower(), size, int(patch))
    sample = run.sample
    assert sample.sampler in protocol["sampler"] if "least_steps" in protocol else sample.sampler == protocol["sampler"]
    assert sample.sampler == "dopri5" or sample.steps == protocol["steps"]
    assert sample.cfg == protocol["cfg"]
    assert sample.precision == protocol.get("precision", "tf32")
    if protocol["cfg"] > 1:
        assert list(sample.guidance_interval) == protocol.get("guidance_interval", [0.0, 1.0])
        assert sample.cfg_channels == protocol.get("cfg_channels", "all")
    assert sample.images == row.get("images", protocol["images"])
    assert (sample.labels, sample.weights, sample.seeding) == (protocol["labels"], "ema", "per-image")
    assert run.codec.path == f"asset:{protocol['vae']}"
    assert run.score.reference == f"asset:imagenet{row['resolution']}-reference"
    if run.checkpoint is None:
        assert_trained_as_published(run, row)


def assert_trained_as_published(run: Run, row: dict[str, Any]) -> None:
    assert run.train is not None
    assert (run.train.steps, run.train.epochs) == (row.get("steps"), row.get("epochs"))
    training = settings_of("training", row["training"])
    assert training.get("flip") in (None, run.train.flip)
    for name in ("global_batch", "lr"):
        assert getattr(run.train, name) == training.get(name, getattr(TrainConfig(steps=1), name))
    assert run.train.ema.decay == training["ema_decay"]
    wanted = row.get("align")
    if wanted is None:
        assert run.align is None
        return
    wanted = {"kind": wanted} if isinstance(wanted, str) else wanted
    found = json.loads(json.dumps(to_plain(run.align)))
    for key, value in wanted.items():
        assert {**value, **found[key]} == found[key] if isinstance(value, dict) else found[key] == value


# What a smoke run may change; everything else must stay as the manifest has it.
SCALED = {
    *(f"data.{k}" for k in ("images", "latents", "split", "labels")),
    *(f"codec.{k}" for k in ("path", "revision", "scale", "factor", "channels")),
    *(f"model.{k}" for k in ("size", "resolution", "classes")),
    *(
        f"train.{k}"
        for k in ("steps", "epochs", "global_batch", "warmup_steps", "milestones", "checkpoint_every", "log_every")
    ),
    *(f"sample.{k}" for k in ("steps", "images", "milestone_images", "batch", "shard")),
    *(f"score.{k}" for k in ("tools", "reference", "graph")),
    *(f"{k}.precision" for k in ("train", "sample")),
}


def flat(run: Run) -> dict[str, Any]:
    plain = to_plain(run)
    sections = {k: v for k, v in plain.items() if isinstance(v, dict) and k != "align"}
    rest = {k: v for k, v in plain.items() if k not in sections}
    return {**rest, **{f"{s}.{k}": v for s, values in sections.items() for k, v in values.items()}}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_the_smoke_form_changes_only_sizes_and_data(path: Path) -> None:
    full = load(path)
    small = scaled(full)
    assert [r.variant for r in small.runs] == [r.variant for r in full.runs]
    for before, after in zip(full.runs, small.runs, strict=True):
        old, new = flat(before), flat(after)
        assert old.keys() == new.keys()
        assert {k for k in old if old[k] != new[k]} - {"align"} <= SCALED
        assert after.model.dimensions.depth == before.model.dimensions.depth
        if isinstance(before.align, Sra2Settings) and before.align.mlp_width is not None:
            assert isinstance(after.align, Sra2Settings)
            assert after.align.mlp_width is not None
            # The ratio to the network's width stays.
            widths = before.model.dimensions.width, after.model.dimensions.width
            assert before.align.mlp_width / widths[0] == after.align.mlp_width / widths[1]
            assert after.align == dataclasses.replace(before.align, mlp_width=after.align.mlp_width)
        elif isinstance(before.align, DispersiveSettings):
            assert after.align == dataclasses.replace(before.align, local_batch=2)
        else:
            assert after.align == before.align
        assert after.model.resolution * 8 == before.model.resolution or before.model.resolution == 32
        assert after.score.tools == ("adm",)
        for precision in (c.precision for c in (before.train, before.sample) if c and c.precision != "fp32"):
            assert before.samples or any(before.variant in n and f"{precision}" in n for n in small.notes)
        for given in (before.checkpoint, before.samples):
            assert given is None or any(given in note for note in small.notes)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_the_smoke_form_needs_nothing_from_outside(path: Path, tmp_path: Path) -> None:
    plan = make_plan(scaled(load(path)), RunDirectory(tmp_path))
    assert plan.absent == ()
    given = [r for r in plan.loaded.runs if r.checkpoint or r.samples]
    assert bool(given) == any(stage.kind.name == "standin" for stage in plan.stages)
    assert {stage.batch for stage in plan.stages if stage.kind.name == "train"} <= {"train"}


def test_guidance_is_met_inside_and_outside_its_interval_in_few_steps() -> None:
    from benchmark.plan.counts import evaluations

    for run in scaled(load(ROOT / "manifests" / "sit_xl_256.yaml")).runs:
        assert run.sample.steps < evaluations(run.sample) < 2 * run.sample.steps


def test_run_refuses_and_says_how_to_get_each_input(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmark.cli.main",
        "run",
        "manifests/sit_xl_256.yaml",
        "--out",
        str(tmp_path / "out"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    for part in (
        "`sra-bench fetch sd-vae-ft-ema`",
        "`sra-bench fetch inception-graph`",
        "environment variable IMAGENET is not set",
        "kaggle",
    ):
        assert part in done.stderr
    assert not any((tmp_path / "out" / "stages").iterdir())
