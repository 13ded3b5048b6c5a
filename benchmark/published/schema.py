"""The published results: rows, protocols, claims, papers, and the known spread between repeated trainings."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from statistics import median
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, StringConstraints, model_validator

from sra.common.errors import UserError, expected
from sra.config import AlignSettings, CodecConfig, ModelConfig, from_plain, parse_model_name, read_alignment

Metric = Literal["fid", "sfid", "is", "precision", "recall"]
METRICS: tuple[Metric, ...] = get_args(Metric)
LOWER_IS_BETTER = ("fid", "sfid")
NO_ADDRESS = "no address could be confirmed"
"""Said of a source that is known by name only."""
SUMMARY_ONLY = "its numbers were read in a summary of the paper, not in the paper: check them before you rely on this"
"""Said of rows of the kind `note`."""
MAD_TO_DEVIATION = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""


def robust_deviation(values: Sequence[Decimal]) -> float:
    """Robust standard deviation: the median absolute deviation from the median, scaled; one outlier does not count.

    Of two values, 0.74 of their difference; of three, 1.48 times the smaller of the two gaps.
    """
    middle = median(values)
    return MAD_TO_DEVIATION * float(median(abs(value - middle) for value in values))


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""Not empty."""


class RegistryError(UserError):
    """An invalid registry: which line and row, what is wrong."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Paper(_Entry):
    """A paper; only confirmed fields are filled in."""

    title: str
    authors: tuple[str, ...] = ()
    year: int | None = None
    arxiv: str | None = None
    booktitle: str | None = None
    """Conference; None: the preprint is cited."""
    code: str | None = None
    """Repository of the authors."""

    @property
    def url(self) -> str | None:
        """The paper's page."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None

    def bibtex(self, key: str) -> str | None:
        """The BibTeX entry; None if only the title is known."""
        if not self.arxiv:
            return None
        fields = {"title": f"{{{self.title}}}", "author": " and ".join(self.authors), "year": str(self.year)}
        fields |= {"booktitle": self.booktitle} if self.booktitle else {"journal": f"arXiv preprint arXiv:{self.arxiv}"}
        fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        return "\n".join([f"@{'inproceedings' if self.booktitle else 'article'}{{{key},", *lines, "}"])


class Arithmetic(_Entry):
    """How much another device or library may change the scores of the same file."""

    relative: float
    """Of FID, sFID and IS."""
    share: float
    """Of precision and recall, absolute."""


class Protocol(_Entry):
    """How images were sampled and scored; None: the setting is not known."""

    family: Literal["sit", "dit"] | None = None
    sampler: str | tuple[str, ...] | None = None
    """Several: either is admitted."""
    steps: int | None = None
    """None: at least `least_steps` of them, or the sampler chooses."""
    least_steps: int | None = None
    allowance: dict[Metric, NonNegativeFloat] = {}
    """By metric: how far the admitted settings may differ from the one that was used; the note has its source."""
    last_step: float | None = None
    cfg: float = 1.0
    cfg_channels: Literal["all", 3] = "all"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    vae: str | None = None
    labels: Literal["random", "balanced"] = "random"
    images: int
    weights: Literal["ema", "model"] = "ema"
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "tf32"
    vae_precision: Literal["fp32", "tf32", "bf16", "fp16"] = "tf32"
    pixels: Literal["truncate", "round"] = "truncate"
    """How decoded pixels become whole numbers."""
    seeding: Literal["per-image", "public-code"] = "public-code"
    scores_only: bool = False
    """A given file is scored; nothing is trained or sampled."""
    arithmetic: Arithmetic | None = None
    note: str | None = None

    @property
    def unknown(self) -> list[str]:
        """Settings that must be known before anything can be compared."""
        names = () if self.scores_only else ("family", "sampler", "steps", "vae")
        return [n for n in names if getattr(self, n) is None and not (n == "steps" and self.least_steps)]

    @property
    def samplers(self) -> tuple[str, ...]:
        """Those that are admitted."""
        return (self.sampler,) if isinstance(self.sampler, str) else self.sampler or ()


class Training(_Entry):
    """How networks were trained; None: the source does not state it."""

    global_batch: int | None = None
    lr: float | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    weight_decay: float | None = None
    warmup_steps: int | None = None
    clip: float | None = None
    precision: Literal["fp32", "tf32", "fp16", "bf16"] | None = None
    ema_decay: float | None = None
    ema_schedule: str | None = None
    label_dropout: float | None = None
    times: str | None = None
    interpolant: str | None = None
    flip: bool | None = None


class AlsoPrinted(_Entry):
    """Another value of the same result, printed elsewhere."""

    metric: Metric
    value: Decimal
    source: Text


class Row(_Entry):
    """One published result."""

    id: str
    model: str
    """`SiT-XL/2` and the like: family, size, patch."""
    resolution: int
    protocol: str
    source: Text
    kind: Literal["paper", "readme", "cited", "rerun", "note"]
    """paper: the method's own; readme: its repository's; cited: printed in a later paper; rerun: by others; note: read
    in a summary of the paper."""
    papers: Annotated[tuple[str, ...], Field(min_length=1)]
    metrics: tuple[Decimal | None, ...]
    """In the order of METRICS, with the digits as printed."""
    changed: datetime.date
    """When this entry was last changed."""
    steps: int | None = None
    epochs: int | None = None
    images: int | None = None
    """Where it differs from the protocol's."""
    align: str | dict[str, Any] | None = None
    training: str | None = None
    checkpoint: str | None = None
    """File name of the weights that the authors publish for this row."""
    convention: str | None = None
    """Of those weights."""
    samples: str | None = None
    """File name of the samples, where the row scores a given file."""
    also_printed: tuple[AlsoPrinted, ...] = ()
    unsettled: str | None = None
    """An unconfirmed assumption of the row: nothing is compared with it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.metrics) != len(METRICS):
            what = f"{len(METRICS)} values ({', '.join(METRICS)}; null if absent)"
            raise ValueError(expected("metrics", what, len(self.metrics)))
        if bool(self.checkpoint) != bool(self.convention):
            raise ValueError(expected("checkpoint, convention", "both or neither", self.checkpoint or self.convention))
        return self

    @property
    def printed(self) -> dict[str, Decimal]:
        """The metrics that the source prints."""
        return {name: value for name, value in zip(METRICS, self.metrics, strict=True) if value is not None}

    @property
    def align_kind(self) -> str | None:
        """Name of the alignment."""
        return str(self.align.get("kind")) if isinstance(self.align, dict) else self.align

    @property
    def size(self) -> tuple[str, str, int]:
        """(family, size, patch) of the model's name; only rows that sample have one."""
        name = parse_model_name(self.model)
        return name.family or "", str(name.size), name.patch

    def alignment(self) -> AlignSettings:
        """The alignment settings: those that the row names, otherwise the defaults for its model size.

        Raises:
            NoDefaultError: a setting is not published.
            ConfigError: this suite has no such alignment or setting.
        """
        plain = self.align if isinstance(self.align, dict) else {"kind": self.align}
        family, size, patch = self.size
        network = {"family": family, "size": size, "patch": patch, "resolution": self.resolution, "convention": "sra"}
        return read_alignment(plain).resolved(from_plain(ModelConfig, network), CodecConfig())


class Spread(_Entry):
    """Values from repetitions of the same experiment."""

    what: Literal["sampling", "training", "framework", "solver", "labels"]
    model: str
    """Or only its family: `SiT`."""
    align: str | None = None
    steps: int | None = None
    metric: Metric
    values: Annotated[tuple[Decimal, ...], Field(min_length=2)]
    source: Text
    url: str

    @property
    def deviation(self) -> float:
        """Robust standard deviation of the values."""
        return robust_deviation(self.values)

    def of(self, model: str) -> bool:
        """Whether it is about a model."""
        return self.model == model or model.startswith(f"{self.model}-")


class Claim(_Entry):
    """What a paper says that a method changes: the row `with` minus the row `without`."""

    id: str
    what: str
    """In words: which method, on which network, after how many steps."""
    without: str
    with_: str = Field(alias="with")
    metric: Metric
    source: Text
    note: str | None = None


class Change(_Entry):
    """An entry of the change log."""

    date: datetime.date
    what: str


class Unprinted(_Entry):
    """Results that are published as a curve only."""

    family: str
    size: str | None = None
    align: str
    source: str
    papers: tuple[str, ...]


class CostSource(_Entry):
    """Where the published costs are printed, and the machine they were measured on."""

    source: str
    papers: tuple[str, ...]
    device: str
    device_gb: float
    """Memory of one device."""
    devices: int
    global_batch: int


class Evaluator(_Entry):
    """Files of an ImageNet evaluation: the graph, and the reference by resolution."""

    graph: str
    references: dict[int, str]
    stored_statistics: bool


class Data(_Entry):
    """The training set of the rows."""

    images: int
    classes: int


class Network(_Entry):
    """Settings that all published networks share."""

    label_init_std: float
    time_scale: float


class PublishedCodec(_Entry):
    """The Stable Diffusion autoencoder, in either of its two fine-tuned versions."""

    hub: str
    """Owner on the Hugging Face Hub."""
    scale: float
    factor: int
    channels: int


class Registry(_Entry):
    """Everything in `published.yaml`."""

    metrics: tuple[str, ...]
    evaluator: Evaluator
    data: Data
    network: Network
    codec: PublishedCodec
    papers: dict[str, Paper]
    protocols: dict[str, Protocol]
    training: dict[str, Training]
    rows: tuple[Row, ...]
    unsettled_alignments: dict[str, str] = {}
    """Why rows with them are not comparable."""
    foreign_alignments: dict[str, str] = {}
    """Why this suite cannot train rows with them."""
    foreign_settings: dict[str, tuple[str, ...]] = {}
    """Of rows, by alignment: those that no alignment of this suite has."""
    unprinted: tuple[Unprinted, ...] = ()
    spread: tuple[Spread, ...] = ()
    cost_source: CostSource
    cost: dict[str, tuple[float, float, float, float]]
    """By family and size: hours per epoch and GB, plain and with SRA."""
    claims: tuple[Claim, ...] = ()
    changes: tuple[Change, ...] = ()

    def row(self, name: str) -> Row:
        """The row of an id.

        Raises:
            RegistryError: no such row.
        """
        known = {row.id: row for row in self.rows}
        if name not in known:
            what = "the id of a published row (see sra-bench published)"
            raise RegistryError(expected("published", what, name, known))
        return known[name]

    def printed_change(self, claim: Claim) -> Decimal:
        """With minus without, as printed."""
        return self.row(claim.with_).printed[claim.metric] - self.row(claim.without).printed[claim.metric]

    def address(self, row: Row) -> str | None:
        """Page of the paper that prints a row, or of the repository whose README does; None where none is known."""
        paper = self.papers[row.papers[0]]
        return paper.code if row.kind == "readme" else paper.url

    def images(self, row: Row) -> int:
        """Number of images that a row was scored on."""
        return row.images or self.protocols[row.protocol].images

    def steps(self, row: Row) -> int | None:
        """Optimizer steps of a row; an epoch drops its incomplete batch."""
        if row.epochs is None:
            return row.steps
        batch = self.training[row.training].global_batch if row.training else None
        return row.epochs * (self.data.images // batch) if batch else None
