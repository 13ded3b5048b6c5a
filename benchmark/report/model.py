"""The report as one tree of records: `collect` fills it; renderers and commands read it.

`report.json` is its dump. Schema 4 is written; schema 3, which had no claims, and schema 2, whose comparisons had other
key names, are read as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from benchmark.machine.provenance import Session
from benchmark.published.early import EarlyVerdict
from benchmark.published.schema import METRICS
from benchmark.published.verdict import TOOL, RowVerdict
from evaluator.tools.score_record import ImageSetFacts, Interval, NamedFile
from sra.common.errors import UserError, expected
from sra.common.files import load_json, write_bytes
from sra.common.validation import json_text, validated

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = 4
READABLE = (2, 3, 4)
PICTURE_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
Address = Annotated[str, Field(pattern=r"^https?://\S+$")]
"""A link: nothing that a browser would run."""
T = TypeVar("T")


def _hyphenated(value: Any) -> Any:
    """Schema 2 had `adm_torch` for `adm-torch`."""
    return {str(name).replace("_", "-"): item for name, item in value.items()} if isinstance(value, dict) else value


ByTool: TypeAlias = Annotated[dict[str, T], BeforeValidator(_hyphenated)]
"""By name of a scoring tool: `adm`, `clean-fid`, ..."""


class Record(BaseModel):
    """A frozen part of the report; keys that this version does not know are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True)


class Dataset(Record):
    """What a data stage wrote about its images or latents."""

    model_config = ConfigDict(frozen=True, extra="allow")

    count: int | None = None
    classes: int | None = None


class StageState(Record):
    """One stage of a row."""

    key: str
    """Hash of everything that its outputs depend on."""
    state: str


class Execution(Record):
    """What a job's record says of the device that it ran on."""

    device: str
    device_name: str | None = None
    precision: str | None = None
    """In which it computed, where the one that was asked for does not exist there."""


class RowProvenance(Record):
    """What one row was made from."""

    settings: dict[str, Any]
    """The resolved manifest of the row."""
    stages: dict[str, StageState]
    images: Dataset | None = None
    latents: Dataset | None = None
    samples: ImageSetFacts | None = None
    reference: ImageSetFacts | None = None
    graph: NamedFile | None = None
    """The Inception graph whose features were used."""
    tools: ByTool[str | None] = {}
    """Version of each scoring tool."""
    training: Execution | None = None
    sampling: Execution | None = None


class Cost(Record):
    """Measured cost of one row; None where a stage did not finish or did not record it."""

    seconds_per_step: float | None = None
    """Median over the training log."""
    training_hours: float | None = None
    """Training alone, pauses left out."""
    processes: int | None = None
    device_hours: float | None = None
    """Training hours times processes."""
    memory_gib: float | None = None
    """Peak GPU memory of training."""
    sample_seconds: float | None = None
    images_per_second: float | None = None


class LossPoint(Record):
    """One line of the training log."""

    step: int
    loss: float | None = None
    generation: float | None = None
    alignment: float | None = None
    grad_norm: float | None = None


class CurvePoint(Record):
    """Scores of one set of weights."""

    step: int
    hours: float | None = None
    """Measured training time up to this step."""
    kwh: float | None = None
    """Energy of one device up to this step, where it reports its power."""
    images: int | None = None
    fid: float
    inception_score: float | None = Field(default=None, validation_alias="is", serialization_alias="is")
    fid_interval: Interval | None = None


class ProbePoint(Record):
    """Accuracy of a linear probe at one time and block."""

    t: float
    block: int
    accuracy: float


class PublishedRow(Record):
    """The published row that a variant names."""

    id: str
    model: str
    source: str
    kind: str
    papers: tuple[str, ...]
    metrics: dict[str, str]
    """As printed."""


class Paper(Record):
    """A paper that prints a published row."""

    title: str
    url: Address | None = None
    code: Address | None = None
    bibtex: str | None = None


class Row(Record):
    """One variant with one training seed and one sampling seed."""

    variant: str
    group: str
    """Name of the variant in the manifest, whatever its seeds."""
    what: str = ""
    """What was trained and sampled, in words."""
    metrics: ByTool[dict[str, float | None]]
    """By metric."""
    errors: ByTool[str] = {}
    """Why it could not run."""
    absent: ByTool[dict[str, str]] = {}
    """Metrics that were not computed, and why."""
    intervals: ByTool[dict[str, Interval]] = {}
    """95 % intervals by metric."""
    warnings: ByTool[list[str]] = {}
    """Of each tool, and `cross-check` for disagreements between tools."""
    verdict: RowVerdict
    looks: tuple[EarlyVerdict, ...] = ()
    """What was said of its first images before the others were sampled."""
    cost: Cost
    provenance: RowProvenance
    curve: tuple[CurvePoint, ...] = ()
    losses: tuple[LossPoint, ...] = ()
    probe: tuple[ProbePoint, ...] = ()
    grid: str | None = None
    """Picture of the first samples: a path before the report is written, then a file name next to report.json."""
    nearest: str | None = None
    """Picture of the worst and best samples with their nearest references, likewise."""
    loss_figure: str | None = None
    probe_figure: str | None = None
    published: PublishedRow | None = None
    commands: list[str] = []

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """(file name, title) of each picture that there is."""
        named = [
            (self.grid, f"First samples of {self.variant}"),
            (self.nearest, f"Worst and best samples of {self.variant} with their nearest references"),
            (self.loss_figure, f"Losses of {self.variant}"),
            (self.probe_figure, f"Linear probes of {self.variant}"),
        ]
        return [(name, title) for name, title in named if name]

    def value(self, tool: str, metric: str) -> float | None:
        """One number of one tool; None where there is none."""
        return self.metrics.get(tool, {}).get(metric)

    def interval(self, tool: str, metric: str) -> Interval | None:
        """Its 95 % interval; None where none was estimated."""
        return self.intervals.get(tool, {}).get(metric)

    @property
    def adm(self) -> dict[str, float | None]:
        """The metrics that papers print."""
        return {metric: self.value(TOOL, metric) for metric in METRICS}


class Mean(Record):
    """Mean and standard deviation (n - 1) over seeds."""

    mean: float
    sd: float
    n: int


class Group(Record):
    """The seeds of one variant."""

    variant: str
    runs: list[str]
    """Names of its rows."""
    seeds: list[int]
    """Of training."""
    sample_seeds: list[int]
    metrics: dict[str, Mean]
    verdict: RowVerdict
    """Of the mean."""


class SettingChange(Record):
    """A setting in which two variants differ."""

    field: str
    baseline: Any = Field(default=None, validation_alias=AliasChoices("baseline", "without"))
    variant: Any = Field(default=None, validation_alias=AliasChoices("variant", "with"))


class Difference(Record):
    """One metric of two variants."""

    metric: str
    baseline: float = Field(validation_alias=AliasChoices("baseline", "without"))
    variant: float = Field(validation_alias=AliasChoices("variant", "with"))
    difference: float
    """Variant minus baseline."""
    seeds: int
    """Training seeds that both have."""
    interval: Interval | None = None
    """95 %, of the difference."""
    noise: str = Field(validation_alias=AliasChoices("noise", "of"))
    """Which noise the interval includes, in words."""


class CostRatio(Record):
    """Mean cost of two variants."""

    baseline: float = Field(validation_alias=AliasChoices("baseline", "without"))
    variant: float = Field(validation_alias=AliasChoices("variant", "with"))
    ratio: float


class PublishedCost(Record):
    """Ratios that a paper prints: with alignment over without."""

    hours: float
    memory: float
    source: str


class Comparison(Record):
    """A variant compared with the baseline of the same network."""

    baseline: str = Field(validation_alias=AliasChoices("baseline", "without"))
    variant: str = Field(validation_alias=AliasChoices("variant", "with"))
    settings: list[SettingChange]
    metrics: list[Difference]
    cost: dict[str, CostRatio | None]
    """By field of `Cost`; None where one of the two was not measured."""
    published_cost: PublishedCost | None = None


ClaimStatus = Literal[
    "reproduced",
    "reproduced in sign, smaller",
    "reproduced in sign, larger",
    "undecided",
    "not reproduced",
    "reversed",
    "not comparable",
    "no published value",
    "failed",
    "not finished",
]
"""undecided: the interval holds zero and the printed change; not reproduced: zero, but not the printed change."""


class ClaimVerdict(Record):
    """What a method changes here, against what a paper says that it changes."""

    claim: str | None = None
    """Id in the registry; None: no paper prints this change."""
    what: str
    source: str | None = None
    url: str | None = None
    baseline: str
    variant: str
    metric: str
    printed: str | None = None
    """Variant minus baseline, as printed, with its sign."""
    difference: float | None = None
    """Variant minus baseline, here."""
    interval: Interval | None = None
    """Of the difference here: sampling noise of both sides, and training noise as far as it is known."""
    seeds: int = 0
    """Training seeds that both have."""
    ratio: float | None = None
    """Difference here over the printed one."""
    against: float | None = None
    """Difference here minus the printed one."""
    against_interval: Interval | None = None
    """Of the latter; the printed one is a draw with the same noise."""
    status: ClaimStatus
    reasons: list[str] = []
    notes: list[str] = []
    caution: str | None = None


class TimeToTarget(Record):
    """When the FID of a variant first reached a value; None where it did not, or was not measured."""

    variant: str
    baseline: str
    target: float
    """FID."""
    what: str
    """Where the target is from, in words."""
    scored_images: int | None = None
    """Only checkpoints that were scored on this many images count."""
    step: float | None = None
    """Optimizer step, interpolated between scored checkpoints."""
    at_most: bool = False
    """Whether the first scored checkpoint had reached it already."""
    steps_interval: tuple[float, float | None] | None = None
    """95 %, from the noise of the curve and of the target; an end beyond the last checkpoint is None."""
    images: float | None = None
    """Training images until then."""
    device_hours: float | None = None
    kwh: float | None = None
    """Energy of all devices, as the power of the first one says."""
    speedup: float | None = None
    """Steps of the baseline over steps of the variant."""
    speedup_interval: tuple[float, float | None] | None = None
    seeds: int = 1
    left_out: int = 0
    """Checkpoints that were scored on another number of images."""


class Figures(Record):
    """Curves over all variants: file names next to report.json."""

    curve_step: str | None = None
    curve_hours: str | None = None


class Report(Record):
    """Everything that a report shows."""

    schema_: int = Field(default=SCHEMA, validation_alias="schema", serialization_alias="schema")
    name: str
    created: str
    headline: str | None = None
    """What a reader must know before any number."""
    rows: list[Row]
    groups: list[Group] = []
    claims: list[ClaimVerdict] = []
    targets: list[TimeToTarget] = []
    comparisons: list[Comparison] = Field(default=[], validation_alias=AliasChoices("comparisons", "pairs"))
    papers: dict[str, Paper] = {}
    manifest: str
    """Every setting of every run, as YAML."""
    commands: list[str]
    """Command lines that redo the run."""
    provenance: Session
    """The last invocation that had something to run."""
    sessions: int
    """Number of such invocations."""
    machines: list[str] = []
    """GPUs, or the CPU, of the machines of all of them."""
    notes: list[str] = []
    figures: Figures | None = None
    """None before the report is written."""

    def json_text(self) -> str:
        """The content of report.json."""
        return json_text(self, by_alias=True)

    def numbers(self) -> list[dict[str, str | float | None]]:
        """One record for each metric of each tool of each row.

        Keys: variant, tool, metric, value, low and high (ends of the 95 % interval), verdict of the row.
        """
        found: list[dict[str, str | float | None]] = []
        for row in self.rows:
            for tool, metrics in row.metrics.items():
                for metric, value in metrics.items():
                    low, high = row.interval(tool, metric) or (None, None)
                    number = {"value": value, "low": low, "high": high, "verdict": row.verdict.status}
                    found.append({"variant": row.variant, "tool": tool, "metric": metric, **number})
        return found

    def to_dataframe(self) -> DataFrame:
        """The records of `numbers` as a data frame of pandas, which sra-bench[notebook] installs.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise UserError(
                "to_dataframe: expected package pandas, which sra-bench[notebook] installs, got none"
            ) from error
        names = ["variant", "tool", "metric", "value", "low", "high", "verdict"]
        return pandas.DataFrame(self.numbers(), columns=names).astype(dict.fromkeys(names[3:6], float))

    def write(self, path: Path) -> None:
        """Write report.json atomically."""
        write_bytes(path, (self.json_text() + "\n").encode())


def read_report(path: Path) -> Report | None:
    """A report.json of this schema or one of the two before; None where there is none.

    Raises:
        UserError: damaged, or of a schema that this version cannot read.
    """
    document = load_json(path)
    if document is None:
        return None
    if document.get("schema") not in READABLE:
        allowed, got = " or ".join(map(str, READABLE)), document.get("schema")
        raise UserError(f"{path}: schema: expected {allowed}, got {got!r:.40}; run the same command again")
    report = validated(Report, document, str(path))
    shown = report.figures.model_dump().values() if report.figures else ()
    for name in (*shown, *(name for row in report.rows for name, _ in row.pictures)):
        if name is not None and (Path(name).name != name or Path(name).suffix not in PICTURE_TYPES):
            raise UserError(expected(f"{path}: picture", "the name of a .png or .svg file next to the report", name))
    return report
