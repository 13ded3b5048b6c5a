"""Training notices a loss or gradient that is not a number before the optimizer touches anything.

Read at every step, losses and norm make the host wait for the device. Read late (`losses=logged`), the device itself
keeps the promise: at the first such step it sets a flag that is never cleared, and as long as it is set the fused
optimizer skips its update (`found_inf`) and the average keeps its weights. Whenever the host looks (at each logged
step, and before anything is saved), a set flag ends the run with the step and the values that set it: weights, moments
and average are then those before that step, to the bit, however many steps were skipped since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch import distributed as dist

Judge = Callable[[int, float, float], bool]
"""(step counted from 0, mean loss, gradient norm) to whether the optimizer may step; raises what ends the run."""


class FiniteCheck:
    """Watches every step; see the module."""

    def __init__(self, judge: Judge, device: torch.device, *, late: bool, scaled: bool) -> None:
        """Nothing has happened yet.

        Args:
            judge: of numbers on the host.
            device: of the losses.
            late: whether the host looks only when `look` is called.
            scaled: whether an fp16 scaler skips steps whose gradient overflows; then only the loss counts.
        """
        self.judge, self.late, self.scaled = judge, late, scaled
        self.spoiled = torch.zeros((), dtype=torch.bool, device=device) if late else None
        self._first = torch.zeros(3, dtype=torch.float64, device=device)
        self._overflows = torch.zeros((), dtype=torch.int64, device=device)

    def poisoned(self, loss: Tensor) -> Tensor:
        """The loss, or NaN after a bad step: the scaler then skips every step that follows."""
        if self.spoiled is None or not self.scaled:
            return loss
        # A factor: the gradient of `where` would be zero, and no reason for the scaler to skip.
        return loss * torch.where(self.spoiled, torch.nan, 1.0)

    def permits(self, step: int, totals: Sequence[Tensor], norm: Tensor, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the host lets the optimizer step; asked between the gradients and that step.

        Args:
            step: counted from 0.
            totals: loss () of each forward pass.
            norm: of the gradient, ().
            optimizer: torch's own, not a wrapper.
        """
        loss = torch.stack([total.detach().float() for total in totals]).mean()
        if self.spoiled is None:
            return self.judge(step, float(loss), float(norm))
        values = torch.stack([torch.full_like(loss, step), loss, norm.detach().float()]).double()
        bad = ~(values[1] if self.scaled else values).isfinite().all()
        self._first = torch.where(bad & ~self.spoiled, values, self._first)
        self.spoiled |= bad
        if self.scaled:
            self._overflows += ~norm.isfinite()
        else:
            # What torch's fused optimizers look for; a scaler sets it itself.
            optimizer.found_inf = self.spoiled.float()  # type: ignore[attr-defined]
        return True

    def _seen(self) -> list[float]:
        """The flag and what set it, of the first process whose flag is set: a loss is each process's own."""
        assert self.spoiled is not None
        own = torch.cat([self.spoiled.double().reshape(1), self._first])
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return own.tolist()
        all_of_them = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(all_of_them, own)
        rows: list[list[float]] = torch.stack(all_of_them).tolist()
        return max(rows, key=lambda row: row[0])

    def look(self) -> int:
        """Read the flag; the judge hears of a step since the last look that was not finite. Called by every process.

        Returns:
            How many steps the scaler has skipped since the last look, where nobody looked at them one by one.
        """
        if self.spoiled is None:
            return 0
        spoiled, step, loss, norm = self._seen()
        if spoiled:
            self.judge(int(step), loss, norm)
        skipped = int(self._overflows)
        self._overflows.zero_()
        return skipped
