"""What the registry of published numbers holds: rows, protocols, papers, and what is known of their noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from sra.common.errors import UserError, did_you_mean
from sra.config import STRICT, parse_model_name

METRICS = ("fid", "sfid", "is", "precision", "recall")
LOWER_IS_BETTER = ("fid", "sfid")
NO_ADDRESS = "no address could be confirmed"
"""Of a source that is known by its name only."""


class RegistryError(UserError):
    """A registry that cannot be trusted: which line and row, what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Where a number can be looked up. Only what was confirmed is filled in."""

    __pydantic_config__ = STRICT

    title: str
    authors: tuple[str, ...] = ()
    year: int | None = None
    arxiv: str | None = None
    booktitle: str | None = None
    """Conference; none: the preprint is cited."""
    code: str | None = None
    """Repository that its authors publish."""

    @property
    def url(self) -> str | None:
        """The paper's page."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else None

    def bibtex(self, key: str) -> str | None:
        """A BibTeX entry; None for a paper of which no more than the name is known."""
        if not self.arxiv:
            return None
        fields = {"title": f"{{{self.title}}}", "author": " and ".join(self.authors), "year": str(self.year)}
        fields |= {"booktitle": self.booktitle} if self.booktitle else {"journal": f"arXiv preprint arXiv:{self.arxiv}"}
        fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
        return "\n".join([f"@{'inproceedings' if self.booktitle else 'article'}{{{key},", *lines, "}"])


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """What another device or library may change in the scores of one and the same file."""

    __pydantic_config__ = STRICT

    relative: float
    """Of FID, sFID and IS."""
    share: float
    """Of precision and recall, absolute."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How images were made and counted. None for a setting of the sampler: nobody has established it."""

    __pydantic_config__ = STRICT

    family: Literal["sit", "dit"] | None = None
    sampler: str | None = None
    steps: int | None = None
    last_step: float | None = None
    cfg: float = 1.0
    cfg_channels: Literal["all", 3] = "all"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    vae: str | None = None
    labels: Literal["random", "balanced"] = "random"
    images: int
    weights: Literal["ema", "model"] = "ema"
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "tf32"
    seeding: Literal["per-image", "public-code"] = "public-code"
    scores_only: bool = False
    """A given file is scored; nothing is trained or sampled."""
    arithmetic: Arithmetic | None = None
    note: str | None = None

    @property
    def unknown(self) -> list[str]:
        """Settings that would have to be known before anything can be compared."""
        names = () if self.scores_only else ("family", "sampler", "steps", "vae")
        return [name for name in names if getattr(self, name) is None]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How networks were trained; None: the source does not say."""

    __pydantic_config__ = STRICT

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


@dataclass(frozen=True, kw_only=True)
class AlsoPrinted:
    """Another value of the same result, printed elsewhere."""

    __pydantic_config__ = STRICT

    metric: str
    value: Decimal
    source: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published result."""

    __pydantic_config__ = STRICT

    id: str
    model: str
    """`SiT-XL/2` and the like: family, size, patch."""
    resolution: int
    protocol: str
    source: str
    kind: Literal["paper", "readme", "cited", "rerun"]
    """paper: the method's own; readme: its repository's; cited: printed in a later paper; rerun: by others."""
    papers: tuple[str, ...]
    metrics: tuple[Decimal | None, ...]
    """In the order of METRICS, with the digits as printed."""
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
    """What is assumed rather than known: reason enough not to compare."""

    def __post_init__(self) -> None:
        if len(self.metrics) != len(METRICS):
            raise ValueError(
                f"metrics: found {len(self.metrics)} values, needed are {', '.join(METRICS)}; null if absent"
            )
        if not self.source.strip() or not self.papers:
            raise ValueError("source and papers must say where the numbers are printed")
        for other in self.also_printed:
            if other.metric not in METRICS:
                raise ValueError(f"also_printed: unknown metric {other.metric!r}{did_you_mean(other.metric, METRICS)}")

    @property
    def printed(self) -> dict[str, Decimal]:
        """The metrics that the source prints."""
        return {name: value for name, value in zip(METRICS, self.metrics, strict=True) if value is not None}

    @property
    def align_kind(self) -> str | None:
        """Name of the alignment."""
        return self.align["kind"] if isinstance(self.align, dict) else self.align

    @property
    def size(self) -> tuple[str, str, int]:
        """(family, size, patch) of the model's name; only rows that sample have one."""
        name = parse_model_name(self.model)
        return name.family or "", str(name.size), name.patch


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Values that honest repetitions of one thing gave."""

    __pydantic_config__ = STRICT

    what: Literal["sampling", "training", "framework"]
    model: str
    align: str | None = None
    steps: int | None = None
    metric: str
    values: tuple[Decimal, ...]
    source: str
    url: str

    @property
    def width(self) -> Decimal:
        """The largest difference between two of them."""
        return max(self.values) - min(self.values)


@dataclass(frozen=True, kw_only=True)
class Unprinted:
    """Results of which only a curve is published."""

    __pydantic_config__ = STRICT

    family: str
    size: str | None = None
    align: str
    source: str
    papers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CostSource:
    """Where the printed costs stand, and on what they were measured."""

    __pydantic_config__ = STRICT

    source: str
    papers: tuple[str, ...]
    device: str
    devices: int
    global_batch: int


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """What an ImageNet evaluation uses: file names, reference by resolution."""

    __pydantic_config__ = STRICT

    graph: str
    references: dict[int, str]
    stored_statistics: bool


@dataclass(frozen=True, kw_only=True)
class Data:
    """The training set behind the rows."""

    __pydantic_config__ = STRICT

    images: int
    classes: int


@dataclass(frozen=True, kw_only=True)
class Network:
    """What every published network has in common."""

    __pydantic_config__ = STRICT

    label_init_std: float
    time_scale: float


@dataclass(frozen=True, kw_only=True)
class PublishedCodec:
    """The autoencoder of Stable Diffusion, in either of its two fine-tuned forms."""

    __pydantic_config__ = STRICT

    hub: str
    """Owner of the hub ids."""
    scale: float
    factor: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Everything in `published.yaml`."""

    __pydantic_config__ = STRICT

    metrics: tuple[str, ...]
    evaluator: Evaluator
    data: Data
    network: Network
    codec: PublishedCodec
    papers: dict[str, Paper]
    protocols: dict[str, Protocol]
    training: dict[str, Training]
    rows: tuple[Row, ...]
    unsettled_alignments: dict[str, str] = field(default_factory=dict)
    unprinted: tuple[Unprinted, ...] = ()
    spread: tuple[Spread, ...] = ()
    cost_source: CostSource
    cost: dict[str, tuple[float, float, float, float]]
    """By family and size: hours per epoch and GB, plain and with SRA."""

    def row(self, name: str) -> Row:
        """The row of an id.

        Raises:
            RegistryError: no such row.
        """
        known = {row.id: row for row in self.rows}
        if name not in known:
            raise RegistryError(
                f"published row {name!r}: not in the registry{did_you_mean(name, known)}; see sra-bench published"
            )
        return known[name]

    def address(self, row: Row) -> str | None:
        """Page of the paper that prints a row, or of the repository whose README does; None where none is known."""
        paper = self.papers[row.papers[0]]
        return paper.code if row.kind == "readme" else paper.url

    def images(self, row: Row) -> int:
        """Number of images behind a row's scores."""
        return row.images or self.protocols[row.protocol].images

    def steps(self, row: Row) -> int | None:
        """Optimizer steps behind a row; an epoch drops its incomplete batch."""
        if row.epochs is None:
            return row.steps
        batch = self.training[row.training].global_batch if row.training else None
        return row.epochs * (self.data.images // batch) if batch else None
