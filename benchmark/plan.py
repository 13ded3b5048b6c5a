"""From a manifest to stages, purely: each with its key, settings, inputs, argv and outputs. Nothing is run here."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.manifest import Loaded, ManifestError, Run
from benchmark.store import RunDirectory, fingerprint, is_done, key_of, read_json
from sra.config import SPLITS, ImagesJob, LatentsJob, SampleJob, TrainJob, to_plain

# Raised when a stage's outputs change for the same settings: finished stages of older versions run again.
VERSIONS = {"images": 1, "latents": 1, "train": 1, "sample": 1, "score": 1}
STAGES = (*VERSIONS, "report")
MODULES = {"adm": "evaluator.adm", "clean-fid": "evaluator.cleanfid", "torch-fidelity": "evaluator.fidelity"}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One unit of work with a directory of its own."""

    kind: str
    """images, latents, train, sample or score."""
    name: str
    """What it is for, as shown and as in the directory's name."""
    key: str
    """Hash of all that its outputs depend on."""
    directory: Path
    config: dict[str, Any]
    """The settings of its job, as `stage.json` holds them."""
    inputs: dict[str, str]
    """Places it reads."""
    outputs: tuple[str, ...]
    """Files it must leave, relative to the directory."""
    variants: tuple[str, ...] = ()
    """Variants that need it."""
    step: int | None = None
    """Optimizer step of the weights that are sampled or scored; None: a checkpoint's."""

    @property
    def batch(self) -> str:
        """Stages of one batch are run by one process: starting torch or TensorFlow costs seconds."""
        if self.kind == "sample":
            return "sample"
        if self.kind == "score":
            return " ".join(self.inputs[name] for name in ("tool", "reference", "graph"))
        return self.name


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All stages in an order that runs, and the runs they serve."""

    loaded: Loaded
    stages: tuple[Stage, ...]
    absent: tuple[str, ...]
    """Inputs that are not there: `run` refuses, `plan` only says so."""


class _Planner:
    """Collects stages, one per key: variants share what they can."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.stages: dict[str, Stage] = {}
        self.absent: list[str] = []

    def add(
        self,
        kind: str,
        name: str,
        facts: Any,
        config: Any,
        outputs: tuple[str, ...],
        *,
        inputs: dict[str, str] | None = None,
        variant: str = "",
        step: int | None = None,
    ) -> Stage:
        key = key_of([kind, VERSIONS[kind], facts])
        known = self.stages.get(key)
        others = known.variants if known else ()
        stage = Stage(
            kind=kind,
            name=known.name if known else name,
            key=key,
            directory=known.directory if known else self.directory.stages / f"{name}-{key[:8]}",
            config=to_plain(config),
            inputs=inputs or {},
            outputs=outputs,
            variants=others if variant in others else (*others, variant),
            step=step,
        )
        self.stages[key] = stage
        return stage

    def place(self, path: str) -> list[Any]:
        """Identity of an input; remembers it when it is absent."""
        identity = fingerprint(path)
        if identity[-1] == "absent" and path not in self.absent:
            self.absent.append(path)
        return identity


def make_plan(loaded: Loaded, directory: RunDirectory) -> Plan:
    """Every stage that the manifest's runs need.

    Raises:
        ManifestError: runs that cannot stand in one table.
    """
    planner = _Planner(directory)
    for run in loaded.runs:
        _plan_run(planner, run)
    order = {kind: number for number, kind in enumerate(VERSIONS)}
    stages = sorted(planner.stages.values(), key=lambda s: (order[s.kind], s.batch if s.kind == "score" else ""))
    return Plan(loaded=loaded, stages=tuple(stages), absent=tuple(planner.absent))


def _plan_run(planner: _Planner, run: Run) -> None:
    images = _images(planner, run) if _needs_images(run) else None
    points: list[tuple[int | None, str, Any]]
    if run.checkpoint is not None:
        points = [(None, run.checkpoint, planner.place(run.checkpoint))]
    else:
        points = _trained(planner, run, images)
    for step, weights, identity in points:
        _sample_and_score(planner, run, images, step, weights, identity)


def _needs_images(run: Run) -> bool:
    return run.data.images is not None and (run.checkpoint is None or run.score.reference == "images")


def _images(planner: _Planner, run: Run) -> Stage:
    assert run.data.images is not None
    job = ImagesJob(data=run.data, resolution=run.model.resolution)
    facts = [planner.place(run.data.images), run.data.split, run.data.labels, run.model.resolution]
    return planner.add("images", "images", facts, job, ("images/dataset.json",), variant=run.variant)


def _trained(planner: _Planner, run: Run, images: Stage | None) -> list[tuple[int | None, str, Any]]:
    """Latents and training; returns (step, weights file, identity) of each set of weights to sample."""
    assert run.train is not None
    job = LatentsJob(data=run.data, codec=run.codec, resolution=run.model.resolution, flipped=run.train.flip)
    source = images.key if images else planner.place(str(run.data.latents))
    codec = [to_plain(run.codec), _codec_identity(planner, run)]
    latents = planner.add(
        "latents",
        "latents",
        [source, codec, run.data.latent_dtype, run.train.flip],
        job,
        ("moments.npy", *(("flipped.npy",) if run.train.flip else ()), "labels.npy", "latents.json"),
        inputs={"images": str(images.directory)} if images else {},
        variant=run.variant,
    )
    train = TrainJob(seed=run.seed, codec=run.codec, model=run.model, train=run.train, align=run.align)
    steps = [*run.train.milestones, _total_steps(run)]
    outputs = tuple(f"weights/step-{step:08d}.safetensors" for step in steps)
    stage = planner.add(
        "train",
        f"train-{run.variant}",
        [latents.key, to_plain(train)],
        train,
        outputs,
        inputs={"latents": str(latents.directory)},
        variant=run.variant,
    )
    return [(step, str(stage.directory / name), [stage.key, step]) for step, name in zip(steps, outputs, strict=True)]


def _total_steps(run: Run) -> int:
    """Optimizer steps; `epochs` needs a data set whose size is known before it is read."""
    assert run.train is not None
    if run.train.steps is not None:
        return run.train.steps
    counts = {"embedded:digits": 1797, **{split: images for split, (images, _) in SPLITS.items()}}
    found = read_json(Path(run.data.latents or "") / "latents.json") or {}
    count = counts.get(run.data.images or "") or counts.get(run.data.split) or found.get("count")
    if not isinstance(count, int):
        raise ManifestError(
            f"train.epochs: the number of images of split {run.data.split!r} is not known before they are read; "
            "give train.steps, or split: imagenet-train"
        )
    assert run.train.epochs is not None
    return run.train.epochs * (count // run.train.global_batch)


def _codec_identity(planner: _Planner, run: Run) -> Any:
    """A hub id names its content by its revision; a folder by what is in it."""
    path = run.codec.path
    is_place = path.startswith(("embedded:", "/", ".", "~")) or Path(path).exists()
    return planner.place(path) if is_place else [path, run.codec.revision]


def _sample_and_score(
    planner: _Planner, run: Run, images: Stage | None, step: int | None, weights: str, identity: Any
) -> None:
    early = step is not None and step != _total_steps(run)
    settings = run.sample
    if early and settings.milestone_images:
        settings = dataclasses.replace(settings, images=settings.milestone_images)
    settings = dataclasses.replace(settings, milestone_images=None)
    job = SampleJob(seed=settings.seed or 0, codec=run.codec, model=run.model, sample=settings, checkpoint=weights)
    facts = {**to_plain(job), "checkpoint": identity, "codec_identity": _codec_identity(planner, run)}
    suffix = f"-step{step}" if early else ""
    sample = planner.add(
        "sample",
        f"sample-{run.variant}{suffix}",
        facts,
        job,
        ("samples.npz", "labels.npy", "grid.png"),
        inputs={"checkpoint": weights},
        variant=run.variant,
        step=step,
    )
    reference, reference_identity = _reference(planner, run, images)
    graph_identity = planner.place(run.score.graph)
    for tool in ("adm",) if early else run.score.tools:
        planner.add(
            "score",
            f"score-{tool}-{run.variant}{suffix}",
            [sample.key, tool, reference_identity, graph_identity],
            {},
            ("scores.json",),
            inputs={
                "tool": tool,
                "samples": str(sample.directory / "samples.npz"),
                "reference": reference,
                "graph": run.score.graph,
            },
            variant=run.variant,
            step=step,
        )


def _reference(planner: _Planner, run: Run, images: Stage | None) -> tuple[str, Any]:
    if run.score.reference == "images" and images is not None:
        return str(images.directory / "images"), images.key
    return run.score.reference, planner.place(run.score.reference)


def argv(stages: list[Stage], directory: RunDirectory, processes: int = 1) -> list[str]:
    """The command line of one batch of stages; the same in a container and on a cluster."""
    first = stages[0]
    if first.kind == "score":
        command = [sys.executable, "-m", MODULES[first.inputs["tool"]]]
        command += ["--samples", *(s.inputs["samples"] for s in stages)]
        command += ["--json", *(str(s.directory / "scores.json") for s in stages)]
        command += ["--reference", first.inputs["reference"], "--graph", first.inputs["graph"]]
        return [*command, "--cache", str(directory.root / "cache")]
    module = ["-m", f"sra.{first.kind}"]
    launcher = [sys.executable, *module]
    if processes > 1 and first.kind in ("train", "sample"):
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        launcher = [sys.executable, *run, *module]
    command = [*launcher, "--config", *(str(s.directory / "stage.json") for s in stages)]
    for option in ("images", "latents"):
        if option in first.inputs:
            command += [f"--{option}", first.inputs[option]]
    return [*command, "--out", *(str(s.directory) for s in stages)]


def state_of(stage: Stage, directory: RunDirectory) -> tuple[str, str]:
    """(`done` or `to run`, why)."""
    if is_done(stage.directory, stage.key):
        return "done", "finished with these settings"
    if (stage.directory / "done.json").is_file():
        return "to run", "its outputs are missing or damaged"
    if (stage.directory / "stage.json").is_file():
        return "to run", "started, not finished: continues"
    changed = _changed(stage, directory)
    return "to run", changed or "new"


def _changed(stage: Stage, directory: RunDirectory) -> str | None:
    """What differs from an earlier stage of the same name."""
    earlier = sorted(directory.stages.glob(f"{stage.name}-????????/stage.json"), key=lambda p: p.stat().st_mtime)
    document = read_json(earlier[-1]) if earlier else None
    if document is None:
        return None
    before, after = _flat(document.get("config", {})), _flat(stage.config)
    names = [n for n in sorted(before.keys() | after.keys()) if before.get(n) != after.get(n) and n != "checkpoint"]
    if not names:
        return "changed: an input"
    shown = ", ".join(f"{n} {before.get(n)!r} -> {after.get(n)!r}" for n in names[:3])
    return f"changed: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        parts = [_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items()]
        return {k: v for part in parts for k, v in part.items()}
    return {prefix: value}
