"""Runs that match a published row in everything, made from the registry: nothing here types a published number."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.clusters.slurm import queue
from benchmark.manifest.schema import Run, load
from benchmark.plan.plan import Plan, make_plan
from benchmark.plan.run_directory import RunDirectory, write_json
from benchmark.plan.saved_plan import record_session, save_plan
from benchmark.published.comparability import Evidence
from benchmark.published.registry import load_registry
from benchmark.published.schema import Registry, Row
from evaluator.tools import score_record
from evaluator.tools.score_record import AdmSettings, FeatureWidths, ImageSetFacts, NamedFile, ScoreRecord
from sra.config import ALIGNMENTS, to_plain


def settings_of(registry: Registry, row: Row) -> dict[str, Any]:
    """A variant's settings that agree with a row, as a manifest writes them."""
    protocol = registry.protocols[row.protocol]
    references = registry.evaluator.references
    score = {
        "tools": ["adm"],
        "reference": f"/assets/{references[row.resolution]}",
        "graph": f"/assets/{registry.evaluator.graph}",
    }
    if protocol.scores_only:
        model = {"family": "sit", "size": "XL", "resolution": row.resolution, "convention": "sra"}
        return {"model": model, "score": score, "samples": f"/assets/{row.samples}", "published": row.id}
    family, size, patch = row.size
    sample = {
        "sampler": protocol.samplers[-1],
        "steps": protocol.steps or protocol.least_steps,
        "cfg": protocol.cfg,
        "cfg_channels": protocol.cfg_channels,
        "guidance_interval": list(protocol.guidance_interval),
        "images": registry.images(row),
        "precision": protocol.precision,
        "labels": protocol.labels,
    }
    convention = row.convention or "sra"
    variant: dict[str, Any] = {
        "model": {
            "family": family,
            "size": size,
            "patch": patch,
            "resolution": row.resolution,
            "convention": convention,
        },
        "codec": {"path": f"{registry.codec.hub}/{protocol.vae}"},
        "sample": sample,
        "score": score,
        "published": row.id,
    }
    if row.checkpoint:
        return {**variant, "checkpoint": f"/assets/{row.checkpoint}"}
    plain = {k: v for k, v in registry.training[row.training or ""].model_dump().items() if v is not None}
    ema = {key: plain.pop(f"ema_{key}") for key in ("decay", "schedule") if f"ema_{key}" in plain}
    plain.pop("interpolant", None)
    length = {"steps": registry.steps(row)}
    align = None
    if row.align_kind == "sra2" or (row.unsettled and row.align_kind in ALIGNMENTS):
        not_printed = {"sra2": {"mlp_activation": "silu"}, "layersync": {"blocks": [4, 8]}}
        align = {"kind": row.align_kind, **not_printed.get(row.align_kind, {})}
    elif row.align_kind in ALIGNMENTS:
        align = to_plain(row.alignment())
    return {**variant, "train": {**plain, **length, "ema": ema}, "align": align}


def evidence_of(registry: Registry, row: Row) -> Evidence:
    """What a run of a row leaves behind when everything is as published."""
    shape = (row.resolution, row.resolution, 3)
    samples = f"/run/{row.samples or 'samples.npz'}"
    reference = f"/assets/{registry.evaluator.references[row.resolution]}"
    digest = hashlib.sha256(row.id.encode()).hexdigest()
    record = ScoreRecord(
        tool="adm",
        version="1",
        metrics={name: float(value) for name, value in row.printed.items()},
        samples=ImageSetFacts(path=samples, sha256=digest, count=registry.images(row), shape=shape),
        reference=ImageSetFacts(path=reference, sha256="1" * 64, count=10_000, shape=shape),
        graph=NamedFile(name=registry.evaluator.graph, sha256="0" * 64),
        settings=AdmSettings(
            stored_statistics=registry.evaluator.stored_statistics,
            trusted_sample_statistics=False,
            widths=FeatureWidths(pool=2048, spatial=2023, classes=1008),
        ),
    )
    return Evidence(record=record, images=registry.data.images, classes=registry.data.classes)


def write_manifest(folder: Path, variants: dict[str, Any], **common: Any) -> Path:
    """A manifest of such variants."""
    first = next(iter(variants.values()))
    document = {
        "name": "synthetic",
        "data": {"latents": "/data/imagenet", "split": "imagenet-train"},
        "model": first["model"],
        "score": first["score"],
        "variants": variants,
        **common,
    }
    path = folder / "synthetic.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry()


@pytest.fixture(scope="session")
def matching(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Callable[[Row], tuple[Run, Evidence]]:
    """The run and evidence that agree with a row."""
    folder, made = tmp_path_factory.mktemp("matching"), {}

    def make(row: Row) -> tuple[Run, Evidence]:
        if row.id not in made:
            made[row.id] = load(write_manifest(folder, {"row": settings_of(registry, row)})).runs[0]
        return made[row.id], evidence_of(registry, row)

    return make


@pytest.fixture
def finished(tmp_path: Path, registry: Registry) -> Callable[..., tuple[Path, Plan]]:
    """A run directory with the files of a finished run: stage records, logs, scores.

    Called with rows by variant and changes to their ADM metrics (and intervals) by run.
    """

    def make(
        rows: dict[str, str],
        metrics: dict[str, dict[str, float]] | None = None,
        intervals: dict[str, dict[str, list[float]]] | None = None,
        overrides: list[str] | None = None,
        name: str = "run",
    ) -> tuple[Path, Plan]:
        variants = {variant: settings_of(registry, registry.row(row)) for variant, row in rows.items()}
        loaded = load(write_manifest(tmp_path, variants), overrides or ())
        directory = RunDirectory(tmp_path / name)
        directory.create()
        plan = make_plan(loaded, directory)
        for stage in plan.stages:
            _finish(registry, plan, stage, metrics or {}, intervals or {})
        save_plan(plan, directory, "sra-bench run synthetic.yaml")
        record_session(plan, directory, {})
        return directory.root, plan

    return make


def _finish(registry: Registry, plan: Plan, stage: Any, metrics: dict[str, Any], intervals: dict[str, Any]) -> None:
    """The files of one finished stage."""
    stage.directory.mkdir(parents=True, exist_ok=True)
    write_json(stage.directory / "stage.json", stage.record(["python", "-m", stage.kind.module(stage.job)]))
    facts = {"count": registry.data.images, "classes": registry.data.classes}
    if stage.kind.name == "latents":
        write_json(stage.directory / "latents.json", facts)
    if stage.kind.name == "train":
        rows = [{"step": s, "loss": 1.0, "generation": 0.9, "alignment": None, "seconds": s / 10} for s in (100, 200)]
        (stage.directory / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if stage.kind.name == "sample":
        write_json(stage.directory / "seconds.json", {"seconds": 10.0, "images": stage.job.sample.images})
    if stage.kind.name == "score":
        variant = stage.variants[0]
        run = next(run for run in plan.loaded.runs if run.variant == variant)
        row = registry.row(run.published or "")
        record = evidence_of(registry, row).record
        values = {**record.metrics, **metrics.get(variant, {})}
        changes = {"tool": stage.tool, "metrics": values, "intervals": intervals.get(variant, {})}
        score_record.write(
            ScoreRecord.model_validate({**record.model_dump(), **changes}), stage.directory / "scores.json"
        )
    write_json(stage.directory / "done.json", {"key": stage.key, "outputs": {}})


@pytest.fixture
def small_settings() -> tuple[str, ...]:
    """Overrides of the smoke manifest, with which every stage takes seconds."""
    training = ("train.steps=4", "train.milestones=[]", "train.log_every=1", "train.checkpoint_every=2")
    sampling = ("sample.images=8", "sample.steps=2", "sample.batch=4", "sample.shard=4")
    return (*training, "train.global_batch=8", *sampling)


# A fake Slurm on PATH: it notes what is asked of it in a folder, and says what the folder holds.
COMMANDS = {
    "sinfo": 'printf "gpu\\ncpu\\n"',
    "squeue": 'cat "$FAKE/queue" 2>/dev/null || true',
    "scancel": 'echo "$*" >>"$FAKE/scancel"',
    "sbatch": """\
if [ "$1" = --test-only ]; then
  if [ -e "$FAKE/lint" ]; then cat "$FAKE/lint" >&2; exit 1; fi
  exit 0
fi
count=$(($(wc -l <"$FAKE/sbatch") + 1))
if [ "$count" = "$(cat "$FAKE/refused" 2>/dev/null)" ]; then
  echo "sbatch: error: Batch job submission failed: too many" >&2; exit 1
fi
echo "$*" >>"$FAKE/sbatch"
echo $((100 + count))""",
    "srun": """\
while [ $# -gt 0 ]; do case "$1" in --*) shift ;; *) break ;; esac; done
exec "$@\"""",
    "scontrol": 'echo "$*" >>"$FAKE/scontrol"',
}


class FakeSlurm:
    """The folder of the fake, and what was asked of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir(parents=True)
        (root / "sbatch").touch()
        for name, body in COMMANDS.items():
            self.replace(name, body)
            (root / "bin" / name).chmod(0o755)

    def replace(self, command: str, body: str) -> None:
        """Have a command do something else."""
        (self.root / "bin" / command).write_text(f"#!/bin/bash\n{body}\n")

    def asked(self, command: str) -> list[str]:
        path = self.root / command
        return path.read_text().splitlines() if path.is_file() else []

    def queue(self, *rows: tuple[int, str, str, str]) -> None:
        """Rows of number, state, reason, name; a running job is on n0."""
        nodes = {"RUNNING": "n0"}
        lines = [f"{number}|{state}|{nodes.get(state, '')}|{why}|{name}" for number, state, why, name in rows]
        (self.root / "queue").write_text("\n".join(lines) + "\n")


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Its commands stand before any real ones."""
    fake = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{fake.root / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(fake.root))
    monkeypatch.setattr(queue, "RETRY_SECONDS", (0.0, 0.0, 0.0))
    return fake
