"""Training steps: the same `Step` as in `sra.training.train`, on one device or under torchrun."""

from __future__ import annotations

import copy
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from sra.config import AlignSettings, ModelConfig, TrainConfig
from sra.data.latents import sample_latent
from sra.data.prefetch import Prefetcher
from sra.model.token_groups import Groups
from sra.model.transformer import DiffusionTransformer, compile_blocks, initialise
from sra.perf.cases import CODEC, Mode
from sra.perf.clock import Clock
from sra.perf.loading import Array, make_source
from sra.runtime.precision import autocast, set_tf32
from sra.runtime.random_streams import Randoms
from sra.training.module import TrainingModule
from sra.training.nonfinite import FiniteCheck
from sra.training.step import Batch, Step, make_optimizer, teacher_of, to_device


class LocalEngine:
    """What a step asks of accelerate, from torch alone."""

    def __init__(self, precision: str, device: torch.device, optimizer: torch.optim.Optimizer) -> None:
        self.device, self.optimizer, self.precision = device, optimizer, precision
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None

    def autocast(self) -> AbstractContextManager[object]:
        """See `sra.training.step.Engine`."""
        return autocast(self.precision, self.device.type)

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """See `sra.training.step.Engine`."""
        return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()

    def backward(self, loss: Tensor) -> None:
        """See `sra.training.step.Engine`."""
        scaled: Tensor = loss if self.scaler is None else self.scaler.scale(loss)
        torch.autograd.backward(scaled)

    def unscale_gradients(self) -> None:
        """See `sra.training.step.Engine`."""
        assert self.scaler is not None
        self.scaler.unscale_(self.optimizer)

    # -- the optimizer, as a step sees it -------------------------------------------------------------------------

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of the optimizer."""
        return self.optimizer.param_groups

    def zero_grad(self) -> None:
        """Of the optimizer."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Of the optimizer, through the scaler where there is one."""
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


class TimedTeacher:
    """A teacher whose time is a part of its own."""

    def __init__(self, teacher: DiffusionTransformer, clock: Clock) -> None:
        self.teacher, self.clock, self.per_cell = teacher, clock, teacher.per_cell

    def hidden(self, x: Tensor, t: Tensor, y: Tensor, block: int, groups: Groups | None = None) -> Tensor:
        """See `DiffusionTransformer.hidden`."""
        with self.clock("teacher"):
            return self.teacher.hidden(x, t, y, block=block, groups=groups)


def world() -> tuple[int, int]:
    """Rank and number of processes, of which torchrun tells."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> None:
    """Meet the other processes, where there are any."""
    if world()[1] > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


class Training:
    """Training steps of one network in one mode."""

    def __init__(
        self,
        model: ModelConfig,
        align: AlignSettings | None,
        mode: Mode,
        precision: str,
        batch: int,
        folder: Path,
        device: torch.device,
    ) -> None:
        """Build everything that a run would.

        Args:
            model: the network.
            align: resolved settings.
            mode: how to compute.
            precision: of `train.precision`.
            batch: images per step and process.
            folder: where latents are made.
            device: to compute on.
        """
        self.batch, self.device, self.clock, self.number = batch, device, Clock(device), 0
        self.speed, self.align, self.precision = mode.speed, align, precision
        set_tf32(precision)
        self.source = make_source(
            folder, mode, (2 * CODEC.channels, *[model.resolution // CODEC.factor] * 2), 8 * batch
        )
        self.order = np.random.default_rng(0)
        settings = TrainConfig(steps=1, global_batch=batch, precision=cast(Any, precision))
        self.batches = Prefetcher(self._choose, self.source.batch, settings.workers)
        module = TrainingModule(model, CODEC, settings, align)
        initialise(module.network, 0)
        self.step = self._make_step(module.to(device), settings)

    def _make_step(self, module: TrainingModule, settings: TrainConfig) -> Step:
        speed = self.speed
        ema = copy.deepcopy(module.network).eval().requires_grad_(False)
        if speed.compile == "on":
            compile_blocks(module.network)
            compile_blocks(ema)
        optimizer = make_optimizer(module, settings, "fused" if speed.optimizer == "fused" else "plain")
        teacher = teacher_of(ema, self.align, speed)
        if teacher is not None:
            teacher = cast(DiffusionTransformer, TimedTeacher(teacher, self.clock))
        engine = LocalEngine(self.precision, self.device, optimizer)
        check = FiniteCheck(
            lambda _step, _loss, _norm: True,
            self.device,
            late=speed.losses == "logged",
            scaled=engine.scaler is not None,
        )
        wrapped = module.train()
        if dist.is_initialized():
            views = speed.buckets == "views"
            wrapped = cast(Any, nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=views))
        return Step(engine, wrapped, ema, teacher, engine, settings, speed, check, self.clock)

    def run(self, rounds: int) -> None:
        """So many optimizer steps; the losses are looked at once, as at a logged step."""
        for _ in range(rounds):
            self.losses, self.norm = self.step(self.number, 0.0, self._batch)
            self.number += 1
        self.step.finite.look()

    def _choose(self, _number: int) -> tuple[Array]:
        return (self.order.integers(0, self.source.count, self.batch),)

    def _batch(self, _part: int) -> Batch:
        moments, labels = self.batches.get(self.number)
        first = self.number * self.batch
        randoms = Randoms(world()[0], torch.arange(first, first + self.batch, device=self.device))
        moments = to_device(moments, self.device, self.speed)
        shape = (moments.shape[1] // 2, *moments.shape[2:])
        x = sample_latent(moments, randoms.normal("latent", shape), CODEC.scale)
        return x, to_device(labels, self.device, self.speed), randoms
