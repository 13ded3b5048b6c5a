"""One optimizer step, from batches to averaged weights: the hot path of training. Needs torch alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from sra.config import AlignSettings, TrainConfig
from sra.model.token_groups import Groups
from sra.model.transformer import DiffusionTransformer
from sra.runtime.random_streams import Randoms
from sra.runtime.speed import Speed
from sra.training.ema import update_ema
from sra.training.module import StepLosses, TrainingModule, needs_teacher
from sra.training.nonfinite import FiniteCheck

Batch = tuple[Tensor, Tensor, Randoms]
"""Clean latents (N, C, H, W), labels (N,) and their random numbers."""


class Engine(Protocol):
    """What a step asks of accelerate: precision and several processes."""

    @property
    def scaler(self) -> Any:
        """Of fp16, else None."""

    def autocast(self) -> AbstractContextManager[object]:
        """The student's precision."""

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Gradients stay with their process until a backward pass outside of it."""

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, scaled where there is a scaler."""

    def unscale_gradients(self) -> None:
        """Undo the scaler's factor."""


def make_optimizer(
    module: nn.Module, config: TrainConfig, kind: Literal["fused", "plain"] = "plain"
) -> torch.optim.Optimizer:
    """AdamW with the manifest's settings, in one kernel or as torch does it when it is not asked.

    With `train.shard: optimizer` and several processes, each of them updates its part of the parameters and sends it to
    the others: AdamW treats every element by itself, so that the numbers are the same.
    """
    settings: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "eps": config.eps,
        "weight_decay": config.weight_decay,
        "fused": True if kind == "fused" else None,
    }
    if config.shard == "optimizer" and dist.is_initialized() and dist.get_world_size() > 1:
        # Its package scripts kernels when it is imported: a second that other runs need not pay.
        from torch.distributed.optim import ZeroRedundancyOptimizer

        return ZeroRedundancyOptimizer(module.parameters(), optimizer_class=torch.optim.AdamW, **settings)
    return torch.optim.AdamW(module.parameters(), **settings)


def torchs_own(optimizer: Any) -> Any:
    """The optimizer within accelerate's wrapper and that of shards, if there are such."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return getattr(inner, "optim", inner)


def gather_state(optimizer: Any) -> None:
    """Bring the shards of the state to the main process, which can then save it; called by every process."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if hasattr(inner, "consolidate_state_dict"):
        inner.consolidate_state_dict(to=0)


def with_kernel_of(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's saved state, to be computed by the kernel of this optimizer and not by that of the one saved."""
    kept = {name: optimizer.param_groups[0].get(name) for name in ("fused", "foreach")}
    return {**state, "param_groups": [{**group, **kept} for group in state["param_groups"]]}


def steps_beside_weights(optimizer: Any) -> None:
    """Loading leaves the step counts of a sharded optimizer on the host; the fused kernel wants them on the device."""
    inner = torchs_own(optimizer)
    if inner.param_groups[0].get("fused"):
        for parameter, state in inner.state.items():
            state["step"] = state["step"].to(parameter.device)


def rate_at(config: TrainConfig, step: int) -> float:
    """Learning rate of step `step`, counted from 0."""
    return config.lr * min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else config.lr


class WholeTeacher:
    """A teacher that computes every block, as the authors' code does; the same features."""

    def __init__(self, network: DiffusionTransformer) -> None:
        self.network, self.per_cell = network, network.per_cell

    def hidden(self, x: Tensor, t: Tensor, y: Tensor, block: int, groups: Groups | None = None) -> Tensor:
        """See `DiffusionTransformer.hidden`."""
        tapped: Tensor = self.network(x, t, y, tap=block, groups=groups)[1]
        return tapped


def teacher_of(ema: DiffusionTransformer, align: AlignSettings | None, speed: Speed) -> DiffusionTransformer | None:
    """What the alignment is given as its teacher: the averaged network, where it wants one."""
    if not needs_teacher(align):
        return None
    return cast(DiffusionTransformer, WholeTeacher(ema)) if speed.teacher == "whole" else ema


def to_device(tensor: Tensor, device: torch.device, speed: Speed) -> Tensor:
    """A batch on the device; from pinned memory the copy does not keep the host waiting."""
    if speed.transfer == "pinned" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Step:
    """Everything that a step touches."""

    def __init__(
        self,
        engine: Engine,
        module: nn.Module,
        ema: DiffusionTransformer,
        teacher: DiffusionTransformer | None,
        optimizer: Any,
        settings: TrainConfig,
        speed: Speed,
        finite: FiniteCheck,
        clock: Callable[[str], AbstractContextManager[None]] = lambda _part: nullcontext(),
        observe: Callable[[int, StepLosses], object] = lambda _number, _losses: None,
    ) -> None:
        """Put the parts together.

        Args:
            engine: see Engine.
            module: the `TrainingModule`, or what several processes wrap around it.
            ema: the averaged network.
            teacher: what the alignment is given, see `teacher_of`.
            optimizer: of the module's parameters, or accelerate's wrapper around it.
            settings: of the training.
            speed: resolved switches.
            finite: check of losses and gradients.
            clock: measures a named part; `sra.perf` gives one.
            observe: told of the losses of each forward pass, before anything is judged or changed.
        """
        self.engine, self.module, self.optimizer = engine, module, optimizer
        self.settings, self.speed, self.finite, self.clock = settings, speed, finite, clock
        self.ema, self.teacher, self.observe = ema, teacher, observe
        self.network = cast(TrainingModule, getattr(module, "module", module)).network

    def __call__(self, number: int, epoch: float, batch: Callable[[int], Batch]) -> tuple[list[StepLosses], Tensor]:
        """Optimizer step `number`, counted from 0.

        Args:
            number: decides learning rate and decay.
            epoch: passes over the data so far.
            batch: this process's part of the global batch, by its number below `accumulate`.

        Returns:
            The losses of each forward pass, and the gradient's norm () before clipping, all still on the device.

        Raises:
            NonFiniteError: see `sra.training.nonfinite`.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.settings, number)
        self.optimizer.zero_grad()
        losses = [self._gradients(number, part, epoch, batch) for part in range(self.settings.accumulate)]
        with self.clock("optimizer"):
            norm = self._clipped()
            totals = [part.total for part in losses]
            permitted = self.finite.permits(number, totals, norm, torchs_own(self.optimizer))
            if permitted:
                self.optimizer.step()
        if permitted:
            with self.clock("ema"):
                loop, hold = self.speed.ema == "loop", self.finite.spoiled
                update_ema(self.ema, self.network, self.settings.ema, number, loop=loop, hold=hold)
        return losses, norm

    def _gradients(self, number: int, part: int, epoch: float, batch: Callable[[int], Batch]) -> StepLosses:
        last = part == self.settings.accumulate - 1
        with self.clock("data"):
            x, y, randoms = batch(part)
        with nullcontext() if last else self.engine.no_sync(self.module):
            with self.clock("student"), self.engine.autocast():
                losses: StepLosses = self.module(x, y, randoms, self.teacher, epoch)
            self.observe(number, losses)
            with self.clock("backward"):
                self.engine.backward(self.finite.poisoned(losses.total / self.settings.accumulate))
        return losses

    def _clipped(self) -> Tensor:
        """Norm of the gradient, which is then scaled down where it is too long."""
        if self.engine.scaler is not None:
            self.engine.unscale_gradients()
        return nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
