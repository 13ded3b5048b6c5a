"""The record that each tool writes for each sample set: `scores.json`. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from evaluator.tools import Tool
from sra.common.errors import EvaluatorError, UserError
from sra.common.files import load_json, write_bytes
from sra.common.validation import validated

SCHEMA = 4
READABLE = (1, 2, 3, 4)
Interval: TypeAlias = tuple[float, float]
"""95 % interval (low, high)."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ImageSetFacts(_Record):
    """An image set."""

    path: str
    sha256: str
    """Of the pixels, in order; of the file, if it has statistics alone."""
    count: int
    """0: statistics alone."""
    shape: tuple[int, int, int]
    """Height, width and 3."""
    duplicates: int = 0
    """Images that equal an earlier one."""


class NamedFile(_Record):
    """A frozen Inception graph or a file of weights."""

    name: str
    sha256: str


class FeatureWidths(_Record):
    """Numbers of features and classes of a graph."""

    pool: int
    spatial: int
    classes: int


class AdmSettings(_Record):
    """Of the ADM protocol."""

    stored_statistics: bool
    """Whether FID and sFID use the statistics stored in the reference file."""
    trusted_sample_statistics: bool
    """Whether they use those stored in the samples' file."""
    widths: FeatureWidths
    statistics: NamedFile | None = None
    """The reference file whose stored statistics were used, and the hash of all of it; not known until schema 3."""
    fid_interval: Literal["influence", "jackknife"] = "influence"
    """How the intervals of FID and sFID were estimated; until schema 3, by the influence of each image."""


class AdmTorchSettings(AdmSettings):
    """Of the ADM protocol on a converted graph."""

    extractor: str
    source: NamedFile
    """The frozen graph that was converted."""
    device: str


class CleanFidMode(_Record):
    """One of clean-fid's modes."""

    extractor: str
    weights: NamedFile | None = None
    resize: str | None = None
    """How images are resized, if not as the mode does."""


class CleanFidSettings(_Record):
    """Of clean-fid."""

    kid_seed: int
    modes: dict[str, CleanFidMode]
    """Those that ran."""
    reasons: dict[str, str]
    """Why a mode did not run or found no FID."""


class TorchFidelitySettings(_Record):
    """Of torch-fidelity; all but the first two are its own options."""

    extractor: str
    weights: NamedFile | None = None
    isc_splits: int
    samples_shuffle: bool
    kid_subset_size: int
    prc_neighborhood: int
    rng_seed: int
    save_cpu_ram: bool


class NetworkSettings(_Record):
    """Of a network other than Inception; its weights are the record's graph."""

    network: str
    """Its architecture, by timm's name."""
    width: int
    """Features of an image."""
    device: str
    statistics: NamedFile | None = None
    """The reference, if it has statistics alone."""
    validation_fd: float | None = None
    """FD of the validation images to the reference, over which `fdr` is."""


Settings: TypeAlias = AdmTorchSettings | AdmSettings | CleanFidSettings | TorchFidelitySettings | NetworkSettings


class NearestReferences(_Record):
    """One sample and the references nearest to it."""

    sample: int
    """Its number in the sample set."""
    realism: float | None = None
    """None: the sample equals a reference."""
    references: tuple[int, ...]
    distances: tuple[float | None, ...]
    """None: not finite."""


class NearestTraining(_Record):
    """One sample and the training image nearest to it."""

    sample: int
    """Its number in the sample set."""
    training: int
    """Number of the training image."""
    name: str | None = None
    """Name of its file."""
    distance: float
    ratio: float | None = None
    """Of the distance to that of the training image to its nearest other one; None: infinite."""


class Views(_Record):
    """What the figures of a sample set show."""

    nearest: str
    """Path of the image grid."""
    classes: str
    """Path of the class histogram."""
    equal_to_a_reference: int
    """Samples that equal a reference image."""
    classes_without_samples: int
    """Classes of the reference without samples."""
    largest_class_share: float
    """Share of the samples in the most frequent class."""
    copies: str | None = None
    """Path of the grid of the samples nearest to training images."""
    worst: tuple[NearestReferences, ...]
    best: tuple[NearestReferences, ...]


class MetricDifference(_Record):
    """One metric of two sample sets."""

    first: float
    second: float
    difference: float
    """Second minus first."""
    interval: Interval | None = None
    p: float | None = None
    """Of a permutation test; None: recall has none."""


class DifferenceRecord(_Record):
    """Two sample sets, compared."""

    samples: tuple[ImageSetFacts, ImageSetFacts]
    reference: ImageSetFacts
    graph: NamedFile
    paired: bool
    """Whether they were compared image by image, in their order: sets of equal size are."""
    metrics: dict[str, MetricDifference]


class ClassScore(_Record):
    """Samples of one class."""

    label: int
    """Class of the classifier."""
    images: int
    top1: float | None = None
    """Share of them that the classifier says is of the class."""
    distance: float | None = None
    """Squared, between the mean features of samples and references of the class; unbiased."""
    interval: Interval | None = None
    """Of the distance, 95 %."""


class ScoreRecord(_Record):
    """Scores of one sample set by one tool, or why there are none."""

    tool: Tool
    version: str | None = None
    """Version of the package that computed the metrics."""
    metrics: dict[str, float] = {}
    """By name."""
    absent: dict[str, str] = {}
    """Metrics that were not computed, or are not finite, and why."""
    intervals: dict[str, Interval] = {}
    """By metric, where estimated."""
    samples: ImageSetFacts
    reference: ImageSetFacts
    training: ImageSetFacts | None = None
    validation: ImageSetFacts | None = None
    graph: NamedFile
    warnings: tuple[str, ...] = ()
    settings: Settings | None = None
    """None after an error."""
    classes: tuple[ClassScore, ...] = ()
    """The worst first, if a metric by class was named."""
    copies: tuple[NearestTraining, ...] = ()
    """The samples nearest to training images, by ratio, where these were given."""
    views: Views | None = None
    seconds: float = 0.0
    """Wall-clock time."""
    error: str | None = None
    """Why the tool could not run."""


def write(record: ScoreRecord, path: Path) -> None:
    """Write a record as JSON, atomically."""
    write_bytes(path, (json.dumps(dump(record), indent=2, allow_nan=False) + "\n").encode())


def dump(record: ScoreRecord) -> dict[str, Any]:
    """The JSON document of a record."""
    return {"schema": SCHEMA, **record.model_dump(mode="json", exclude_none=True)}


def read(path: Path) -> ScoreRecord:
    """Read a record of this schema or of an earlier one.

    Raises:
        EvaluatorError: not such a file, or damaged: its first key that does not fit.
    """
    try:
        document = load_json(path)
    except UserError as error:
        raise EvaluatorError(str(error)) from error
    if document is None:
        raise EvaluatorError(f"{path}: expected a JSON file of scores: not found")
    return parse(document, str(path))


def parse(document: dict[str, Any], where: str) -> ScoreRecord:
    """A record from its JSON document.

    Raises:
        EvaluatorError: of a later schema, or a value that does not fit.
    """
    schema = document.get("schema")
    if schema not in READABLE:
        raise EvaluatorError(f"{where}: schema: expected 1 to {SCHEMA}, got {schema!r:.40}")
    fields = {name: value for name, value in document.items() if name != "schema"}
    try:
        return validated(ScoreRecord, _of_schema_1(fields) if schema == 1 else fields, where)
    except UserError as error:
        raise EvaluatorError(str(error)) from error
    except (KeyError, AttributeError, TypeError) as error:
        raise EvaluatorError(f"{where}: expected a record of schema 1, got one without {error}") from error


def _of_schema_1(fields: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 had `adm_torch` for `adm-torch`, null metrics, `{}` for absent settings and views, `file` for `name`."""
    settings = fields.get("settings") or None
    for holder in (settings or {}, *(settings or {}).get("modes", {}).values()):
        if weights := holder.get("weights"):
            holder["weights"] = {"name": weights["file"], "sha256": weights["sha256"]}
    metrics = {name: value for name, value in fields.get("metrics", {}).items() if value is not None}
    changed = {"tool": fields["tool"].replace("_", "-"), "metrics": metrics}
    return {**fields, **changed, "settings": settings, "views": fields.get("views") or None}
