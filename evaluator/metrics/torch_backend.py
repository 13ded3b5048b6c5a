"""Products of features on a GPU, in whole float32."""

from __future__ import annotations

import torch
from torch import Tensor

from evaluator.metrics.rows import Array


class Torch:
    """On a device of torch; `evaluator.features.extractor` forbids TF32."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def put(self, array: Array) -> Tensor:
        """On the device."""
        return torch.from_numpy(array).to(self.device)

    def get(self, values: Tensor) -> Array:
        """On the processor."""
        found: Array = values.cpu().numpy()
        return found

    def places(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns."""
        rows, columns = chosen.nonzero(as_tuple=True)
        return rows, columns

    def kth_smallest(self, values: Tensor, k: int) -> Array:
        """(n,) float32."""
        return self.get(values.kthvalue(k, dim=1).values)

    def row_sums(self, values: Tensor) -> Array:
        """(n,) float64."""
        return self.get(values.sum(1, dtype=torch.float64))

    def expm1(self, values: Tensor) -> Tensor:
        """exp(x) - 1."""
        return values.expm1()

    def add_squares(self, total: Tensor, x: Array) -> Tensor:
        """Both triangles."""
        there = self.put(x)
        return total.addmm_(there.T, there)
