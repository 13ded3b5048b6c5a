"""Stages, and one `StageKind` per kind: module, arguments, outputs, disk space, cost."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from benchmark.plan import cost
from benchmark.plan.counts import (
    FLOAT32_BYTES,
    checkpoint_bytes,
    image_bytes,
    latent_bytes,
    parameters,
    shards,
    weights_bytes,
)
from benchmark.plan.inputs import Place
from benchmark.plan.records import StageRecord
from benchmark.plan.run_directory import RunDirectory, is_done, read_json
from evaluator.features import CHUNK_IMAGES
from evaluator.tools import FURTHER_SETS, INCEPTION_FEATURES, PROTOCOL_TOOLS, TOOL_MODULES
from sra.common.files import is_embedded
from sra.common.validation import sound_record
from sra.config import (
    ADAPTIVE_SAMPLERS,
    IMAGES_PER_FOLDER,
    RESUMABLE_KEYS,
    ImagesJob,
    LatentsJob,
    SampleJob,
    StandInJob,
    TrainJob,
    to_plain,
)

EXTRACTOR_TOOLS = ("clean-fid", "torch-fidelity")
"""Tools with an Inception network of their own, which the graph's can replace."""
FEATURES_PER_IMAGE = INCEPTION_FEATURES + 17 * 17 * 7
"""Pooled and spatial features of the ADM graph, as cached by the tools of its protocol."""
STATISTICS_BYTES = 8 * (INCEPTION_FEATURES**2 + (FEATURES_PER_IMAGE - INCEPTION_FEATURES) ** 2)
"""Covariances of both, cached as float64."""
RECORD_BYTES = 1_000_000
"""A score record and a log."""
STAGE_FILES = 4
"""Of every stage: its folder, `stage.json`, `log.txt` and `done.json`."""


@dataclass(frozen=True, kw_only=True)
class ScoreJob:
    """`python -m evaluator.tools.TOOL`: metrics of one sample set."""

    tool: str
    reference: str
    """Reference batch (`.npz`), folder or zip of images."""
    graph: str
    """Frozen Inception graph, or `embedded:digits`."""
    extractor: str | None = None
    """Network of clean-fid and torch-fidelity: `own` or `graph`."""
    metrics: tuple[str, ...] = ()
    """More than the protocol's."""
    training: str | None = None
    """Images that networks were trained on."""
    validation: str | None = None
    """Real images that they were not trained on."""
    images: int | None = None
    """Number of images that are scored; None: not known before they are read."""
    look: bool = False
    """Whether they are the first of a set whose others are sampled afterwards."""


Job = ImagesJob | LatentsJob | TrainJob | StandInJob | SampleJob | ScoreJob
J = TypeVar("J", bound=Job)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Input paths of a stage, mostly outputs of earlier stages."""

    images: str | None = None
    """Directory of an images stage."""
    latents: str | None = None
    """Directory of a latents stage."""
    samples: str | None = None
    """Images to score: `.npz`, folder or zip."""


class Disk(NamedTuple):
    """Estimated bytes and files that a stage writes, the most at a time."""

    bytes: int | None
    """None: the number of images is not known."""
    files: int | None
    """Files and folders, which a quota counts."""
    is_upper_bound: bool = False
    """Whether it may be much less, as with compressed images."""


class StageKind(ABC, Generic[J]):
    """What stages of one kind have in common."""

    name: str
    job: type[J]
    version: int = 1
    """Raised when the outputs for the same settings change: finished stages of older versions run again."""
    distributed: bool = False
    """Whether several processes can share one job."""
    batched: bool = False
    """Whether all stages of the kind run in one process: importing torch or TensorFlow takes seconds."""
    job_module: str
    """Python module that is run."""
    fixed_outputs: tuple[str, ...] = ()
    separate_outputs: str = "none"
    """Folder of outputs that are made again one by one if they are lost; others only with all outputs."""

    def module(self, job: J) -> str:  # noqa: ARG002
        """Python module that is run."""
        return self.job_module

    def outputs(self, job: J, step: int | None) -> tuple[str, ...]:  # noqa: ARG002
        """Files that must exist afterwards, relative to the stage's directory."""
        return self.fixed_outputs

    @abstractmethod
    def places(self, job: J) -> tuple[str | None, ...]:
        """Paths, hub ids and `embedded:` names in the settings that are read."""

    @abstractmethod
    def disk(self, job: J, stage: Stage) -> Disk:
        """Estimated size and number of the files, without those of every stage."""

    def cost(self, job: J, stage: Stage, table: cost.Table, processes: int) -> cost.Estimate:  # noqa: ARG002
        """Estimated GPU hours and memory; of a stage that was begun, for the rest."""
        return cost.Estimate(gpu_hours=0.0, how="no network is run")

    def batch(self, stage: Stage) -> str:
        """Stages of the same batch run in one process."""
        return self.name if self.batched else stage.key

    def label(self, job: J) -> str:  # noqa: ARG002
        """Name of a batch of several stages in logs and queues."""
        return self.name

    def arguments(self, stages: Sequence[Stage], directory: RunDirectory, processes: int) -> list[str]:  # noqa: ARG002
        """Command-line arguments of the job that runs a batch of stages."""
        arguments = ["--config", *(str(stage.directory / "stage.json") for stage in stages)]
        for option in ("images", "latents"):
            paths = [str(getattr(stage.inputs, option)) for stage in stages]
            arguments += [f"--{option}", *paths] if getattr(stages[0].inputs, option) else []
        if self.distributed:
            arguments += ["--processes", str(processes)]
        return [*arguments, "--out", *(str(stage.directory) for stage in stages)]

    def free(self, job: J) -> tuple[str, ...]:  # noqa: ARG002
        """Keys of the section named as the kind that change no result: a stage that was begun goes on with others."""
        return ()

    def continued(self, job: J, begun: dict[str, Any]) -> J:  # noqa: ARG002
        """The job with what cannot change any more in a stage that was begun with other settings."""
        return job

    def merged(self, one: tuple[J, int | None], other: tuple[J, int | None]) -> tuple[J, int | None]:  # noqa: ARG002
        """Job and last step that serve two variants which share a stage."""
        return one

    def resume_step(self, directory: Path, job: J, step: int | None) -> int:  # noqa: ARG002
        """Optimizer step from which the job continues."""
        return 0

    def how_it_continues(self, directory: Path, job: J, step: int | None) -> str:  # noqa: ARG002
        """What the job does with what is in its directory, in words."""
        return "continues"

    def error(self, directory: Path) -> str | None:  # noqa: ARG002
        """Why a stage that ended normally has no result and must run again."""
        return None


class _Images(StageKind[ImagesJob]):
    name, job, job_module = "images", ImagesJob, "sra.data.images"
    fixed_outputs = ("images/dataset.json",)

    def places(self, job: ImagesJob) -> tuple[str | None, ...]:
        return (job.data.images, job.data.latents)

    def disk(self, job: ImagesJob, stage: Stage) -> Disk:
        if stage.images is None:
            return Disk(None, None, is_upper_bound=True)
        # A folder and a record of each part, the folders of both, `dataset.json`, `images.json`, the heartbeat.
        files = stage.images + 2 * -(-stage.images // IMAGES_PER_FOLDER) + 5
        return Disk(stage.images * image_bytes(job.resolution), files, is_upper_bound=True)


class _Latents(StageKind[LatentsJob]):
    name, job, job_module = "latents", LatentsJob, "sra.data.latents"

    def outputs(self, job: LatentsJob, step: int | None) -> tuple[str, ...]:  # noqa: ARG002
        return ("moments.npy", *(("flipped.npy",) if job.flipped else ()), "labels.npy", "latents.json")

    def places(self, job: LatentsJob) -> tuple[str | None, ...]:
        return (job.data.images, job.data.latents, job.codec.path)

    def disk(self, job: LatentsJob, stage: Stage) -> Disk:
        files = len(self.outputs(job, None)) + 2  # and the heartbeat and a record of the progress
        return Disk(stage.images and latent_bytes(job, stage.images), files)

    def cost(self, job: LatentsJob, stage: Stage, table: cost.Table, processes: int) -> cost.Estimate:  # noqa: ARG002
        return cost.estimate_latents(job, stage.images, table)


def weights_name(step: int | None) -> str:
    """Weights after a step of training, relative to the stage's directory."""
    return f"weights/step-{step:08d}.safetensors"


class _Train(StageKind[TrainJob]):
    name, job, job_module, distributed = "train", TrainJob, "sra.training.train", True
    separate_outputs = "weights"

    def outputs(self, job: TrainJob, step: int | None) -> tuple[str, ...]:
        return tuple(weights_name(step) for step in (*job.train.milestones, step))

    def free(self, job: TrainJob) -> tuple[str, ...]:  # noqa: ARG002
        return RESUMABLE_KEYS

    def merged(
        self, one: tuple[TrainJob, int | None], other: tuple[TrainJob, int | None]
    ) -> tuple[TrainJob, int | None]:
        """The longer training, with the weights of both."""
        (job, last), (shorter, end) = sorted((one, other), key=lambda pair: -(pair[1] or 0))
        steps = {*job.train.milestones, *shorter.train.milestones, end} - {last, None}
        train = dataclasses.replace(job.train, milestones=tuple(sorted(step for step in steps if step)))
        return dataclasses.replace(job, train=train), last

    def resume_step(self, directory: Path, job: TrainJob, step: int | None) -> int:
        missing = self._missing(directory, job, step)
        return max((s for s in self._checkpoints(directory) if not missing or s <= missing[0]), default=0)

    def how_it_continues(self, directory: Path, job: TrainJob, step: int | None) -> str:
        start, newest = self.resume_step(directory, job, step), max(self._checkpoints(directory), default=0)
        if start < newest:
            first = self._missing(directory, job, step)[0]
            return f"the weights of step {first} are not there: trains again from step {start}"
        return f"continues from step {start}"

    def _missing(self, directory: Path, job: TrainJob, step: int | None) -> list[int]:
        """Steps whose weights are not there."""
        return [s for s in (*job.train.milestones, step) if s and not (directory / weights_name(s)).is_file()]

    def _checkpoints(self, directory: Path) -> list[int]:
        return [
            int(path.name.removeprefix("step-")) for path in (directory / "checkpoints").glob("step-" + "[0-9]" * 8)
        ]

    def places(self, job: TrainJob) -> tuple[str | None, ...]:
        return (job.codec.path,)

    def disk(self, job: TrainJob, stage: Stage) -> Disk:
        permanent = stage.step // job.train.keep_every if stage.step and job.train.keep_every else 0
        checkpoints = job.train.keep + 1 + permanent  # one more while the next is being written
        weights = len(job.train.milestones) + 1
        # A checkpoint is a folder of two files. More: the folders of both, the log, the heartbeat, two records.
        return Disk(checkpoints * checkpoint_bytes(job) + weights * weights_bytes(job), 3 * checkpoints + weights + 6)

    def cost(self, job: TrainJob, stage: Stage, table: cost.Table, processes: int) -> cost.Estimate:
        assert stage.step is not None
        steps = stage.step if stage.is_done else max(0, stage.step - stage.resume_step)
        return cost.estimate_training(job, steps, table, processes)

    def batch(self, stage: Stage) -> str:
        return self.name if stage.smoke else stage.key


class _StandIn(StageKind[StandInJob]):
    name, job, job_module, batched = "standin", StandInJob, "sra.interop.standin", True

    def outputs(self, job: StandInJob, step: int | None) -> tuple[str, ...]:  # noqa: ARG002
        return ("weights.pt" if job.images is None else "samples.npz",)

    def places(self, job: StandInJob) -> tuple[str | None, ...]:
        return (job.codec.path,)

    def disk(self, job: StandInJob, stage: Stage) -> Disk:  # noqa: ARG002
        if job.images is not None:
            return Disk(job.images * image_bytes(job.model.resolution), 2)
        return Disk(parameters(job.model, job.codec, head=True) * FLOAT32_BYTES, 2)


class _Sample(StageKind[SampleJob]):
    name, job, job_module = "sample", SampleJob, "sra.sampling.sample"
    distributed = batched = True
    fixed_outputs = ("samples.npz", "labels.npy", "grid.png")
    separate_outputs = "png"

    def outputs(self, job: SampleJob, step: int | None) -> tuple[str, ...]:  # noqa: ARG002
        last = (f"png/{job.sample.images - 1:06d}.png",) if job.sample.png else ()
        return (*self.fixed_outputs, *last)

    def free(self, job: SampleJob) -> tuple[str, ...]:
        """The public code's random numbers and an adaptive sampler's steps depend on the batch; others only round."""
        if job.sample.seeding == "public-code":
            return ("shard", "png")
        return ("png",) if job.sample.sampler in ADAPTIVE_SAMPLERS else ("batch", "shard", "png")

    def continued(self, job: SampleJob, begun: dict[str, Any]) -> SampleJob:
        """Shards that are there keep their size."""
        section = begun.get("sample")
        shard = section.get("shard") if isinstance(section, dict) else None
        sample = dataclasses.replace(job.sample, shard=shard if isinstance(shard, int) else job.sample.shard)
        return dataclasses.replace(job, sample=sample)

    def merged(
        self, one: tuple[SampleJob, int | None], other: tuple[SampleJob, int | None]
    ) -> tuple[SampleJob, int | None]:
        """One image per file if either wants it."""
        (job, step), (second, _) = one, other
        return dataclasses.replace(
            job, sample=dataclasses.replace(job.sample, png=job.sample.png or second.sample.png)
        ), step

    def places(self, job: SampleJob) -> tuple[str | None, ...]:
        return (job.codec.path, job.checkpoint)

    def disk(self, job: SampleJob, stage: Stage) -> Disk:  # noqa: ARG002
        images = job.sample.images
        each = 2 if job.sample.sampler in ADAPTIVE_SAMPLERS else 1  # with a record of the evaluations
        # More: the folder of the shards and their clock, the fixed outputs, two records, the heartbeat.
        files = each * shards(job.sample) + 8 + (images + 1 if job.sample.png else 0)
        # Shards, the final file, and PNGs, which may shrink.
        return Disk((3 if job.sample.png else 2) * images * image_bytes(job.model.resolution), files)

    def cost(self, job: SampleJob, stage: Stage, table: cost.Table, processes: int) -> cost.Estimate:  # noqa: ARG002
        return cost.estimate_sampling(job, table)


class _Score(StageKind[ScoreJob]):
    name, job, version = "score", ScoreJob, 2
    fixed_outputs = ("scores.json",)

    def module(self, job: ScoreJob) -> str:
        return TOOL_MODULES[job.tool]

    def places(self, job: ScoreJob) -> tuple[str | None, ...]:
        return (job.reference, job.graph, job.training, job.validation)

    def disk(self, job: ScoreJob, stage: Stage) -> Disk:
        """The record; and what is cached of the samples, and of real images by the first stage that reads them."""
        if job.tool in EXTRACTOR_TOOLS or job.look:  # whose features are the first of those of all images
            return Disk(RECORD_BYTES, 1, is_upper_bound=True)
        own = job.tool in PROTOCOL_TOOLS and not is_embedded(job.graph)
        described = [job.images] + ([stage.images] if stage.images else [])
        sets = *described, *stage.further
        known = [images for images in sets if images is not None]
        if len(known) < len(sets):
            return Disk(None, None, is_upper_bound=not own)
        size = sum(known) * FEATURES_PER_IMAGE * FLOAT32_BYTES + len(described) * STATISTICS_BYTES
        # Features of each set, statistics of samples and reference. More: `scores.json`, and views, two files in a
        # folder. The first stage makes the folders of the cache and of its tool, and the classifier's weights.
        files = sum(-(-images // CHUNK_IMAGES) for images in known) + len(described) + (7 if stage.images else 4)
        return Disk(size, files, is_upper_bound=not own)

    def cost(self, job: ScoreJob, stage: Stage, table: cost.Table, processes: int) -> cost.Estimate:  # noqa: ARG002
        return cost.Estimate(how="scoring is not in the table")

    def batch(self, stage: Stage) -> str:
        job = stage.job
        assert isinstance(job, ScoreJob)
        look = [str(job.images)] if job.look else []
        further = [place for place in (job.training, job.validation) if place]
        return " ".join((job.tool, job.reference, job.graph, job.extractor or "", *job.metrics, *further, *look))

    def label(self, job: ScoreJob) -> str:
        return f"score-{job.tool}" + (f"-look{job.images}" if job.look else "")

    def arguments(self, stages: Sequence[Stage], directory: RunDirectory, processes: int) -> list[str]:  # noqa: ARG002
        jobs = [stage.job for stage in stages if isinstance(stage.job, ScoreJob)]
        first, counts = jobs[0], [job.images for job in jobs]
        arguments = ["--samples", *(str(stage.inputs.samples) for stage in stages)]
        arguments += ["--json", *(str(stage.directory / "scores.json") for stage in stages)]
        arguments += ["--reference", first.reference, "--graph", first.graph]
        arguments += ["--extractor", first.extractor] if first.extractor else []
        arguments += ["--metrics", *first.metrics] if first.metrics else []
        for name in FURTHER_SETS:
            arguments += [f"--{name}", place] if (place := getattr(first, name)) else []
        if first.look:
            arguments += ["--first", str(first.images)]
        elif first.tool in PROTOCOL_TOOLS:
            arguments += ["--views", *(str(stage.directory / "views") for stage in stages)]
        if None not in counts:
            arguments += ["--expect-images", *map(str, counts)]
        return [*arguments, "--cache", str(directory.root / "cache")]

    def error(self, directory: Path) -> str | None:
        """The tool could not run: shown in the table, and tried again next time."""
        return (read_json(directory / "scores.json") or {}).get("error")


IMAGES, LATENTS, TRAIN, STANDIN, SAMPLE, SCORE = _Images(), _Latents(), _Train(), _StandIn(), _Sample(), _Score()
STAGE_KINDS: dict[str, StageKind[Any]] = {kind.name: kind for kind in (IMAGES, LATENTS, TRAIN, STANDIN, SAMPLE, SCORE)}
"""By name, in the order in which they run."""
_KIND_OF_JOB: dict[type, StageKind[Any]] = {kind.job: kind for kind in STAGE_KINDS.values()}
REPORT = "report"
STEPS = (*STAGE_KINDS, REPORT)
"""Names of the kinds and of what follows them."""


def kind_of(job: Job) -> StageKind[Any]:
    """The kind of a job's stage."""
    return _KIND_OF_JOB[type(job)]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One unit of work, with its own directory."""

    name: str
    """As shown, and as in the directory's name."""
    key: str
    """Hash of settings and inputs; a stage that was begun keeps its own when settings change that change no result."""
    directory: Path
    job: Job
    """Settings."""
    inputs: Inputs = Inputs()
    variants: tuple[str, ...] = ()
    """Variants that need it."""
    step: int | None = None
    """Optimizer step of the weights that are sampled or scored; of training, the last; None: a given checkpoint."""
    smoke: bool = False
    """Whether it belongs to a smoke run and thus ends within seconds."""
    identity: str = field(default="", compare=False)
    """Hash of everything that the outputs depend on."""
    contents: tuple[Place, ...] = field(default=(), compare=False, repr=False)
    """What its inputs from outside of the run hold."""
    images: int | None = field(default=None, compare=False)
    """Number of images in its data, where it is known; of scoring: in a reference that no stage before it has read."""
    further: tuple[int | None, ...] = field(default=(), compare=False)
    """Of scoring: images in each further set that no stage before it has read."""

    @property
    def kind(self) -> StageKind[Any]:
        """What depends on the kind of its job."""
        return kind_of(self.job)

    @property
    def tool(self) -> str | None:
        """Scoring tool; None for other kinds."""
        return self.job.tool if isinstance(self.job, ScoreJob) else None

    @property
    def look(self) -> int | None:
        """Number of first images that are scored before the others are sampled; None: not such a stage."""
        return self.job.images if isinstance(self.job, ScoreJob) and self.job.look else None

    @property
    def samples(self) -> Path | None:
        """Directory of the stage whose images are scored; None for other kinds, and for images that were given."""
        return Path(self.inputs.samples).parent if self.inputs.samples else None

    @property
    def place_in_order(self) -> int:
        """Place of its kind among the steps of a run; a look comes while images are sampled."""
        return STEPS.index(SAMPLE.name if self.look else self.kind.name)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Files that must exist afterwards, relative to the directory."""
        return self.kind.outputs(self.job, self.step)

    @property
    def is_done(self) -> bool:
        """Whether it has finished and its outputs are there."""
        return is_done(self.directory, self.key, self.outputs)

    @property
    def free(self) -> tuple[str, ...]:
        """Keys of the section named as the kind that change no result."""
        return self.kind.free(self.job)

    @property
    def resume_step(self) -> int:
        """Optimizer step from which training continues; 0 for other kinds."""
        return self.kind.resume_step(self.directory, self.job, self.step)

    @property
    def ranks(self) -> int | None:
        """Processes that finished samples of the public code depend on, if the settings do not fix their number."""
        open_ = (
            isinstance(self.job, SampleJob) and self.job.sample.seeding == "public-code" and not self.job.sample.ranks
        )
        return (read_json(self.directory / "samples.json") or {}).get("ranks") if open_ else None

    @property
    def how_it_continues(self) -> str:
        """What its job does with what is in its directory, in words."""
        return self.kind.how_it_continues(self.directory, self.job, self.step)

    @property
    def batch(self) -> str:
        """Stages of the same batch run in one process."""
        return self.kind.batch(self)

    @property
    def disk(self) -> Disk:
        """Estimated size and number of its files."""
        disk = self.kind.disk(self.job, self)
        return disk._replace(files=None if disk.files is None else disk.files + STAGE_FILES)

    @property
    def places(self) -> tuple[str, ...]:
        """Everything that is read: paths, hub ids, `embedded:` names."""
        named = (self.inputs.images, self.inputs.latents, self.inputs.samples, *self.kind.places(self.job))
        return tuple(dict.fromkeys(place for place in named if place))

    def record(self, argv: Sequence[str]) -> dict[str, Any]:
        """`stage.json`: what is run, and with which settings."""
        plain = {"schema": 3, "kind": self.kind.name, "name": self.name, "key": self.key}
        inputs = {name: place for name, place in to_plain(self.inputs).items() if place is not None}
        return {**plain, **self.origin, "config": to_plain(self.job), "inputs": inputs, "argv": list(argv)}

    @property
    def origin(self) -> dict[str, Any]:
        """The part of its record that tells whether later settings and inputs are the same."""
        if not self.identity:  # of a plan that version 0.1.0 saved
            return {}
        return {"identity": self.identity, "contents": [[place.path, place.now] for place in self.contents]}

    def is_recorded(self) -> bool:
        """Whether `stage.json` is that of this job."""
        document = read_json(self.directory / "stage.json") or {}
        return document.get("key") == self.key and document.get("config") == to_plain(self.job)

    @property
    def error(self) -> str | None:
        """Why it has no result although it ended normally."""
        return self.kind.error(self.directory)


def read_stage(directory: Path) -> dict[str, Any] | None:
    """The `stage.json` of a stage that was begun; None where there is none or it is damaged."""
    path = directory / "stage.json"
    return read_json(path) if sound_record(StageRecord, path) else None


def label_of(stages: Sequence[Stage]) -> str:
    """Name of a batch of stages in logs and queues."""
    first = stages[0]
    return first.name if len(stages) == 1 else first.kind.label(first.job)
