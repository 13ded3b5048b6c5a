"""One optimizer step, from batches to EMA weights: the hot path of training."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from sra.common.errors import ConfigError
from sra.config import TrainJob
from sra.model.token_groups import Groups
from sra.model.transformer import DiffusionTransformer, compile_blocks, initialise
from sra.runtime.cuda_graph import Recorded
from sra.runtime.device import use_attention
from sra.runtime.random_streams import Randoms
from sra.runtime.speed import VARIABLE, Speed
from sra.training.ema import decay_at, update_ema
from sra.training.losses import StepLosses, TrainingModule, needs_teacher
from sra.training.nonfinite import NonFiniteGuard
from sra.training.optimizer import learning_rate, load_optimizer, make_optimizer, optimizer_state, unwrap_optimizer

Batch = tuple[Tensor, Tensor, Randoms]
"""Clean latents (N, C, H, W), labels (N,) and their random numbers."""


class Engine(Protocol):
    """Mixed precision and data parallelism: the part of `accelerate.Accelerator` that a training step uses."""

    @property
    def device(self) -> torch.device:
        """Device of this process."""

    @property
    def num_processes(self) -> int:
        """Number of processes that train together."""

    @property
    def process_index(self) -> int:
        """Rank of this process."""

    @property
    def scaler(self) -> Any:
        """Gradient scaler of fp16, else None."""

    def prepare(self, *parts: Any, device_placement: list[bool]) -> Any:
        """Wrap a module for several processes, and its optimizer for the scaler."""

    def autocast(self) -> AbstractContextManager[object]:
        """Context with the precision of the student's forward pass."""

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Context in which a backward pass does not average gradients over processes."""

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss, scaled if there is a scaler."""

    def unscale_gradients(self) -> None:
        """Divide the gradients by the scaler's factor."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Outcome of one optimizer step; tensors are still on the device."""

    losses: list[StepLosses]
    """Of each forward pass."""
    norm: Tensor
    """Norm () of the gradient before clipping."""
    skipped: bool
    """Whether the update was skipped because loss or gradient was not finite, as far as the host knows."""


class WholeTeacher:
    """Teacher that computes every block, as the authors' code does; the same features."""

    def __init__(self, network: DiffusionTransformer) -> None:
        self.network, self.per_cell = network, network.per_cell

    def hidden(self, x: Tensor, t: Tensor, y: Tensor, block: int, groups: Groups | None = None) -> Tensor:
        """See `DiffusionTransformer.hidden`."""
        tapped: Tensor = self.network(x, t, y, taps=(block,), groups=groups)[1]
        return tapped


class TrainState:
    """Network, EMA, optimizer and scaler of a training run; `update` is one optimizer step."""

    def __init__(self, job: TrainJob, engine: Engine, speed: Speed) -> None:
        """Build and initialise everything on the engine's device; every process calls this.

        Args:
            job: network, alignment and training settings.
            engine: precision and processes.
            speed: resolved switches.

        Raises:
            ConfigError: `graph=step` with several processes, or with steps that the host may skip.
        """
        self.engine, self.job, self.settings, self.speed = engine, job, job.train, speed
        module = TrainingModule(job.model, job.codec, job.train, job.align)
        initialise(module.network, job.seed)
        self.network = module.network
        self.ema = copy.deepcopy(module.network).eval().requires_grad_(False).to(engine.device)
        # A sharded optimizer reads the parameters' device when it is made.
        module.to(engine.device)
        use_attention(speed.attention)
        optimizer = make_optimizer(module, job.train, fused=speed.optimizer == "fused")
        self.module, self.optimizer = engine.prepare(module, optimizer, device_placement=[True, False])
        if isinstance(self.module, nn.parallel.DistributedDataParallel):
            # Buffers are constants: nothing to send at every step.
            self.module.forward_sync_buffers = False
        if speed.compile != "off":
            for network in (self.network, self.ema):
                compile_blocks(network, fixed_shapes=True, how=speed.compile)
        self.teacher: DiffusionTransformer | None = None
        if needs_teacher(job.align):
            self.teacher = cast(DiffusionTransformer, WholeTeacher(self.ema)) if speed.teacher == "whole" else self.ema
        self.guard = NonFiniteGuard(self.module, job.train, speed, scaled=engine.scaler is not None)
        self.alignment = module.alignment
        self.recorded: Recorded[StepResult] | None = None
        if speed.graph == "step":
            if engine.num_processes > 1 or not self.guard.late:
                got = f"{engine.num_processes} and {job.train.on_nonfinite}"
                raise ConfigError(f"{VARIABLE}: graph=step: expected 1 process and train.on_nonfinite stop, got {got}")
            self.recorded = Recorded()

    def rehearse(self) -> None:
        """Compile what a step runs, by computing gradients for empty latents; changes nothing."""
        device, settings = self.engine.device, self.settings
        images = settings.global_batch // (self.engine.num_processes * settings.accumulate)
        x = torch.zeros(images, *self.job.codec.latent_shape(self.job.model.resolution), device=device)
        positions = torch.arange(images, device=device)
        with self.engine.no_sync(self.module):
            self.backward(self.forward((x, positions % self.job.model.classes, Randoms(0, positions)), 0.0).total)
        self.optimizer.zero_grad()

    def update(self, step: int, epoch: float, batches: Iterable[Batch]) -> StepResult:
        """Train on one global batch.

        Args:
            step: counted from 0; decides learning rate and EMA decay.
            epoch: passes over the data so far.
            batches: this process's `accumulate` parts of the global batch.

        Raises:
            NonFiniteError: see `sra.training.nonfinite`.
        """
        lr = learning_rate(self.settings, step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.guard.begin(step)
        if self.recorded is None:
            return self._update(step, epoch, batches)
        parts = list(batches)
        weight = None if self.alignment is None else self.alignment.weight(epoch)
        inputs = [tensor for x, labels, randoms in parts for tensor in (x, labels, *randoms.tensors())]
        numbers = lr, decay_at(self.settings.ema, step), weight
        return self.recorded(lambda: self._update(step, epoch, parts), inputs, numbers)

    def _update(self, step: int, epoch: float, batches: Iterable[Batch]) -> StepResult:
        self.optimizer.zero_grad()
        losses = []
        for part, batch in enumerate(batches):
            last = part == self.settings.accumulate - 1
            with nullcontext() if last else self.engine.no_sync(self.module):
                losses.append(self.forward(batch, epoch))
                self.backward(losses[-1].total / self.settings.accumulate)
        norm, skipped = self.apply_gradients(losses)
        # With a scaler, the step is skipped by the scaler and the EMA moves on, as in the authors' code.
        if not skipped or self.engine.scaler is not None:
            self.update_ema(step)
        return StepResult(losses=losses, norm=norm, skipped=skipped)

    def forward(self, batch: Batch, epoch: float) -> StepLosses:
        """Losses of a batch, in the student's precision."""
        with self.engine.autocast():
            losses: StepLosses = self.module(*batch, self.teacher, epoch)
        return losses

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self.engine.backward(self.guard.poison(loss))

    def apply_gradients(self, losses: list[StepLosses]) -> tuple[Tensor, bool]:
        """Clip the gradients and step the optimizer. Returns the norm () before clipping, and whether it skipped."""
        scaler = self.engine.scaler
        if scaler is not None:
            self.engine.unscale_gradients()
        optimizer = unwrap_optimizer(self.optimizer)
        if self.recorded is not None:
            for group in optimizer.param_groups:
                group["capturable"] = self.recorded.recording
        if self.guard.late:
            norm = nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])
            # The fused optimizer divides by this while it reads the gradients; 1e-6 as in `clip_grad_norm_`.
            optimizer.grad_scale = ((norm + 1e-6) / self.settings.clip).clamp_min(1)
        else:
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip)
        skipped = self.guard.must_skip(losses, norm, optimizer)
        if not skipped or scaler is not None:
            self.optimizer.step()
        return norm, skipped

    def update_ema(self, step: int) -> None:
        """Move the EMA towards the weights, unless the device has seen a bad step."""
        loop = self.speed.ema == "loop"
        update_ema(self.ema, self.network, self.settings.ema, step, loop=loop, hold=self.guard.flag)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """State after the last step, as checkpoints hold it: on the main process; every process calls this."""
        scaler = self.engine.scaler
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of a checkpoint."""
        if self.recorded is not None:
            self.recorded.forget()
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.engine.scaler is not None:
            self.engine.scaler.load_state_dict(state["scaler"])
