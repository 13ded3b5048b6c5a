"""Manifests: the schema, every default filled in, one frozen `Run` for each variant and seed."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ValidationError

from benchmark.manifest.document import ManifestError, expand, override, read
from evaluator.tools import (
    FURTHER_SETS,
    NETWORKS,
    OF_TRAINING,
    PROTOCOL_TOOLS,
    Tool,
    further_sets,
    least_to_predict,
    optional_metric,
)
from sra.common.errors import expected, one_of
from sra.common.validation import adapter, boolean_as_number, one_line
from sra.config import (
    STRICT,
    AlignSettings,
    AnyAlignment,
    CodecConfig,
    ConfigError,
    DataConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
    check_sampler,
    check_seeds,
    read_alignment,
    to_plain,
)

__all__ = ["TOOLS", "Loaded", "Manifest", "ManifestError", "Run", "ScoreConfig", "Tool", "Variant", "load", "schema"]

# The others run only if they are named: adm-torch computes the scores of adm, networks have metrics of their own.
TOOLS: tuple[Tool, ...] = typing.get_args(Tool)[:3]


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Scoring: which tools, against which reference, with which Inception graph."""

    __pydantic_config__ = STRICT

    tools: tuple[Tool, ...] = TOOLS
    """Tools that score the samples."""
    reference: str
    """Reference batch (`.npz`), folder, zip, tar or parquet of real images, or `images`: those of this manifest."""
    graph: str
    """Frozen Inception graph (`.pb`), or `embedded:digits` (the small classifier shipped with the suite)."""
    extractor: Literal["own", "graph"] = "own"
    """Network of clean-fid and torch-fidelity: their own Inception, or the graph's, converted."""
    metrics: tuple[Annotated[str, AfterValidator(optional_metric)], ...] = ()
    """More metrics of adm and adm-torch, such as `kid`, `coverage` or `fid@50000`; papers print none of them."""
    training: str | None = None
    """Images that networks were trained on, or `images`: those of this manifest; for `authenticity` and `copying`."""
    validation: str | None = None
    """Real images that they were not trained on; for `copying`, and `fdr` of `dinov2`, `clip` and `convnext`."""

    @property
    def sets(self) -> dict[str, str]:
        """Real images by the keys that name them."""
        named = {name: getattr(self, name) for name in ("reference", *FURTHER_SETS)}
        return {name: place for name, place in named.items() if place is not None}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row: an alignment or a checkpoint, and what differs from the manifest's common settings."""

    __pydantic_config__ = STRICT

    align: str | dict[str, Any] | None = None
    """Name of an alignment, or `{kind: NAME, ...}`; none: the baseline."""
    checkpoint: str | None = None
    """Weights to sample from instead of training: `.safetensors` or a published `.pt`."""
    samples: str | None = None
    """Images to score (`.npz`, folder, zip, tar or parquet); nothing is trained or sampled."""
    published: str | None = None
    """Id of the published row to compare with."""
    expected_fid: float | None = None
    """FID that looks compare with where no row is named, such as that of an earlier run."""
    seed: int | None = None
    """Overrides the manifest's seed."""
    data: dict[str, Any] = field(default_factory=dict)
    """Overrides of `data`."""
    codec: dict[str, Any] = field(default_factory=dict)
    """Overrides of `codec`."""
    model: dict[str, Any] = field(default_factory=dict)
    """Overrides of `model`."""
    train: dict[str, Any] = field(default_factory=dict)
    """Overrides of `train`."""
    sample: dict[str, Any] = field(default_factory=dict)
    """Overrides of `sample`."""
    score: dict[str, Any] = field(default_factory=dict)
    """Overrides of `score`."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The shape of a manifest file."""

    __pydantic_config__ = STRICT

    name: str
    """Name of the run; the default output folder is `runs/NAME`."""
    seed: int = 0
    """Seed of training, labels and noise."""
    data: DataConfig = field(default_factory=DataConfig)
    """Images or latents."""
    codec: CodecConfig = field(default_factory=CodecConfig)
    """The image autoencoder."""
    model: ModelConfig
    """The network and its convention."""
    train: TrainConfig | None = None
    """Training; may be missing if every variant has a checkpoint or samples."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    """Sampling."""
    score: ScoreConfig
    """Scoring."""
    targets: tuple[float, ...] = ()
    """FID values: the report says when each variant first reached them; default: the last FID of the baseline."""
    variants: dict[str, Variant]
    """Rows of the table, by name."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One variant with one training seed, every setting resolved."""

    variant: str
    seed: int
    data: DataConfig
    codec: CodecConfig
    model: ModelConfig
    train: TrainConfig | None
    sample: SampleConfig
    score: ScoreConfig
    align: AnyAlignment | None
    checkpoint: str | None
    samples: str | None = None
    published: str | None
    expected_fid: float | None = None

    @property
    def needs_data(self) -> bool:
        """Whether images or latents are read, to train or to score."""
        return self.train is not None or "images" in self.score.sets.values()

    @property
    def network(self) -> str:
        """Name of the trained network: the variant without the seed of its samples."""
        return self.variant.removesuffix(f"-sample{self.sample.seed}")

    @property
    def places(self) -> list[str]:
        """Everything that it reads (paths, `asset:NAME`, hub ids), as the manifest writes it."""
        data = (self.data.images, self.data.latents) if self.needs_data else ()
        codec = () if self.samples else (self.codec.path,)
        named = (*data, *codec, *self.score.sets.values(), self.score.graph, self.checkpoint, self.samples)
        networks = [NETWORKS[tool] for tool in self.score.tools if tool in NETWORKS]
        return [*(place for place in named if place is not None), *networks]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A manifest file that passed every check, and its runs in order."""

    path: Path
    name: str
    runs: tuple[Run, ...]
    smoke: bool = False
    """Whether it is the smoke form, with stand-ins for checkpoints and sample files."""
    notes: tuple[str, ...] = ()
    """Notes for the reader of the report."""
    targets: tuple[float, ...] = ()
    """FID values whose first time the report shows."""

    def resolved_yaml(self) -> str:
        """Every setting of every run, defaults included."""
        runs = {run.variant: {k: v for k, v in to_plain(run).items() if k != "variant"} for run in self.runs}
        return yaml.safe_dump({"name": self.name, "runs": runs}, sort_keys=False, allow_unicode=True, width=120)


NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
MAX_NAME = 100
"""Characters; names of stages and files are longer."""
SECTIONS = ("data", "codec", "model", "train", "sample", "score")


def load(path: Path, overrides: Sequence[str] = (), variants: Sequence[str] = ()) -> Loaded:
    """Read, override, complete and check a manifest.

    Args:
        path: YAML file.
        overrides: `a.b=value` items; values are YAML.
        variants: names to keep; none keeps all.

    Raises:
        ManifestError: any mistake in the manifest, in one line.
    """
    document = read(path)
    for item in overrides:
        override(document, item)
    return check(document, path, variants)


def check(document: dict[str, Any], path: Path, variants: Sequence[str] = ()) -> Loaded:
    """Complete and check what `path` holds: see `load`."""
    manifest = _validated(Manifest, expand(document), path)
    for name in (manifest.name, *manifest.variants):
        if not re.fullmatch(NAME, name) or len(name) > MAX_NAME:
            allowed = (
                f"at most {MAX_NAME} letters, digits, '.', '_' and '-', a letter or digit first (it names a folder)"
            )
            raise ManifestError(expected(f"{path}: name", allowed, name))
    names = variants or list(manifest.variants)
    for name in names:
        if name not in manifest.variants:
            raise ManifestError(one_of(f"{path}: variants", name, manifest.variants))
    runs = [run for name in names for run in _runs(path, manifest, expand(document), name)]
    if not runs:
        raise ManifestError(f"{path}: variants: expected at least one, got none")
    return Loaded(path=path, name=manifest.name, runs=tuple(runs), targets=manifest.targets)


def schema() -> dict[str, Any]:
    """JSON schema of a manifest, for editors."""
    return adapter(Manifest).json_schema()


def _validated(cls: type, document: dict[str, Any], path: Path, prefix: str = "") -> Any:
    if (key := boolean_as_number(cls, document)) is not None:
        raise ManifestError(f"{path}: {prefix}{key}: expected a number, got a boolean")
    try:
        return adapter(cls).validate_python(document)
    except ValidationError as error:
        raise ManifestError(f"{path}: {prefix}{one_line(cls, error)}") from error


def _runs(path: Path, manifest: Manifest, document: dict[str, Any], name: str) -> list[Run]:
    """One run per training seed and sample seed of one variant."""
    variant = manifest.variants[name]
    prefix = f"variants.{name}."
    sections = {s: _merged(document.get(s), getattr(variant, s)) for s in SECTIONS}
    merged = {"name": manifest.name, "variants": {}, **{k: v for k, v in sections.items() if v is not None}}
    full: Manifest = _validated(Manifest, merged, path, prefix)
    seed = manifest.seed if variant.seed is None else variant.seed
    try:
        check_seeds("seed", (seed,))
        align = _align(variant.align, full.model, full.codec)
        _cross_checks(full, align, variant)
    except ConfigError as error:
        raise ManifestError(f"{path}: {prefix.rstrip('.')}: {error}") from error
    common: dict[str, Any] = {
        "data": full.data,
        "codec": full.codec,
        "model": full.model,
        "score": full.score,
        "align": align,
        "checkpoint": variant.checkpoint,
        "samples": variant.samples,
        "published": variant.published,
        "expected_fid": variant.expected_fid,
    }
    train = None if variant.checkpoint or variant.samples else full.train
    seeds = (train.seeds if train and train.seeds is not None else None) or (seed,)
    if train:
        train = dataclasses.replace(train, seeds=None)
    samples = _samples(full.sample, manifest.seed)
    if full.sample.on_lost == "stop" and len(seeds) * len(samples) > 1:
        raise ManifestError(f"{path}: {prefix}sample.on_lost: expected go-on for several seeds, whose mean is compared")
    return [
        Run(
            variant=name + (f"-seed{s}" if len(seeds) > 1 else "") + (f"-sample{x.seed}" if len(samples) > 1 else ""),
            seed=s,
            train=train,
            sample=x,
            **common,
        )
        for s in seeds
        for x in samples
    ]


def _samples(sample: SampleConfig, seed: int) -> list[SampleConfig]:
    """One for each sample seed; by default `seed`."""
    found = sample.seeds or (seed if sample.seed is None else sample.seed,)
    return [dataclasses.replace(sample, seed=s, seeds=None) for s in found]


def _merged(base: Any, changes: dict[str, Any]) -> Any:
    if not changes:
        return base
    result = dict(base or {})
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _align(value: str | dict[str, Any] | None, model: ModelConfig, codec: CodecConfig) -> AlignSettings | None:
    if value is None or value == "none":
        return None
    settings = read_alignment({"kind": value} if isinstance(value, str) else value)
    return settings.resolved(model, codec)


def _cross_checks(full: Manifest, align: AlignSettings | None, variant: Variant) -> None:
    """Check settings that must fit settings of other sections."""
    model, sample = full.model, full.sample
    cell = full.codec.factor * model.patch
    if model.resolution % cell:
        raise ConfigError(
            expected("model.resolution", f"a multiple of codec.factor x patch = {cell}", model.resolution)
        )
    check_sampler(sample, model)
    if sample.cfg_channels != "all" and sample.cfg_channels > full.codec.channels:
        raise ConfigError(expected("sample.cfg_channels", f"at most codec.channels = {full.codec.channels}", 3))
    for name, place in full.score.sets.items():
        if place == "images" and full.data.images is None:
            raise ConfigError(f"data.images: expected a place, because score.{name} is 'images', got none")
    if full.score.metrics and not set(PROTOCOL_TOOLS) & set(full.score.tools):
        tools = ", ".join(full.score.tools)
        raise ConfigError(f"score.metrics: expected one of {', '.join(PROTOCOL_TOOLS)} among score.tools, got {tools}")
    _check_further_sets(full.score)
    _check_looks(full, variant)
    given = {"align": align, "checkpoint": variant.checkpoint, "samples": variant.samples}
    several = [name for name, value in given.items() if value is not None]
    if len(several) > 1:
        raise ConfigError(f"expected one of {', '.join(given)}, got {' and '.join(several)}")
    if several and align is None:
        return
    if full.train is None:
        raise ConfigError("train: missing; only a variant with a checkpoint or samples can do without")
    _check_training(full, full.train)


def _check_further_sets(score: ScoreConfig) -> None:
    """Check that sets of images which metrics need are given, and that those which are given are used."""
    for name in FURTHER_SETS:
        metrics = [metric for metric in score.metrics if name in further_sets(PROTOCOL_TOOLS[0], [metric])]
        if name not in score.sets and metrics:
            raise ConfigError(f"score.{name}: expected images, because score.metrics has {metrics[0]}, got none")
        if name in score.sets and not any(name in further_sets(tool, score.metrics) for tool in score.tools):
            users = f"{' or '.join(OF_TRAINING)} among score.metrics, or {', '.join(NETWORKS)} among score.tools"
            raise ConfigError(f"score.{name}: expected {users}, got neither")


def look_tool(score: ScoreConfig) -> Tool:
    """The tool that scores looks: the first of those whose metrics papers print."""
    return next(tool for tool in score.tools if tool in PROTOCOL_TOOLS)


def _check_looks(full: Manifest, variant: Variant) -> None:
    """Check that FID can be predicted from the first look, and compared with one number."""
    fid = variant.expected_fid
    if fid is not None and (variant.published or not full.sample.looks or not 0 < fid < math.inf):
        raise ConfigError(expected("expected_fid", "a positive number, sample.looks and no published row", fid))
    if not full.sample.looks:
        return
    if not set(PROTOCOL_TOOLS) & set(full.score.tools):
        raise ConfigError(expected("sample.looks", f"one of {', '.join(PROTOCOL_TOOLS)} among score.tools", "none"))
    if (least := least_to_predict(full.score.graph)) > full.sample.looks[0]:
        raise ConfigError(expected("sample.looks", f"at least {least} images to predict FID", full.sample.looks[0]))


def _check_training(full: Manifest, train: TrainConfig) -> None:
    """Check what only training requires."""
    model = full.model
    if model.convention == "vanilla-sit":
        raise ConfigError("model.convention: expected 'sra' for training, got 'vanilla-sit' (for checkpoints only)")
    if model.family == "dit" and train.times != "uniform":
        raise ConfigError(expected("train.times", "'uniform' for family 'dit'", train.times))
    if full.data.images is None and full.data.latents is None:
        raise ConfigError("data: expected images or latents for training, got neither")
    if train.global_batch % train.accumulate:
        raise ConfigError(
            expected("train.global_batch", f"a multiple of accumulate {train.accumulate}", train.global_batch)
        )
