"""Counted work of a network: multiply-accumulates (MACs) of its forward pass and of a training step. Torch-free.

One MAC is two FLOPs. Counted are matrix products (linears, attention, the patch convolution), adaLN included, and one
MAC for each value of each norm: with it the published numbers (DiT paper, Table 4) come out to the printed digit.
"""

from __future__ import annotations

from dataclasses import dataclass

from sra.alignment.registry import AlignSettings
from sra.config import CodecConfig, ModelConfig

SINUSOIDS = 256
"""Inputs of the timestep's MLP."""
GROUP_PARTS = 4
"""Dual timesteps: one token of so many is in the smaller group."""
BACKWARD = 2
"""A backward pass multiplies by the weights and by the inputs: twice the forward pass."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """MACs for one image of a network's parts, in one forward pass."""

    embedding: int
    """Patches and condition."""
    block: int
    """One block."""
    depth: int
    final: int
    """Final layer."""

    @property
    def forward(self) -> int:
        """The whole network, without a training head."""
        return self.hidden(self.depth) + self.final

    def hidden(self, block: int) -> int:
        """Up to a block, counted from 1."""
        return self.embedding + block * self.block


def tokens_of(model: ModelConfig, codec: CodecConfig) -> int:
    """Patches of one latent."""
    return (model.resolution // codec.factor // model.patch) ** 2


def outputs_of(model: ModelConfig, codec: CodecConfig) -> int:
    """Channels that the network predicts: only SiT in the convention `sra` predicts no second half."""
    single = model.family == "sit" and model.convention == "sra"
    return codec.channels * (1 if single else 2)


def count(model: ModelConfig, codec: CodecConfig, *, grouped: bool = False, separated: bool = False) -> Work:
    """MACs for one image.

    Per block and token 12 D^2 in the linears, 2 T D in attention and 2 D in norms; per block and condition 6 D^2 in
    adaLN.

    Args:
        model: the network.
        codec: for the latent's shape.
        grouped: two groups of tokens, hence two conditions an image.
        separated: attention stays inside a group, which covers fewer pairs of tokens.
    """
    d, tokens = model.dimensions.width, tokens_of(model, codec)
    conditions = 2 if grouped else 1
    few = tokens // GROUP_PARTS
    pairs = few**2 + (tokens - few) ** 2 if separated else tokens**2
    patch = tokens * d * model.patch**2
    return Work(
        embedding=patch * codec.channels + conditions * (d * SINUSOIDS + d * d),
        block=12 * d * d * tokens + 2 * d * pairs + 2 * d * tokens + conditions * 6 * d * d,
        depth=model.dimensions.depth,
        final=patch * outputs_of(model, codec) + d * tokens + conditions * 2 * d * d,
    )


def training_macs(model: ModelConfig, codec: CodecConfig, align: AlignSettings | None) -> int:
    """MACs for one image in a training step that computes nothing it does not need.

    Student and training head forward and backward, and the teacher up to its block.
    """
    grouped, separated = hasattr(align, "separated"), getattr(align, "separated", False)
    student = count(model, codec, grouped=grouped, separated=separated)
    macs = (1 + BACKWARD) * (student.forward + _head(model, codec, align))
    if align is None or not align.needs_teacher:
        return macs
    alone = getattr(align, "teacher", None) == "all-at-min"
    teacher = count(model, codec) if alone else student
    blocks: tuple[int, int] = align.blocks  # type: ignore[attr-defined]
    return macs + teacher.hidden(blocks[1])


def _head(model: ModelConfig, codec: CodecConfig, align: AlignSettings | None) -> int:
    """SRA's two linears, or SRA 2's MLP to the values of a patch."""
    d, tokens = model.dimensions.width, tokens_of(model, codec)
    if getattr(align, "head", False):
        return 4 * d * d * tokens
    width = getattr(align, "mlp_width", None)
    if width is None:
        return 0
    width, layers = int(width), int(align.mlp_layers)  # type: ignore[union-attr]
    return tokens * width * (d + (layers - 2) * width + model.patch**2 * codec.channels)
