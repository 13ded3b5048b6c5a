"""Dispersive loss: push a block's outputs of different images apart; no head, no target (arXiv 2506.09027)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sra.alignment.base import Alignment, Batch, Terms, student_pass
from sra.config import DispersiveSettings
from sra.model.transformer import DiffusionTransformer


class Dispersive(Alignment):
    """The dispersive loss."""

    settings: DispersiveSettings

    def step(
        self,
        student: DiffusionTransformer,
        teacher: DiffusionTransformer | None,  # noqa: ARG002 - none is needed
        batch: Batch,
    ) -> Terms:
        """The loss has one value for each `local_batch` images: (N / local_batch,)."""
        assert self.settings.block is not None
        generation, hidden = student_pass(student, batch, self.settings.block)
        parts = torch.split(hidden.float().flatten(1), self.settings.local_batch)
        return Terms(
            generation=generation,
            alignment=torch.stack([dispersion(part, self.settings.tau) for part in parts]),
            student=hidden,
        )


def dispersion(z: Tensor, tau: float) -> Tensor:
    """log mean exp(-|z_i - z_j|^2 / (F tau)) over all i, j of z (N, F), both orders and i = j among them; a scalar."""
    pairs = F.pdist(z).pow(2) / (z.shape[1] * tau)
    return torch.cat([pairs, pairs, pairs.new_zeros(len(z))]).neg().exp().mean().log()
