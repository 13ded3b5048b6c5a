"""Turn a manifest into a plan: stages with their keys, settings, inputs and outputs. Runs nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.assets.catalogue import located, weights_of
from benchmark.manifest.schema import Loaded, ManifestError, Run, ScoreConfig
from benchmark.plan.counts import image_count
from benchmark.plan.run_directory import RunDirectory, fingerprint, is_done, key_of, read_json
from benchmark.plan.stages import EXTRACTOR_TOOLS, SCORE, STAGE_KINDS, Inputs, Job, ScoreJob, Stage, kind_of
from sra.config import ImagesJob, LatentsJob, SampleJob, StandInJob, TrainJob, to_plain


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of a manifest, in running order."""

    loaded: Loaded
    stages: tuple[Stage, ...]
    absent: tuple[str, ...]
    """Missing inputs: `run` refuses them, `plan` lists them."""


class _Planner:
    """Collects stages, one for each key: variants share those with equal settings and inputs."""

    def __init__(self, directory: RunDirectory, smoke: bool) -> None:
        self.directory, self.smoke = directory, smoke
        self.stages: dict[str, Stage] = {}
        self.absent: list[str] = []

    def add(
        self,
        name: str,
        facts: Any,
        job: Job,
        *,
        inputs: Inputs | None = None,
        variant: str,
        step: int | None = None,
    ) -> Stage:
        """The stage for a job: a new one, or one with equal facts that another variant has added."""
        kind = kind_of(job)
        key = key_of([kind.name, kind.version, facts])
        known = self.stages.get(key)
        others = known.variants if known else ()
        stage = Stage(
            name=known.name if known else name,
            key=key,
            directory=known.directory if known else self.directory.stages / f"{name}-{key[:8]}",
            job=job,
            inputs=inputs or Inputs(),
            variants=others if variant in others else (*others, variant),
            step=step,
            smoke=self.smoke,
        )
        self.stages[key] = stage
        return stage

    def place(self, path: str) -> list[Any]:
        """Fingerprint of an input; notes it as absent if it is missing."""
        identity = fingerprint(path)
        if identity[-1] == "absent" and path not in self.absent:
            self.absent.append(path)
        return identity


def make_plan(loaded: Loaded, directory: RunDirectory) -> Plan:
    """List every stage that the runs of a manifest need.

    Raises:
        ManifestError: `train.epochs` of a data set of unknown size.
    """
    planner = _Planner(directory, loaded.smoke)
    for run in loaded.runs:
        _plan_run(planner, _located(run))
    return Plan(loaded=loaded, stages=in_order(planner.stages.values()), absent=tuple(planner.absent))


def in_order(stages: Collection[Stage]) -> tuple[Stage, ...]:
    """Stages by kind, and those of one batch side by side."""
    order = list(STAGE_KINDS)
    batches: dict[str, int] = {}
    for stage in stages:
        batches.setdefault(stage.batch, len(batches))
    return tuple(sorted(stages, key=lambda stage: (order.index(stage.kind.name), batches[stage.batch])))


def _located(run: Run) -> Run:
    """Return the run with `asset:NAME` replaced by paths."""
    path, score, data = located(run.codec.path), run.score, run.data
    return dataclasses.replace(
        run,
        codec=dataclasses.replace(run.codec, path=path),
        score=dataclasses.replace(score, reference=located(score.reference), graph=located(score.graph)),
        data=dataclasses.replace(data, images=_maybe(data.images), latents=_maybe(data.latents)),
        checkpoint=_maybe(run.checkpoint),
        samples=_maybe(run.samples),
    )


def _maybe(place: str | None) -> str | None:
    return None if place is None else located(place)


def _plan_run(planner: _Planner, run: Run) -> None:
    images = _images(planner, run) if run.needs_data and run.data.images is not None else None
    if run.samples is not None:
        count = run.sample.images if planner.smoke else None
        _score(planner, run, images, *_given(planner, run, run.samples), count=count)
        return
    if run.checkpoint is not None:
        _sample_and_score(planner, run, images, None, *_given(planner, run, run.checkpoint))
        return
    for step, weights, identity in _trained(planner, run, images):
        _sample_and_score(planner, run, images, step, weights, identity)


def _given(planner: _Planner, run: Run, place: str) -> tuple[str, Any]:
    """Path and identity of a given file; in a smoke run, of its stand-in."""
    if not planner.smoke:
        return place, planner.place(place)
    images = run.sample.images if run.samples is not None else None
    job = StandInJob(seed=run.seed, codec=run.codec, model=run.model, images=images)
    stage = planner.add(f"standin-{run.variant}", to_plain(job), job, variant=run.variant)
    return str(stage.directory / stage.outputs[0]), [stage.key]


def _images(planner: _Planner, run: Run) -> Stage:
    assert run.data.images is not None
    job = ImagesJob(data=run.data, resolution=run.model.resolution)
    facts = [planner.place(run.data.images), run.data.split, run.data.labels, run.model.resolution]
    return planner.add("images", facts, job, variant=run.variant)


def _trained(planner: _Planner, run: Run, images: Stage | None) -> list[tuple[int | None, str, Any]]:
    """Add latents and training; returns (step, weights file, identity) of each set of weights to sample."""
    assert run.train is not None
    job = LatentsJob(data=run.data, codec=run.codec, resolution=run.model.resolution, flipped=run.train.flip)
    source = images.key if images else planner.place(str(run.data.latents))
    codec = [to_plain(run.codec), _codec_identity(planner, run)]
    latents = planner.add(
        "latents",
        [source, codec, run.data.latent_dtype, run.train.flip],
        job,
        inputs=Inputs(images=str(images.directory) if images else None),
        variant=run.variant,
    )
    train = TrainJob(seed=run.seed, codec=run.codec, model=run.model, train=run.train, align=run.align)
    total = _total_steps(run)
    stage = planner.add(
        f"train-{run.network}",
        [latents.key, to_plain(train)],
        train,
        inputs=Inputs(latents=str(latents.directory)),
        variant=run.variant,
        step=total,
    )
    steps = (*run.train.milestones, total)
    return [(step, str(stage.directory / n), [stage.key, step]) for step, n in zip(steps, stage.outputs, strict=True)]


def _total_steps(run: Run) -> int:
    """Optimizer steps of a training run."""
    assert run.train is not None
    if run.train.steps is not None:
        return run.train.steps
    count = image_count(run.data)
    if not isinstance(count, int):
        raise ManifestError(
            f"train.epochs: expected data of known size, such as split imagenet-train, got split {run.data.split!r}; "
            "set train.steps instead"
        )
    assert run.train.epochs is not None
    return run.train.epochs * (count // run.train.global_batch)


def is_hub_id(place: str) -> bool:
    """Whether the path of a codec is the id of a hub repository rather than a file or folder."""
    return not place.startswith(("embedded:", "/", ".", "~", "$")) and not Path(place).exists()


def _codec_identity(planner: _Planner, run: Run) -> Any:
    """Identity of a codec: id and revision on the hub, or fingerprint of a folder."""
    path = run.codec.path
    return [path, run.codec.revision] if is_hub_id(path) else planner.place(path)


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
    sample = planner.add(f"sample-{run.variant}{suffix}", facts, job, variant=run.variant, step=step)
    place, count = str(sample.directory / "samples.npz"), settings.images
    _score(planner, run, images, place, sample.key, count=count, step=step, early=early)


def _score(
    planner: _Planner,
    run: Run,
    images: Stage | None,
    samples: str,
    identity: Any,
    *,
    count: int | None,
    step: int | None = None,
    early: bool = False,
) -> None:
    """Add the scoring of one sample set of `count` images (None: unknown); at a milestone only with adm."""
    reference, reference_identity = _reference(planner, run, images)
    graph_identity = planner.place(run.score.graph)
    suffix = f"-step{step}" if early else ""
    for tool in ("adm",) if early else run.score.tools:
        job = ScoreJob(
            tool=tool,
            reference=reference,
            graph=run.score.graph,
            extractor=run.score.extractor if tool in EXTRACTOR_TOOLS else None,
            images=count,
        )
        planner.add(
            f"score-{tool}-{run.variant}{suffix}",
            [identity, tool, reference_identity, graph_identity, *_network_of(run.score, tool)],
            job,
            inputs=Inputs(samples=samples),
            variant=run.variant,
            step=step,
        )


def _network_of(score: ScoreConfig, tool: str) -> list[Any]:
    """What else than the graph determines a tool's network: its own weights, if they exist."""
    if tool not in EXTRACTOR_TOOLS:
        return []
    if score.extractor == "graph":
        return ["graph"]
    own = not score.graph.startswith("embedded:")
    return [fingerprint(str(path)) for path in weights_of(tool)] if own else []


def _reference(planner: _Planner, run: Run, images: Stage | None) -> tuple[str, Any]:
    if run.score.reference == "images" and images is not None:
        return str(images.directory / "images"), images.key
    return run.score.reference, planner.place(run.score.reference)


def state_of(stage: Stage, directory: RunDirectory) -> tuple[str, str]:
    """Return (`done` or `to run`, why)."""
    if is_done(stage.directory, stage.key):
        return "done", "finished with these settings"
    if (stage.directory / "done.json").is_file():
        return "to run", "its outputs are missing or damaged"
    if (stage.directory / "stage.json").is_file():
        return "to run", "started, not finished: continues"
    changed = _changed(stage, directory)
    return "to run", changed or "new"


def _changed(stage: Stage, directory: RunDirectory) -> str | None:
    """Settings that differ from the last stage of the same name; None if there is none."""
    earlier = sorted(directory.stages.glob(f"{stage.name}-????????/stage.json"), key=lambda p: p.stat().st_mtime)
    document = read_json(earlier[-1]) if earlier else None
    if document is None:
        return None
    before, after = _flat(upgraded_settings(document)), _flat(to_plain(stage.job))
    # Paths in the run directory differ after a move, and with every change of an earlier stage.
    names = sorted((before.keys() | after.keys()) - {"checkpoint", "reference"})
    names = [name for name in names if before.get(name) != after.get(name)]
    if not names:
        return "changed: an input"
    shown = ", ".join(f"{n} {before.get(n)!r} -> {after.get(n)!r}" for n in names[:3])
    return f"changed: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def upgraded_settings(document: dict[str, Any]) -> dict[str, Any]:
    """Settings of a stage's JSON form; schema 1 has some of those of scoring among the inputs."""
    settings: dict[str, Any] = document.get("config", {})
    inputs = document.get("inputs", {})
    if document.get("kind") == SCORE.name and "tool" in inputs:
        settings = {n: inputs[n] or None for n in ("tool", "reference", "graph", "extractor")} | settings
    return settings


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        parts = [_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items()]
        return {k: v for part in parts for k, v in part.items()}
    return {prefix: value}
