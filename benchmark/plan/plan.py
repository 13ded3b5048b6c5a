"""Turn a manifest into a plan: stages with their keys, settings, inputs and outputs. Runs nothing."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmark.assets.catalogue import located, weights_of
from benchmark.manifest.schema import Loaded, ManifestError, Run, ScoreConfig, look_tool
from benchmark.plan.counts import image_count, reference_images
from benchmark.plan.inputs import Look, Place, difference, examine
from benchmark.plan.run_directory import PLAN, RunDirectory, damaged_outputs, key_of, read_json
from benchmark.plan.stages import (
    EXTRACTOR_TOOLS,
    SCORE,
    STEPS,
    Inputs,
    Job,
    ScoreJob,
    Stage,
    StageKind,
    kind_of,
    read_stage,
    weights_name,
)
from evaluator.tools import FURTHER_SETS, NETWORKS, PROTOCOL_TOOLS, further_sets
from sra.common.files import is_embedded
from sra.config import (
    DataConfig,
    ImagesJob,
    LatentsJob,
    SampleJob,
    StandInJob,
    TrainJob,
    to_plain,
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of a manifest, in running order."""

    loaded: Loaded
    stages: tuple[Stage, ...]
    absent: tuple[str, ...]
    """Missing inputs: `run` refuses those of stages that will run, `plan` lists them."""

    def until(self, kind: str) -> tuple[Stage, ...]:
        """The stages up to and including a kind."""
        return tuple(stage for stage in self.stages if stage.place_in_order <= STEPS.index(kind))


Form = Literal["now", "before"]
"""`before`: keys of version 0.1.0, in which an input was its place, size and time."""


@dataclass(frozen=True)
class _Either:
    """A part of a key that version 0.1.0 had otherwise."""

    now: Any
    before: Any


def _in_form(facts: Any, form: Form) -> Any:
    if isinstance(facts, (Place, _Either)):
        return getattr(facts, form)
    if isinstance(facts, dict):
        return {name: _in_form(value, form) for name, value in facts.items()}
    return [_in_form(value, form) for value in facts] if isinstance(facts, (list, tuple)) else facts


def _places_in(facts: Any) -> Iterator[Place]:
    if isinstance(facts, Place):
        yield facts
    elif isinstance(facts, (dict, list, tuple)):
        for value in facts.values() if isinstance(facts, dict) else facts:
            yield from _places_in(value)


Facts = Callable[[dict[str, Any]], Any]
"""From a job's settings to everything that its outputs depend on."""


@dataclass(frozen=True)
class _Begun:
    """A stage that an earlier run has begun."""

    directory: Path
    document: dict[str, Any]
    """Its `stage.json`."""

    @property
    def key(self) -> str:
        return str(self.document.get("key"))

    @property
    def identity(self) -> str | None:
        """None: version 0.1.0 began it."""
        return self.document.get("identity")


class _Planner:
    """Collects stages, one for each key: variants share those with equal settings and inputs."""

    def __init__(self, directory: RunDirectory, smoke: bool, accept_moved: bool, look: Look) -> None:
        self.directory, self.smoke, self.accept_moved, self.look = directory, smoke, accept_moved, look
        self.stages: dict[str, Stage] = {}
        self.absent: list[str] = []
        documents = {path.parent: read_stage(path.parent) for path in sorted(directory.stages.glob("*/stage.json"))}
        self.begun = [_Begun(folder, document) for folder, document in documents.items() if document]
        saved = (read_json(directory.root / PLAN) or {}).get("stages")
        self.planned = (
            {stage.get("key") for stage in saved if isinstance(stage, dict)} if isinstance(saved, list) else ()
        )

    def add(
        self,
        name: str,
        facts: Facts,
        job: Job,
        *,
        inputs: Inputs | None = None,
        variant: str,
        step: int | None = None,
        images: int | None = None,
        further: tuple[int | None, ...] = (),
    ) -> Stage:
        """The stage for a job: a new one, one that was begun, or one with the same key that another variant has added.

        A stage that was begun is continued if it computes the same, even if settings that change no result differ: then
        it keeps the key of its first settings.
        """
        kind = kind_of(job)
        whole = facts(_settings(job))
        stage = Stage(
            name=name,
            key=_hash(kind, whole),
            identity=_hash(kind, facts(_settings(job, without=kind.free(job)))),
            directory=self.directory.stages,
            job=job,
            inputs=inputs or Inputs(),
            contents=tuple(_places_in(whole)),
            variants=(variant,),
            step=step,
            smoke=self.smoke,
            images=images,
            further=further,
        )
        begun = self._find(stage, facts)
        if begun:
            job = kind.continued(job, begun.document.get("config", {}))
            stage = dataclasses.replace(stage, key=begun.key, directory=begun.directory, job=job)
        else:
            stage = dataclasses.replace(stage, directory=self.directory.stages / f"{name}-{stage.key[:8]}")
        if known := self.stages.get(stage.key):
            job, step = kind.merged((known.job, known.step), (stage.job, step))
            variants = tuple(dict.fromkeys((*known.variants, variant)))
            stage = dataclasses.replace(known, job=job, step=step, variants=variants)
        self.stages[stage.key] = stage
        return stage

    def _find(self, stage: Stage, facts: Facts) -> _Begun | None:
        """The begun stage that computes the same; of several the one with the same settings, or the most advanced."""
        of_kind = [begun for begun in self.begun if begun.document.get("kind") == stage.kind.name]
        if stage.key in self.planned:
            # Of two variants of different length, the longer may wait in a queue while the other runs.
            of_kind = [begun for begun in of_kind if begun.key == stage.key]
        found = [begun for begun in of_kind if self._is_same(begun, stage, facts)]

        def rank(begun: _Begun) -> tuple[bool, bool, int]:
            there = dataclasses.replace(stage, key=begun.key, directory=begun.directory)
            same_settings = begun.key == stage.key or not _changes(begun.document, stage)
            return same_settings, there.is_done, there.resume_step

        return max(found, key=rank, default=None)

    def _is_same(self, begun: _Begun, stage: Stage, facts: Facts) -> bool:
        if begun.identity or begun.key == stage.key:
            return stage.identity == begun.identity or stage.key == begun.key
        # With the begun stage's own values of what changes no result, its key must come out.
        section = begun.document.get("config", {}).get(stage.kind.name)
        own = {n: v for n, v in section.items() if n in stage.free} if isinstance(section, dict) else {}
        if begun.key == _hash(stage.kind, facts(_settings(stage.job, own)), "before"):
            return True
        return self.accept_moved and begun.document.get("name") == stage.name and _is_equal_but_for_places(begun, stage)

    def place(self, path: str, *, optional: bool = False) -> Place:
        """Identity of an input, which is noted as absent if it is needed and missing."""
        place = self.look(path)
        if place.now[-1] == "absent" and path not in self.absent and not optional:
            self.absent.append(path)
        return place

    def image_count(self, data: DataConfig) -> int | None:
        """Number of images in a data set, where it is known before they are read."""
        return image_count(data, self.place(str(data.images or data.latents)))


def _hash(kind: StageKind[Any], facts: Any, form: Form = "now") -> str:
    return key_of([kind.name, kind.version, _in_form(facts, form)])


def _settings(job: Job, own: dict[str, Any] | None = None, without: Collection[str] = ()) -> dict[str, Any]:
    """Settings of a job as they enter its key: a codec's folder by what it holds.

    Args:
        job: of a stage.
        own: values that replace those of the section of its kind.
        without: keys of that section to leave out.
    """
    plain: dict[str, Any] = to_plain(job)
    section = kind_of(job).name
    if section in plain:
        plain[section] = {n: v for n, v in {**plain[section], **(own or {})}.items() if n not in without}
    path = plain.get("codec", {}).get("path")
    if _is_path(path):
        plain["codec"]["path"] = _Either(now=None, before=path)
    return plain


PLACES = {"data.images", "data.latents", "codec.path", "checkpoint", "reference", "graph", *FURTHER_SETS}
"""Settings that are places of inputs."""


def _is_equal_but_for_places(begun: _Begun, stage: Stage) -> bool:
    """Whether a begun stage has the same settings and reads the same stages, wherever its other inputs lay."""
    same_settings = not _changes_of_results(begun.document, stage)
    return same_settings and _outputs_read(begun.document) == _outputs_in(stage.places)


def _outputs_read(document: dict[str, Any]) -> set[str]:
    """Outputs of other stages that a stage read, by its `stage.json`."""
    values = [*document.get("inputs", {}).values(), *_flat(upgraded_settings(document)).values()]
    return _outputs_in([value for value in values if isinstance(value, str)])


def _outputs_in(places: Collection[str | None]) -> set[str]:
    """Outputs of stages among some places, relative to the folder of all stages."""
    return {place.split("/stages/")[-1] for place in places if place and "/stages/" in place}


def make_plan(loaded: Loaded, directory: RunDirectory, *, accept_moved: bool = False, look: Look | None = None) -> Plan:
    """List every stage that the runs of a manifest need.

    Args:
        loaded: the manifest.
        directory: of the run; what was begun there is continued.
        accept_moved: take inputs of version 0.1.0's stages, known by place and time alone, for the same.
        look: at an input; default: at each once.

    Raises:
        ManifestError: `train.epochs` of a data set of unknown size.
    """
    planner = _Planner(directory, loaded.smoke, accept_moved, look or functools.cache(examine))
    for run in loaded.runs:
        _plan_run(planner, _located(run))
    return Plan(loaded=loaded, stages=in_order(planner.stages.values()), absent=tuple(planner.absent))


def in_order(stages: Collection[Stage]) -> tuple[Stage, ...]:
    """Stages by kind, looks before the sampling that they interrupt, and those of one batch side by side."""
    batches: dict[str, int] = {}
    for stage in stages:
        batches.setdefault(stage.batch, len(batches))
    return tuple(sorted(stages, key=lambda s: (s.place_in_order, s.look or math.inf, batches[s.batch])))


def _located(run: Run) -> Run:
    """Return the run with `asset:NAME` replaced by paths."""
    path, score = located(run.codec.path), run.score
    sets: dict[str, Any] = {name: located(place) for name, place in score.sets.items()}
    return dataclasses.replace(
        run,
        codec=dataclasses.replace(run.codec, path=path),
        score=dataclasses.replace(score, graph=located(score.graph), **sets),
        data=located_data(run.data),
        checkpoint=_maybe(run.checkpoint),
        samples=_maybe(run.samples),
    )


def located_data(data: DataConfig) -> DataConfig:
    """Settings of data with `asset:NAME` replaced by paths."""
    return dataclasses.replace(data, images=_maybe(data.images), latents=_maybe(data.latents))


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
    trained = _trained(planner, run, images)
    for step, weights, identity in trained:
        _sample_and_score(planner, run, images, step, weights, identity, early=step != trained[-1][0])


def _given(planner: _Planner, run: Run, place: str) -> tuple[str, Any]:
    """Path and identity of a given file; in a smoke run, of its stand-in."""
    if not planner.smoke:
        return place, planner.place(place)
    images = run.sample.images if run.samples is not None else None
    job = StandInJob(seed=run.seed, codec=run.codec, model=run.model, images=images)
    stage = planner.add(f"standin-{run.variant}", lambda settings: settings, job, variant=run.variant)
    return str(stage.directory / stage.outputs[0]), [stage.key]


def _images(planner: _Planner, run: Run) -> Stage:
    assert run.data.images is not None
    job = ImagesJob(data=run.data, resolution=run.model.resolution)
    facts = [planner.place(run.data.images), run.data.split, run.data.labels, run.model.resolution]
    return planner.add("images", lambda _: facts, job, variant=run.variant, images=planner.image_count(run.data))


def _trained(planner: _Planner, run: Run, images: Stage | None) -> list[tuple[int | None, str, Any]]:
    """Add latents and training; returns (step, weights file, identity) of each set of weights to sample."""
    assert run.train is not None
    job = LatentsJob(data=run.data, codec=run.codec, resolution=run.model.resolution, flipped=run.train.flip)
    source = images.key if images else planner.place(str(run.data.latents))
    codec, dtype, flip = _codec_identity(planner, run), run.data.latent_dtype, run.train.flip
    latents = planner.add(
        "latents",
        lambda settings: [source, [settings["codec"], codec], dtype, flip],
        job,
        inputs=Inputs(images=str(images.directory) if images else None),
        variant=run.variant,
        images=planner.image_count(run.data),
    )
    train = TrainJob(seed=run.seed, codec=run.codec, model=run.model, train=run.train, align=run.align)
    total = _total_steps(run, latents.images)
    stage = planner.add(
        f"train-{run.network}",
        lambda settings: [latents.key, settings],
        train,
        inputs=Inputs(latents=str(latents.directory)),
        variant=run.variant,
        step=total,
    )
    steps = (*run.train.milestones, total)
    return [(step, str(stage.directory / weights_name(step)), [stage.key, step]) for step in steps]


def _total_steps(run: Run, count: int | None) -> int:
    """Optimizer steps of a training run; `count`: of the images."""
    assert run.train is not None
    if run.train.steps is not None:
        return run.train.steps
    if count is None:
        raise ManifestError(
            f"train.epochs: expected data of known size, got {run.data.images or run.data.latents}; set train.steps"
        )
    assert run.train.epochs is not None
    return run.train.epochs * (count // run.train.global_batch)


def is_hub_id(place: str) -> bool:
    """Whether the path of a codec is the id of a hub repository rather than a file or folder."""
    return not place.startswith(("embedded:", "/", ".", "~", "$")) and not Path(place).exists()


def _is_path(place: Any) -> bool:
    """Whether a place is a file or folder."""
    return isinstance(place, str) and not is_embedded(place) and not is_hub_id(place)


def _codec_identity(planner: _Planner, run: Run) -> Any:
    """Identity of a codec: id and revision on the hub, or what a folder holds."""
    path = run.codec.path
    return [path, run.codec.revision] if is_hub_id(path) else planner.place(path)


def _sample_and_score(
    planner: _Planner,
    run: Run,
    images: Stage | None,
    step: int | None,
    weights: str,
    identity: Any,
    *,
    early: bool = False,
) -> None:
    count = (early and run.sample.milestone_images) or run.sample.images
    settings = dataclasses.replace(run.sample, images=count, milestone_images=None, looks=(), on_lost=None)
    job = SampleJob(seed=settings.seed or 0, codec=run.codec, model=run.model, sample=settings, checkpoint=weights)
    own = {"checkpoint": identity, "codec_identity": _codec_identity(planner, run)}
    suffix = f"-step{step}" if early else ""
    sample = planner.add(
        f"sample-{run.variant}{suffix}", lambda settings: settings | own, job, variant=run.variant, step=step
    )
    place = str(sample.directory / "samples.npz")
    for look in () if early else run.sample.looks:
        there = place if sample.is_done else str(sample.directory / "shards")
        _score(planner, run, images, there, [sample.key, look], count=look, step=step, look=True)
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
    look: bool = False,
) -> None:
    """Add the scoring of `count` images (None: unknown); at a milestone only with adm, at a look to predict FID."""
    sets = {name: _image_set(planner, run, images, place) for name, place in run.score.sets.items()}
    reference, reference_identity, count_of_reference = sets["reference"]
    suffix = f"-step{step}" if early else f"-look{count}" if look else ""
    tools, metrics = (("adm",), ()) if early else (run.score.tools, run.score.metrics)
    if look:
        tools, metrics = (look_tool(run.score),), (f"fid@{run.sample.images}",)
    jobs = [stage.job for stage in planner.stages.values() if isinstance(stage.job, ScoreJob) and not stage.job.look]
    read = {(job.tool, place) for job in jobs for place in (job.reference, job.training, job.validation)}
    for tool in tools:
        graph = located(NETWORKS[tool]) if tool in NETWORKS else run.score.graph
        further = {name: sets[name] for name in further_sets(tool, metrics) if name in sets}
        job = ScoreJob(
            tool=tool,
            reference=reference,
            graph=graph,
            extractor=run.score.extractor if tool in EXTRACTOR_TOOLS else None,
            metrics=metrics if tool in PROTOCOL_TOOLS else (),
            images=count,
            look=look,
            **{name: place for name, (place, _, _) in further.items()},
        )
        facts = [identity, tool, reference_identity, planner.place(graph), *_network_of(planner, run.score, tool)]
        facts += [list(job.metrics)] if job.metrics else []
        facts += [[name, contents] for name, (_, contents, _) in further.items()]
        seen = read | {(tool, reference)}
        unread = {place: images for place, _, images in further.values() if (tool, place) not in seen}
        planner.add(
            f"score-{tool}-{run.variant}{suffix}",
            lambda _, facts=facts: facts,  # type: ignore[misc]
            job,
            inputs=Inputs(samples=samples),
            variant=run.variant,
            step=step,
            images=None if (tool, reference) in read else count_of_reference,
            further=tuple(unread.values()),
        )


def _network_of(planner: _Planner, score: ScoreConfig, tool: str) -> list[Any]:
    """What else than the graph determines a tool's network: its own weights, if they exist."""
    if tool not in EXTRACTOR_TOOLS:
        return []
    if score.extractor == "graph":
        return ["graph"]
    own = not is_embedded(score.graph)
    return [planner.place(str(path), optional=True) for path in weights_of(tool)] if own else []


def _image_set(planner: _Planner, run: Run, images: Stage | None, name: str) -> tuple[str, Any, int | None]:
    """Path, identity and number of real images, which may be those of the manifest; None: not known."""
    if name == "images" and images is not None:
        return str(images.directory / "images"), images.key, images.images
    place = planner.place(name)
    return name, place, reference_images(place, run.model.resolution)


def state_of(stage: Stage, directory: RunDirectory) -> tuple[str, str]:
    """Return (`done` or `to run`, why)."""
    document = read_stage(stage.directory)
    changes = _changes(document, stage) if document else []
    if stage.is_done:
        changes += [f"another number of processes than {ranks}"] if (ranks := stage.ranks) else []
        return "done", f"finished; no new run for {_shown(changes)}" if changes else "finished with these settings"
    if damaged_outputs(stage.directory, stage.outputs):
        return "to run", "its outputs are missing or damaged"
    if document:
        prefix = f"{_shown(changes)}: " if changes else "started, not finished: "
        return "to run", prefix + stage.how_it_continues
    return "to run", _changed(stage, directory) or "new"


def _changed(stage: Stage, directory: RunDirectory) -> str | None:
    """What differs from the last stage of the same name; None if there is none."""
    earlier = sorted(directory.stages.glob(f"{stage.name}-????????/stage.json"), key=lambda p: p.stat().st_mtime)
    document = read_stage(earlier[-1].parent) if earlier else None
    if document is None:
        return None
    return f"changed: {_shown(_changes_of_results(document, stage)) or _changed_input(document, stage, directory)}"


def _changes_of_results(document: dict[str, Any], stage: Stage) -> list[str]:
    """Those changes of settings with which a stage computes something else."""
    free = tuple(f"{stage.kind.name}.{name} " for name in stage.free)
    return [change for change in _changes(document, stage) if not (free and change.startswith(free))]


def _changes(document: dict[str, Any], stage: Stage) -> list[str]:
    """Settings that differ from those in a `stage.json`; inputs are compared by what they hold."""
    before, after = _flat(upgraded_settings(document)), _flat(to_plain(stage.job))
    # Paths in the run directory differ after a move, and with every change of an earlier stage.
    names = sorted((before.keys() | after.keys()) - {"checkpoint", "reference", *FURTHER_SETS})
    names = [n for n in names if n not in PLACES or is_embedded(str(before.get(n))) or not _is_path(after.get(n))]
    return [f"{n} {before.get(n)!r} -> {after.get(n)!r}" for n in names if before.get(n) != after.get(n)]


def _shown(changes: list[str]) -> str:
    return ", ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")


def _changed_input(document: dict[str, Any], stage: Stage, directory: RunDirectory) -> str:
    """The first input with other content than in a `stage.json`, and which of its files differ."""
    for (_, before), place in zip(document.get("contents", ()), stage.contents, strict=False):
        if before != place.now:
            found = difference(directory.root, before, place)
            return f"{place.path}" + (f": {found}" if found else "")
    given = any(not is_embedded(place.path) for place in stage.contents)
    if not document.get("identity") and given and _outputs_read(document) == _outputs_in(stage.places):
        return "an input, which version 0.1.0 knew by place and time alone (--accept-moved takes it for the same)"
    return "what an earlier stage makes"


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
