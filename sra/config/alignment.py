"""Settings of the alignment methods; their losses are in `sra.alignment`.

Adding a method: a settings class and a line in `ALIGNMENTS` here, its loss and a line in `sra.alignment.LOSSES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ValidationError

from sra.common.errors import ConfigError, expected, one_of
from sra.common.validation import STRICT, adapter, boolean_as_number, one_line, prefixed
from sra.config.model import CodecConfig, ModelConfig

# SRA paper, section 4: student block, teacher block (counted from 1).
SRA_BLOCKS = {
    "sit": {"B": (3, 8), "L": (6, 16), "XL": (8, 20)},
    "dit": {"B": (3, 7), "L": (6, 14), "XL": (8, 16)},
}
SRA2_BLOCKS = {"sit": {"B": 2, "L": 8, "XL": 8}}
LAYERSYNC_BLOCKS = {"sit": {"L": (8, 18), "XL": (8, 16)}}
GROUP_0_DIVISOR = 4
"""Dual timesteps: group 0 holds T // 4 of an image's T tokens."""

Distance = Literal["smooth-l1", "l1", "l2", "cosine", "cosine-tokens"]
PUBLIC_DISTANCES: dict[str, Distance] = {"sml1": "smooth-l1", "l1": "l1", "l2": "l2", "cos": "cosine-tokens"}
"""By their names in the public code."""
TeacherInput = Literal["all-at-min", "own-times", "min-and-clean"]


class NoDefaultError(ConfigError):
    """A setting that must be given: none is published for this network."""


@dataclass(frozen=True, kw_only=True)
class AlignmentWork:
    """What an alignment adds to the computation of a training step; `sra.model.flops` counts it."""

    head_widths: tuple[int, ...] = ()
    """Widths of the training head's linear layers, input first; empty: no head."""
    teacher_block: int | None = None
    """Last block that the teacher computes, counted from 1; None: no teacher."""
    grouped: bool = False
    """Whether tokens are in two groups with a time each (student, and teacher unless `teacher_plain`)."""
    separated: bool = False
    """Whether attention stays inside a group."""
    teacher_plain: bool = False
    """Whether the teacher sees one time for all tokens."""


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """Base of every alignment's settings."""

    __pydantic_config__ = STRICT

    kind: str
    """Name of the method, see `ALIGNMENTS`."""
    needs_teacher = True
    """Whether training needs the averaged network's features."""

    def resolved(self, model: ModelConfig, codec: CodecConfig) -> Self:
        """The same settings with the defaults of this network filled in.

        Raises:
            NoDefaultError: a setting has no default for its size.
            ConfigError: a setting does not fit the network.
        """
        raise NotImplementedError

    def work(self, width: int, patch_values: int) -> AlignmentWork:  # noqa: ARG002 - none by default
        """Computation of a training step in addition to the student's; the settings must be resolved.

        Args:
            width: hidden size D of the network.
            patch_values: values p*p*C of one patch of the latent.
        """
        return AlignmentWork()

    def check_batch(self, images: int) -> None:
        """Check that the loss can be computed on the batch of one process.

        Args:
            images: of one forward pass.

        Raises:
            ConfigError: it cannot.
        """


@dataclass(frozen=True, kw_only=True)
class Interval:
    """How much less noisy the teacher's time is: exactly one of the two. DiT: the same part of its 1000 steps."""

    __pydantic_config__ = STRICT

    random: float | None = None
    """t' = t - U * random, U uniform per sample."""
    fixed: float | None = None
    """t' = t - fixed."""

    def __post_init__(self) -> None:
        if (self.random is None) == (self.fixed is None):
            given = "neither" if self.random is None else "both"
            raise ConfigError(f"expected exactly one of random and fixed in the interval, got {given}")
        if not 0 <= self.span <= 1:
            raise ConfigError(f"expected an interval in [0, 1], got {self.span}")

    @property
    def span(self) -> float:
        """The given one of the two."""
        return self.random if self.random is not None else self.fixed or 0.0


@dataclass(frozen=True, kw_only=True)
class SraSettings(AlignSettings):
    """Settings of SRA; defaults are the paper's."""

    kind: Literal["sra"] = "sra"
    blocks: tuple[int, int] | None = None
    """[m, n]: the student's and the teacher's block, counted from 1, m <= n; default by model size."""
    interval: Interval = field(default_factory=lambda: Interval(random=0.2))
    """How much less noisy the teacher's time is (public DiT parser: random 0.1, its README: 0.2)."""
    distance: Distance = "smooth-l1"
    """smooth-L1 (beta 0.05) in the paper; `cosine-tokens` is the public code's cosine over the token axis."""
    weight: float = 0.2
    """Weight of the alignment loss (paper: 0.2; public code: DiT 0.04, SiT with its cosine 0.5)."""
    weight_schedule: Literal["constant", "public-code"] = "constant"
    """`public-code`: the decay in the authors' training loop, for SiT and DiT alike."""
    head: bool = True
    """Whether the student's output goes through Linear(D, 2D), SiLU, Linear(2D, D)."""
    teacher_precision: Literal["autocast", "fp32"] = "autocast"
    """`fp32`: the teacher runs outside autocast, as in the public code."""

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def resolved(self, model: ModelConfig, codec: CodecConfig) -> Self:  # noqa: ARG002 - the base class has it
        """See the base class."""
        return replace(self, blocks=check_blocks(self.blocks or SRA_BLOCKS[model.family].get(model.size_label), model))

    def work(self, width: int, patch_values: int) -> AlignmentWork:  # noqa: ARG002 - the base class has it
        """See the base class."""
        return AlignmentWork(head_widths=_sra_head(width, self.head), teacher_block=_teacher_block(self.blocks))


@dataclass(frozen=True, kw_only=True)
class Sra2Settings(AlignSettings):
    """Settings of SRA 2; defaults are the paper's. The MLP's activation is not published, its width is inferred."""

    kind: Literal["sra2"] = "sra2"
    needs_teacher = False
    block: int | None = None
    """The aligned block, counted from 1; default by model size."""
    mlp_width: int | None = None
    """Hidden width of the MLP; default: 2 D, inferred from four printed counts (B: 1 M and 8 M parameters with 2 and 5
    layers; XL: 18 M, and 4 % more GFLOPs)."""
    mlp_activation: Literal["silu", "gelu", "relu"] | None = None
    """Between the MLP's linears. Not published: must be given."""
    mlp_layers: int = 5
    """Linear layers of the MLP."""
    distance: Distance = "smooth-l1"
    """smooth-L1 with beta 0.05 in the paper."""
    weight: float = 1.0
    """Weight of the alignment loss, constant."""

    def __post_init__(self) -> None:
        for name in ("mlp_layers", "mlp_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(expected(name, "a positive integer", value))
        check_weight(self.weight)

    def resolved(self, model: ModelConfig, codec: CodecConfig) -> Self:  # noqa: ARG002 - the base class has it
        """See the base class."""
        block = self.block if self.block is not None else SRA2_BLOCKS.get(model.family, {}).get(model.size_label)
        if block is None:
            raise NoDefaultError(f"align.block: missing, no default is published for {model.name}")
        block = check_block(block, model)
        if self.mlp_activation is None:
            raise NoDefaultError("align.mlp_activation: missing, no default is published")
        return replace(self, block=block, mlp_width=self.mlp_width or 2 * model.dimensions.width)

    def mlp_widths(self, width: int, patch_values: int) -> tuple[int, ...]:
        """Widths of the MLP's linear layers, from the network's hidden size to the values of one patch."""
        assert self.mlp_width is not None
        return (width, *[self.mlp_width] * (self.mlp_layers - 1), patch_values)

    def work(self, width: int, patch_values: int) -> AlignmentWork:
        """See the base class."""
        return AlignmentWork(head_widths=self.mlp_widths(width, patch_values))


@dataclass(frozen=True, kw_only=True)
class DualTimestepSettings(AlignSettings):
    """Common settings of `self-flow` and `dts-as`, which differ in the defaults of `teacher` and `separated`."""

    blocks: tuple[int, int] | None = None
    """[m, n]: the student's and the teacher's block, counted from 1, m <= n; default by model size, as SRA's."""
    teacher: TeacherInput = "all-at-min"
    """`all-at-min`: all tokens at min(t), no groups. `own-times`: the grouping, each group at its own t - U * interval.
    `min-and-clean`: the grouping, group 0 at min(t), group 1 clean, both conditioned at min(t)."""
    separated: bool = False
    """Whether attention stays inside a group during training, for a teacher that keeps the grouping too."""
    interval: float = 0.2
    """Of `own-times`: largest difference of the teacher's time, drawn per group and sample."""
    distance: Distance = "cosine-tokens"
    """The public code's cosine over the token axis, which its rows used."""
    weight: float = 0.5
    """Weight of the alignment loss, constant."""
    head: bool = True
    """Whether the student's output goes through SRA's head."""
    teacher_precision: Literal["autocast", "fp32"] = "autocast"
    """`fp32`: the teacher runs outside autocast."""

    def __post_init__(self) -> None:
        if not 0 <= self.interval <= 1:
            raise ConfigError(expected("interval", "a number in [0, 1]", self.interval))
        check_weight(self.weight)

    def resolved(self, model: ModelConfig, codec: CodecConfig) -> Self:
        """See the base class."""
        if model.family != "sit":
            raise ConfigError(expected("model.family", f"'sit' for align.kind {self.kind!r}", model.family))
        tokens = model.tokens(codec)
        if tokens % GROUP_0_DIVISOR:
            what = f"a multiple of {GROUP_0_DIVISOR} tokens for align.kind {self.kind!r}"
            raise ConfigError(expected("model.resolution", what, tokens))
        return replace(self, blocks=check_blocks(self.blocks or SRA_BLOCKS["sit"].get(model.size_label), model))

    def work(self, width: int, patch_values: int) -> AlignmentWork:  # noqa: ARG002 - the base class has it
        """See the base class."""
        return AlignmentWork(
            head_widths=_sra_head(width, self.head),
            teacher_block=_teacher_block(self.blocks),
            grouped=True,
            separated=self.separated,
            teacher_plain=self.teacher == "all-at-min",
        )


@dataclass(frozen=True, kw_only=True)
class SelfFlowSettings(DualTimestepSettings):
    """Self-Flow: a teacher that sees all tokens at the lower of two noise levels (arXiv 2603.06507)."""

    kind: Literal["self-flow"] = "self-flow"


@dataclass(frozen=True, kw_only=True)
class DtsAsSettings(DualTimestepSettings):
    """DTS + AS: attention separated by group, for student and teacher (arXiv 2607.02508)."""

    kind: Literal["dts-as"] = "dts-as"
    teacher: TeacherInput = "own-times"
    """See `DualTimestepSettings`."""
    separated: bool = True
    """See `DualTimestepSettings`."""


@dataclass(frozen=True, kw_only=True)
class LayerSyncSettings(AlignSettings):
    """LayerSync: an earlier block aligned with a later one of the same forward pass (arXiv 2510.12581)."""

    kind: Literal["layersync"] = "layersync"
    needs_teacher = False
    blocks: tuple[int, int] | None = None
    """[k, k']: the aligned block and its target, counted from 1, k < k'; default by model size (B is not printed)."""
    weight: float = 0.2
    """Weight of the alignment loss, constant (public parser: 0.2; paper: 0.2 to 0.3)."""

    def __post_init__(self) -> None:
        check_weight(self.weight)

    def resolved(self, model: ModelConfig, codec: CodecConfig) -> Self:  # noqa: ARG002 - the base class has it
        """See the base class."""
        default = LAYERSYNC_BLOCKS.get(model.family, {}).get(model.size_label)
        return replace(self, blocks=check_blocks(self.blocks or default, model, apart=True))


@dataclass(frozen=True, kw_only=True)
class DispersiveSettings(AlignSettings):
    """Dispersive loss (arXiv 2506.09027); defaults are the public PyTorch code's. Paper: L // 4, 0.5, 0.5 and 16."""

    kind: Literal["dispersive"] = "dispersive"
    needs_teacher = False
    block: int | None = None
    """The dispersed block, counted from 1; default: the last."""
    tau: float = 1.0
    """Temperature of the squared distances, which are means over tokens and channels."""
    weight: float = 0.25
    """Weight of the loss, constant."""
    local_batch: int = 32
    """Images that are compared with each other: the batch of one GPU in the public code; it must divide that of every
    process here, whose number changes nothing."""

    def __post_init__(self) -> None:
        if self.tau <= 0:
            raise ConfigError(expected("tau", "a positive number", self.tau))
        if self.local_batch < 2:
            raise ConfigError(expected("local_batch", "at least 2 images", self.local_batch))
        check_weight(self.weight)

    def resolved(self, model: ModelConfig, codec: CodecConfig) -> Self:  # noqa: ARG002 - the base class has it
        """See the base class."""
        block = model.dimensions.depth if self.block is None else self.block
        return replace(self, block=check_block(block, model))

    def check_batch(self, images: int) -> None:
        """See the base class."""
        if images % self.local_batch:
            what = f"a divisor of {images}, the images of one process (global_batch / processes / accumulate)"
            raise ConfigError(expected("align.local_batch", what, self.local_batch))


ALIGNMENTS: dict[str, type[AlignSettings]] = {
    "sra": SraSettings,
    "sra2": Sra2Settings,
    "self-flow": SelfFlowSettings,
    "dts-as": DtsAsSettings,
    "layersync": LayerSyncSettings,
    "dispersive": DispersiveSettings,
}
"""Settings class of each alignment, by its `kind`."""


def settings_class(kind: str) -> type[AlignSettings]:
    """The settings class of one alignment.

    Raises:
        ConfigError: no such alignment.
    """
    if kind not in ALIGNMENTS:
        raise ConfigError(one_of("align", kind, [*ALIGNMENTS, "none"]))
    return ALIGNMENTS[kind]


def read_alignment(plain: Mapping[str, Any]) -> AlignSettings:
    """Settings of the class that the key `kind` names.

    Raises:
        ConfigError: no such alignment, an unknown key, or a value that the class refuses.
    """
    if "kind" not in plain:
        raise ConfigError("align.kind: missing, it has no default")
    cls = settings_class(str(plain["kind"]))
    if (key := boolean_as_number(cls, plain)) is not None:
        raise ConfigError(f"align.{key}: expected a number, got a boolean")
    try:
        # mypy takes the hash of the instances for that of the class.
        settings: AlignSettings = adapter(cls).validate_python(dict(plain))  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(prefixed("align", one_line(cls, error))) from error
    return settings


AnyAlignment = Annotated[AlignSettings, BeforeValidator(lambda v: read_alignment(v) if isinstance(v, Mapping) else v)]
"""Annotation of a field that holds the settings of any alignment: a mapping is read by its `kind`."""


def check_block(block: int, model: ModelConfig) -> int:
    """A block, given or by default.

    Raises:
        ConfigError: the network has no such block.
    """
    depth = model.dimensions.depth
    if not 1 <= block <= depth:
        raise ConfigError(expected("align.block", f"a block from 1 to {depth} (depth)", block))
    return block


def check_blocks(blocks: tuple[int, int] | None, model: ModelConfig, *, apart: bool = False) -> tuple[int, int]:
    """The student's and the teacher's block, given or by default.

    Args:
        blocks: [m, n], or None.
        model: their network.
        apart: whether they must differ.

    Raises:
        ConfigError: there is no default, or the blocks do not fit the depth.
    """
    if blocks is None:
        raise NoDefaultError(f"align.blocks: missing, no default is published for {model.name}; give [m, n]")
    m, n = blocks
    depth = model.dimensions.depth
    if not 1 <= m <= n <= depth or (apart and m == n):
        order = "<" if apart else "<="
        raise ConfigError(expected("align.blocks", f"[m, n] with 1 <= m {order} n <= {depth} (depth)", [m, n]))
    return blocks


def check_weight(weight: float) -> None:
    """Refuse a negative weight.

    Raises:
        ConfigError: it is negative.
    """
    if weight < 0:
        raise ConfigError(expected("weight", "a number of at least 0", weight))


def _sra_head(width: int, present: bool) -> tuple[int, ...]:
    return (width, 2 * width, width) if present else ()


def _teacher_block(blocks: tuple[int, int] | None) -> int:
    assert blocks is not None
    return blocks[1]
