"""FLOPs: multiply-accumulates (MACs) of a network's forward pass and of a training step. Torch-free.

One MAC is two FLOPs. Counted are matrix products (linears, attention, the patch convolution), adaLN included, and one
MAC for each value of each norm: with it the published numbers (DiT paper, Table 4) come out to the printed digit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from sra.config import GROUP_0_DIVISOR, AlignmentWork, AlignSettings, CodecConfig, ModelConfig

SINUSOIDS = 256
"""Input size of the timestep's MLP."""
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
    d, tokens = model.dimensions.width, model.tokens(codec)
    conditions = 2 if grouped else 1
    few = tokens // GROUP_0_DIVISOR
    pairs = few**2 + (tokens - few) ** 2 if separated else tokens**2
    patch = tokens * d * model.patch**2
    return Work(
        embedding=patch * codec.channels + conditions * (d * SINUSOIDS + d * d),
        block=12 * d * d * tokens + 2 * d * pairs + 2 * d * tokens + conditions * 6 * d * d,
        depth=model.dimensions.depth,
        final=patch * model.output_channels(codec) + d * tokens + conditions * 2 * d * d,
    )


def training_macs(model: ModelConfig, codec: CodecConfig, align: AlignSettings | None) -> int:
    """MACs for one image in a training step that computes nothing it does not need.

    Student and training head forward and backward, and the teacher up to its block.
    """
    patch_values = model.patch**2 * codec.channels
    work = AlignmentWork() if align is None else align.work(model.dimensions.width, patch_values)
    student = count(model, codec, grouped=work.grouped, separated=work.separated)
    head = model.tokens(codec) * sum(a * b for a, b in itertools.pairwise(work.head_widths))
    macs = (1 + BACKWARD) * (student.forward + head)
    if work.teacher_block is None:
        return macs
    teacher = count(model, codec) if work.teacher_plain else student
    return macs + teacher.hidden(work.teacher_block)
