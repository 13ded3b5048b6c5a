"""SRA 2: align one block, through an MLP, with the patches of the clean latent; no teacher (arXiv 2601.17830)."""

from __future__ import annotations

import itertools

from torch import nn

from sra.alignment.base import Alignment, Batch, Terms, project, student_pass
from sra.alignment.distances import DISTANCES
from sra.config import Sra2Settings
from sra.model.transformer import DiffusionTransformer, Shape


class CleanLatent(Alignment):
    """The loss of SRA 2."""

    settings: Sra2Settings

    def head(self, shape: Shape) -> nn.Module:
        """The MLP from the block's width to the values of one patch."""
        assert self.settings.mlp_activation is not None
        activation = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU}[self.settings.mlp_activation]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(self.settings.mlp_widths(shape.width, shape.patch_values)):
            layers += [nn.Linear(before, after), activation()]
        return nn.Sequential(*layers[:-1])

    def step(
        self,
        student: DiffusionTransformer,
        teacher: DiffusionTransformer | None,  # noqa: ARG002 - none is needed
        batch: Batch,
    ) -> Terms:
        """The target is the clean latent, cut into the network's patches."""
        assert self.settings.block is not None
        generation, hidden = student_pass(student, batch, self.settings.block)
        projected, target = project(student, hidden).float(), student.patchify(batch.x).float()
        alignment = DISTANCES[self.settings.distance](projected, target)
        return Terms(generation=generation, alignment=alignment, student=hidden)
