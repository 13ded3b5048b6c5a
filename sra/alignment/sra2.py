"""SRA 2: one block, through an MLP, to the patches of the clean latent; no teacher (arXiv 2601.17830)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from sra.alignment.registry import AlignSettings, NetworkFacts, check_weight
from sra.alignment.sra import Distance
from sra.common.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sra.alignment.protocol import Batch
    from sra.model.transformer import DiffusionTransformer, Shape

BLOCKS = {"sit": {"B": 2, "L": 8, "XL": 8}}


@dataclass(frozen=True, kw_only=True)
class Settings(AlignSettings):
    """Settings of SRA 2; defaults are the paper's. The MLP's width and activation are not published."""

    needs_teacher: ClassVar[bool] = False

    kind: Literal["sra2"] = "sra2"
    block: int | None = None
    """The aligned block, counted from 1; default by model size."""
    mlp_width: int | None = None
    """Hidden width of the MLP. Not published: must be given (1440 gives the paper's 8 M parameters at XL)."""
    mlp_activation: Literal["silu", "gelu", "relu"] | None = None
    """Between the MLP's linears. Not published: must be given."""
    mlp_layers: int = 5
    """Linear layers of the MLP."""
    distance: Distance = "smooth-l1"
    """smooth-L1 with beta 0.05 in the paper."""
    weight: float = 1.0
    """Weight of the alignment loss, constant."""

    def __post_init__(self) -> None:
        if self.mlp_layers < 1 or (self.mlp_width is not None and self.mlp_width < 1):
            raise ConfigError("mlp_layers and mlp_width must be positive")
        check_weight(self.weight)

    def resolved(self, network: NetworkFacts) -> Self:
        """See the base class."""
        block = self.block if self.block is not None else BLOCKS.get(network.family, {}).get(network.size)
        if block is None:
            raise ConfigError(f"align.block has no published default for {network.family} of size {network.size!r}")
        if not 1 <= block <= network.depth:
            raise ConfigError(f"align.block must lie between 1 and {network.depth} (depth), found {block}")
        for key in ("mlp_width", "mlp_activation"):
            if getattr(self, key) is None:
                raise ConfigError(f"align.{key}: missing, and not published: it must be given")
        return replace(self, block=block)

    def build(self, resolution: int) -> CleanLatent:  # noqa: ARG002 - the weight is constant
        """See the base class."""
        return CleanLatent(self)


class CleanLatent:
    """See the module; an `Alignment`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def head(self, shape: Shape) -> nn.Module:
        """The MLP from the block's width to the values of one patch."""
        from torch import nn

        settings = self.settings
        assert settings.mlp_width is not None
        assert settings.mlp_activation is not None
        activation = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU}[settings.mlp_activation]
        hidden = [settings.mlp_width] * (settings.mlp_layers - 1)
        widths = [shape.width, *hidden, shape.patch**2 * shape.channels]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        return nn.Sequential(*layers[:-1])

    def weight(self, epoch: float) -> float:  # noqa: ARG002 - constant in the paper
        """See the settings."""
        return self.settings.weight

    def step(
        self,
        student: DiffusionTransformer,
        teacher: DiffusionTransformer | None,  # noqa: ARG002 - none is needed
        batch: Batch,
    ) -> tuple[Tensor, Tensor]:
        """The target is the clean latent, cut into the network's patches."""
        from sra.alignment.distances import DISTANCES
        from sra.alignment.protocol import projected

        x_t = batch.objective.corrupt(batch.x, batch.noise, batch.t)
        prediction, hidden = student(x_t, batch.t, batch.y, tap=self.settings.block)
        found = projected(student, hidden).float()
        alignment = DISTANCES[self.settings.distance](found, student.patchify(batch.x).float())
        return batch.objective.loss(prediction, batch.x, batch.noise, batch.t), alignment
