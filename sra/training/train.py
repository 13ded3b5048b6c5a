"""Training: `python -m sra.training.train`, one process or many under torchrun. Can be stopped and continued.

What a step sees depends on (seed, step) only: the order of the data is a permutation per epoch, every random number
belongs to a position in that order, and each process takes its slice of the global batch.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import DistributedDataParallelKwargs
from safetensors.torch import save_file
from torch import Tensor

from sra.common.errors import ConfigError, DataError
from sra.common.files import replacing, write_json
from sra.config import TrainJob, to_plain
from sra.data.latents import PackedLatents, sample_latent
from sra.data.prefetch import Prefetcher
from sra.model.transformer import compile_blocks, initialise
from sra.runtime import job
from sra.runtime.distributed import Everyone, StopVote, leave, make_accelerator
from sra.runtime.precision import set_tf32
from sra.runtime.random_streams import Randoms
from sra.runtime.speed import chosen
from sra.sampling.image_grid import TrainingGrid
from sra.training import checkpoint
from sra.training.logbook import LogBook, Tally, memory_of, watch_memory
from sra.training.loss_guard import NonFiniteError, describe
from sra.training.module import StepLosses, TrainingModule
from sra.training.nonfinite import FiniteCheck
from sra.training.step import (
    Step,
    gather_state,
    make_optimizer,
    rate_at,
    steps_beside_weights,
    teacher_of,
    to_device,
    with_kernel_of,
)
from sra.training.trackers import check_trackers, finish_trackers, start_trackers

FREE = (
    "steps",
    "epochs",
    "accumulate",
    "milestones",
    "checkpoint_every",
    "keep",
    "keep_every",
    "log_every",
    "trackers",
    "on_nonfinite",
    "grid_every",
    "workers",
    "shard",
)
"""Settings of `train` that do not change what a step computes: a checkpoint may be continued with others."""


class DataOrder:
    """Which image stands at which position: one permutation an epoch, the incomplete batch dropped."""

    def __init__(self, seed: int, count: int, batch: int) -> None:
        if count < batch:
            raise DataError(f"train.global_batch {batch} is larger than the data set of {count} images")
        self.seed, self.count, self.batch = seed, count, batch
        self.steps_per_epoch = count // batch
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def indices(self, step: int) -> np.ndarray[Any, Any]:
        """Image indices (global_batch,) of an optimizer step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self._order[place * self.batch : (place + 1) * self.batch]


class Trainer:
    """State of one training run."""

    def __init__(self, config: TrainJob, latents: Path, out: Path, processes: int | None = None) -> None:
        self.config, self.settings, self.out = config, config.train, out
        precision = {"fp32": "no", "tf32": "no"}.get(self.settings.precision, self.settings.precision)
        self.speed = chosen("cuda" if torch.cuda.is_available() else "cpu")
        trackers = self.settings.trackers
        check_trackers(trackers)
        self.accelerator = make_accelerator(
            precision,
            processes,
            log_with=list(trackers) or None,
            project_dir=out / "trackers",
            kwargs_handlers=[self._ddp()],
        )
        set_tf32(self.settings.precision)
        watch_memory(self.accelerator.device)
        self.data = PackedLatents(latents)
        self._check_data()
        self.order = DataOrder(config.seed, self.data.count, self.settings.global_batch)
        self.batches = Prefetcher(self._choose, self.data.batch, self.settings.workers)
        self.total = self.settings.steps or (self.settings.epochs or 0) * self.order.steps_per_epoch
        module = TrainingModule(config.model, config.codec, self.settings, config.align)
        initialise(module.network, config.seed)
        self.ema = copy.deepcopy(module.network).eval().requires_grad_(False).to(self.accelerator.device)
        # A sharded optimizer goes by where the weights are when it is made.
        module.to(self.accelerator.device)
        optimizer = make_optimizer(module, self.settings, "fused" if self.speed.optimizer == "fused" else "plain")
        self.network = module.network
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer, device_placement=[True, False])
        self.grid = TrainingGrid(config, out / "grids", self.accelerator.device) if self.settings.grid_every else None
        self.step, self.seconds, self.loss, self.skipped = 0, 0.0, float("nan"), 0
        self.tally, self.book = Tally(), LogBook(out, self.accelerator)
        self.everyone = Everyone()
        self.vote = StopVote(self.everyone)
        policy = checkpoint.Policy(keep=self.settings.keep, keep_every=self.settings.keep_every)
        self.writer = checkpoint.Writer(out / "checkpoints", self.identity(), policy)
        self.one_step = self._prepare_step()
        start_trackers(self.accelerator, trackers, out)

    def _ddp(self) -> DistributedDataParallelKwargs:
        """Buffers are constants: nobody needs to be sent them at every step."""
        return DistributedDataParallelKwargs(
            gradient_as_bucket_view=self.speed.buckets == "views", broadcast_buffers=False
        )

    def _prepare_step(self) -> Step:
        """The hot path; which switches it runs with is written to `speed.json`."""
        device, speed = self.accelerator.device, self.speed
        if speed.compile == "on":
            compile_blocks(self.network)
            compile_blocks(self.ema)
        if self.accelerator.is_main_process:
            write_json(self.out / "speed.json", {"device": str(device), **dataclasses.asdict(speed)})
            job.say(f"speed: {speed}")
        scaled = self.accelerator.scaler is not None
        # A step can be passed over only where the host sees it before the optimizer's turn.
        late = speed.losses == "logged" and self.settings.on_nonfinite == "stop"
        self.finite = FiniteCheck(self._judge, device, late=late, scaled=scaled)
        return Step(
            self.accelerator,
            self.module,
            self.ema,
            teacher_of(self.ema, self.config.align, speed),
            self.optimizer,
            self.settings,
            speed,
            self.finite,
            observe=self.tally.add,
        )

    def identity(self) -> dict[str, Any]:
        """What the state of a step depends on besides the number of processes, flat: another run's is refused."""
        plain = to_plain(self.config)
        train = {f"train.{name}": value for name, value in plain.pop("train").items() if name not in FREE}
        data = {"latents": self.data.facts.get("moments_sha256"), "images": self.data.count}
        return {**plain, **train, **data}

    def _check_data(self) -> None:
        side = self.config.model.resolution // self.config.codec.factor
        wanted = (2 * self.config.codec.channels, side, side)
        if self.data.shape != wanted:
            raise DataError(f"latents are {self.data.shape} (C, H, W), the manifest says {wanted}")
        if self.settings.flip and self.data.flipped is None:
            raise DataError(f"{self.data.path}: has no mirrored latents, which train.flip needs")
        if self.data.classes > self.config.model.classes:
            raise DataError(f"latents have {self.data.classes} classes, model.classes is {self.config.model.classes}")
        parts = self.accelerator.num_processes * self.settings.accumulate
        if self.settings.global_batch % parts:
            raise DataError(
                f"train.global_batch {self.settings.global_batch} is not divisible by "
                f"{self.accelerator.num_processes} processes x accumulate {self.settings.accumulate}"
            )

    # -- saving and resuming ------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, where there is one; the log is cut back to it.

        Where the weights of a milestone have gone, from the newest one that does not lie behind it.
        """
        missing = self.everyone.told([step for step in self._exports() if not self.weights_file(step).is_file()])
        limit = missing[0] if missing else None
        state = checkpoint.load_newest(self.out / "checkpoints", self.identity(), limit)
        if state is not None:
            self._restore(state)
            job.say(f"continues at step {self.step} of {self.total}")
        if self.step != (first := self.everyone.told(self.step)):
            raise DataError(
                f"{self.out / 'checkpoints'}: the newest whole checkpoint is of step {self.step} here and of step "
                f"{first} for the first process: the machines do not see the same files; start again"
            )
        if self.accelerator.is_main_process:
            self.book.cut(self.step)
        if self.step in missing:
            self.export()
        self.everyone.wait()

    def _exports(self) -> list[int]:
        """Steps whose EMA weights are kept."""
        return [*self.settings.milestones, self.total]

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(with_kernel_of(self.optimizer, state["optimizer"]))
        steps_beside_weights(self.optimizer)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.skipped = int(state["skipped"])

    def save(self, *, wait: bool) -> None:
        """Write a resumable checkpoint in the background (main process).

        Args:
            wait: until it is on the disk, and every process knows.
        """
        self.skipped += self.finite.look()
        gather_state(self.optimizer)
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "network": self.network.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else {},
                "step": self.step,
                "seconds": self.seconds,
                "skipped": self.skipped,
            }
            self.writer.save(self.step, state)
        if wait:
            self.writer.join()
            self.everyone.wait()

    def weights_file(self, step: int) -> Path:
        """Where the EMA weights of a milestone stand."""
        return self.out / "weights" / f"step-{step:08d}.safetensors"

    def export(self) -> None:
        """Write the EMA network without the training head."""
        self.skipped += self.finite.look()
        if self.accelerator.is_main_process:
            state = self.ema.state_dict()
            kept = {n: v.contiguous().cpu() for n, v in state.items() if not n.startswith("ap_head.")}
            with replacing(self.weights_file(self.step)) as temporary:
                save_file(kept, temporary)

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the last step.

        Raises:
            job.Stopped: on request, with a checkpoint of the last whole step.
            NonFiniteError: before the step that would have spoiled the weights.
        """
        self.resume()
        self.module.train()
        try:
            self._steps()
        finally:
            # The last checkpoint is good only once its thread has ended; what went wrong in it must be heard.
            self.writer.join()
            finish_trackers(self.accelerator)

    def _steps(self) -> None:
        progress = job.Progress(self.out.name, self.total, " steps", done=self.step)
        while self.step < self.total:
            started = time.monotonic()
            epoch = self.step / self.order.steps_per_epoch
            parts, norm = self.one_step(self.step, epoch, self._batch)
            self.step += 1
            self.seconds += time.monotonic() - started
            self._after_step(parts[-1], norm, progress)
        self.vote.finish()

    def _after_step(self, losses: StepLosses, norm: Tensor, progress: job.Progress) -> None:
        last = self.step == self.total
        logged = self.step % self.settings.log_every == 0 or last or self.step == 1
        if logged or not self.finite.late:
            self.skipped += self.finite.look()
            self.loss = float(losses.total.detach())
        if logged:
            self._log(float(norm))
        progress.update(loss=self.loss)
        if self.step in self._exports():
            self.export()
        if self.grid is not None and self.step % self.settings.grid_every == 0 and self.accelerator.is_main_process:
            self.grid.draw(self.ema, self.step)
        self.writer.check()
        stopping = self.vote(job.stop_requested())
        if last or stopping or self.step % self.settings.checkpoint_every == 0:
            self.save(wait=last or stopping)
        if stopping and not last:
            self.vote.finish()
            leave()
            raise job.Stopped

    def _judge(self, step: int, loss: float, norm: float) -> bool:
        """Whether the optimizer may step; counts the steps that change nothing.

        The gradient is the mean over all processes, so that its norm tells every one of them the same. With fp16 the
        scaler itself passes over a step whose gradient overflows, and lowers its scale.

        Raises:
            NonFiniteError: with `train.on_nonfinite: stop`, before anything is changed.
        """
        scaled, lost, mine = self.accelerator.scaler is not None, not math.isfinite(norm), not math.isfinite(loss)
        if self.settings.on_nonfinite == "stop" and (mine or (lost and not scaled)):
            raise NonFiniteError(
                f"training step {step + 1}: {self._evidence(step, loss, norm)}; "
                f"nothing was changed, the last checkpoint in {self.out / 'checkpoints'} is good"
            )
        spoilt = lost or (mine and self.accelerator.num_processes == 1)
        if spoilt:
            self.skipped += 1
            job.say(f"warning: step {step + 1} is skipped, {self.skipped} so far: gradient norm {norm}")
        return scaled or not spoilt

    def _evidence(self, step: int, loss: float, norm: float) -> str:
        """What was not finite; of a step that was read late only its two numbers are left."""
        if step == self.tally.step:
            return describe(self.tally.parts, norm, self.module)
        return f"loss {loss:.4g}, gradient norm {norm:.4g}: not finite"

    def _first(self, number: int) -> tuple[int, int]:
        """Where this process's slice of its batch `number` begins in the global order, and its size."""
        step, part = divmod(number, self.settings.accumulate)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        size = self.settings.global_batch // (world * self.settings.accumulate)
        return step * self.settings.global_batch + (part * world + rank) * size, size

    def _choose(self, number: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
        """Images of this process's batch `number`, and which of them are mirrored."""
        first, size = self._first(number)
        step, start = divmod(first, self.settings.global_batch)
        indices = self.order.indices(step)[start : start + size]
        if not self.settings.flip:
            return indices, None
        uniform = Randoms(self.config.seed, torch.arange(first, first + size)).uniform("flip")
        return indices, (uniform < 0.5).numpy()

    def _batch(self, part: int) -> tuple[Tensor, Tensor, Randoms]:
        """This process's slice of the global batch: latents, labels and their random numbers."""
        number = self.step * self.settings.accumulate + part
        moments, labels = self.batches.get(number)
        device = self.accelerator.device
        first, size = self._first(number)
        randoms = Randoms(self.config.seed, torch.arange(first, first + size, device=device))
        moments = to_device(moments, device, self.speed)
        shape = (moments.shape[1] // 2, *moments.shape[2:])
        x = sample_latent(moments, randoms.normal("latent", shape), self.config.codec.scale)
        return x, to_device(labels, device, self.speed), randoms

    def _log(self, norm: float) -> None:
        means = self.tally.means(self.accelerator)
        if not self.accelerator.is_main_process:
            return
        row = {
            "step": self.step,
            **means,
            "grad_norm": norm,
            "lr": rate_at(self.settings, self.step - 1),
            "skipped": self.skipped,
            "seconds": round(self.seconds, 4),
            **memory_of(self.accelerator.device),
        }
        if self.accelerator.scaler is not None:
            row["loss_scale"] = self.accelerator.scaler.get_scale()
        self.book.write(row)


def main(arguments: list[str]) -> None:
    """`python -m sra.training.train --config stage.json [...] --latents DIR [...] --out DIR [...]`: run after run."""
    parser = argparse.ArgumentParser(prog="python -m sra.training.train", description=main.__doc__)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--latents", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    parser.add_argument("--processes", type=int, help="how many must work together")
    options = parser.parse_args(arguments)
    if not len(options.config) == len(options.latents) == len(options.out):
        raise ConfigError("--config, --latents and --out name different numbers of places: one of each a run")
    for config, latents, out in zip(options.config, options.latents, options.out, strict=True):
        Trainer(job.read_config(config, TrainJob), latents, out, options.processes).run()
    leave()


if __name__ == "__main__":
    job.run(main)
