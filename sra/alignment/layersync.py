"""LayerSync: align a block with a later one of the same forward pass; no head, no teacher (arXiv 2510.12581)."""

from __future__ import annotations

import torch.nn.functional as F

from sra.alignment.base import Alignment, Batch, Terms, student_pass
from sra.config import LayerSyncSettings
from sra.model.transformer import DiffusionTransformer


class LayerSync(Alignment):
    """The loss of LayerSync."""

    settings: LayerSyncSettings

    def step(
        self,
        student: DiffusionTransformer,
        teacher: DiffusionTransformer | None,  # noqa: ARG002 - none is needed
        batch: Batch,
    ) -> Terms:
        """The loss (N, T) is the negative cosine over channels; no gradient flows through the later block's output."""
        assert self.settings.blocks is not None
        generation, hidden, target = student_pass(student, batch, *self.settings.blocks)
        return Terms(
            generation=generation,
            alignment=-F.cosine_similarity(hidden.float(), target.detach().float(), dim=-1),
            student=hidden,
            teacher=target,
        )
