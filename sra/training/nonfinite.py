"""Detect losses and gradients that are not finite, before the optimizer changes anything.

With `losses=every-step`, the host reads loss and gradient norm at each step. With `losses=logged`, the device checks
them itself: the first bad step sets a flag that is never cleared, and while it is set the fused optimizer skips its
update (`found_inf`) and the EMA keeps its weights. When the host reads the flag (at each logged step and before each
save), a set flag ends the run. Weights, moments and EMA are then those before the bad step, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist

from sra.common.errors import UserError
from sra.config import TrainConfig
from sra.runtime.speed import Speed
from sra.training.losses import StepLosses


class NonFiniteError(UserError):
    """A loss or gradient is not finite; training stopped before the optimizer's step."""


class NonFiniteGuard:
    """Checks every step, on the host or on the device; see the module."""

    def __init__(self, module: nn.Module, settings: TrainConfig, speed: Speed, *, scaled: bool) -> None:
        """Start with no bad step.

        Args:
            module: the trained parameters, already on their device.
            settings: `on_nonfinite` says whether a bad step ends the run or is skipped.
            speed: resolved switches.
            scaled: whether an fp16 scaler skips steps whose gradient overflows; then only the loss is checked.
        """
        self.module, self.scaled = module, scaled
        self.stops = settings.on_nonfinite == "stop"
        # Skipping a single step needs the host's decision before the optimizer's step.
        self.late = speed.losses == "logged" and self.stops
        device = next(module.parameters()).device
        self.flag = torch.zeros((), dtype=torch.bool, device=device) if self.late else None
        self._first_bad = torch.zeros(3, dtype=torch.float64, device=device)
        self._overflows = torch.zeros((), dtype=torch.int64, device=device)
        self._step, self._losses = -1, list[StepLosses]()
        self._step_on_device = torch.zeros((), device=device)

    def begin(self, step: int) -> None:
        """Name the step, counted from 0, that the next check belongs to."""
        self._step = step
        if self.flag is not None:
            self._step_on_device.fill_(step)

    def poison(self, loss: Tensor) -> Tensor:
        """Return the loss, or NaN after a bad step, so that the scaler skips every later step."""
        if self.flag is None or not self.scaled:
            return loss
        # A factor: the gradient of `where` would be zero, which the scaler does not skip.
        return loss * torch.where(self.flag, torch.nan, 1.0)

    def must_skip(self, losses: list[StepLosses], norm: Tensor, optimizer: torch.optim.Optimizer) -> bool:
        """Check a step between its gradients and the optimizer's step.

        Args:
            losses: of each forward pass.
            norm: of the gradient, ().
            optimizer: torch's own, not a wrapper.

        Raises:
            NonFiniteError: loss or gradient is not finite and `train.on_nonfinite` is `stop`.
        """
        self._losses = losses
        loss = torch.stack([part.total.detach().float() for part in losses]).mean()
        if self.flag is None:
            return self._check_on_host(self._step, float(loss), float(norm))
        # Tensors that stay are changed in place, so that a graph can record this.
        values = torch.stack([self._step_on_device, loss, norm.detach().float()]).double()
        bad = ~(values[1] if self.scaled else values).isfinite().all()
        torch.where(bad & ~self.flag, values, self._first_bad, out=self._first_bad)
        self.flag |= bad
        if self.scaled:
            self._overflows += ~norm.isfinite()
        else:
            # Read by torch's fused optimizers; a scaler sets it itself.
            optimizer.found_inf = self.flag.float()  # type: ignore[attr-defined]
        return False

    def read(self) -> int:
        """Read what the device has seen since the last call; every process calls this at the same point.

        Returns:
            Number of steps that the scaler skipped unseen by the host.

        Raises:
            NonFiniteError: a step was bad in one of the processes.
        """
        if self.flag is None:
            return 0
        flag, step, loss, norm = self._first_flagged()
        if flag:
            self._check_on_host(int(step), loss, norm)
        skipped = int(self._overflows)
        self._overflows.zero_()
        return skipped

    def _check_on_host(self, step: int, loss: float, norm: float) -> bool:
        """Whether to skip a step. The gradient is averaged over all processes, so all see the same norm."""
        loss_bad, norm_bad = not math.isfinite(loss), not math.isfinite(norm)
        if self.stops and (loss_bad or (norm_bad and not self.scaled)):
            if step == self._step:
                found = describe(self._losses, norm, self.module)
            else:  # read late: only two numbers are left
                found = f"loss {loss:.4g}, gradient norm {norm:.4g}: not finite"
            raise NonFiniteError(f"training step {step + 1}: {found}; nothing was changed, the last checkpoint is good")
        return norm_bad or (loss_bad and _process_count() == 1)

    def _first_flagged(self) -> list[float]:
        """Flag, step, loss and norm of the first process whose flag is set: losses differ between processes."""
        assert self.flag is not None
        own = torch.cat([self.flag.double().reshape(1), self._first_bad])
        if _process_count() == 1:
            return own.tolist()
        gathered = [torch.empty_like(own) for _ in range(_process_count())]
        dist.all_gather(gathered, own)
        rows: list[list[float]] = torch.stack(gathered).tolist()
        return max(rows, key=lambda row: row[0])


def _process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def describe(losses: Sequence[StepLosses], norm: float, module: nn.Module) -> str:
    """Which part of a step is not finite, with its statistics.

    Args:
        losses: of the step's forward passes in this process.
        norm: of the gradient, over all processes.
        module: its parameters hold the gradients.
    """
    generation = torch.cat([part.generation.detach().flatten() for part in losses])
    found = [part.alignment.detach().flatten() for part in losses if part.alignment is not None]
    alignment = torch.cat(found) if found else None
    numbers = f"generation loss {_statistics(generation)}"
    if alignment is not None:
        numbers += f"; alignment loss {_statistics(alignment)}"
    if not bool(generation.isfinite().all()):
        part = "generation loss"
    elif alignment is not None and not bool(alignment.isfinite().all()):
        part = "alignment loss"
    else:
        part = "gradient"
    return f"{part} is not finite: {numbers}; gradient norm {norm:.4g}{_bad_gradients(module)}"


def _statistics(values: Tensor) -> str:
    finite = values[values.isfinite()].float()
    bad = len(values) - len(finite)
    if not len(finite):
        return f"of {bad} values, none finite"
    suffix = f", {bad} of {len(values)} not finite" if bad else ""
    return f"{finite.mean():.4g} in [{finite.min():.4g}, {finite.max():.4g}]{suffix}"


def _bad_gradients(module: nn.Module) -> str:
    """Number of parameters whose gradient is not finite, and the first of them."""
    named = [(name, p.grad) for name, p in module.named_parameters() if p.grad is not None]
    bad = [name for name, gradient in named if not bool(gradient.isfinite().all())]
    return f", not finite in {len(bad)} of {len(named)} parameters, first {bad[0]}" if bad else ""
