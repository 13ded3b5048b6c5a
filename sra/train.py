"""Training: `python -m sra.train`, one process or many under torchrun. Stop it anywhere; the same command continues.

What a step sees depends on (seed, step) only: the order of the data is a permutation per epoch, every random number
belongs to a position in that order, and each process takes its slice of the global batch.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from safetensors.torch import save_file
from torch import Tensor

from sra import checkpoint, job
from sra.config import TrainJob
from sra.errors import ConfigError, DataError, UserError
from sra.files import replacing, write_bytes, write_json
from sra.finite import FiniteCheck
from sra.grid import TrainingGrid
from sra.latents import PackedLatents, sample_latent
from sra.loader import Ahead
from sra.method import StepLosses, TrainingModule
from sra.network import initialise
from sra.randoms import Randoms
from sra.speed import chosen
from sra.step import Step, compile_blocks, make_optimizer, rate_at, teacher_of, to_device, with_kernel_of


class NonFiniteError(UserError):
    """A loss or gradient that is not a number: training stopped before the optimizer's step."""


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

    def __init__(self, config: TrainJob, latents: Path, out: Path) -> None:
        self.config, self.settings, self.out = config, config.train, out
        precision = {"fp32": "no", "tf32": "no"}.get(self.settings.precision, self.settings.precision)
        self.speed = chosen("cuda" if torch.cuda.is_available() else "cpu")
        buckets = DistributedDataParallelKwargs(gradient_as_bucket_view=self.speed.buckets == "views")
        self.accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[buckets])
        torch.backends.cuda.matmul.allow_tf32 = self.settings.precision != "fp32"
        self.data = PackedLatents(latents)
        self._check_data()
        self.order = DataOrder(config.seed, self.data.count, self.settings.global_batch)
        self.batches = Ahead(self._choose, self.data.batch, self.settings.workers)
        self.total = self.settings.steps or (self.settings.epochs or 0) * self.order.steps_per_epoch
        module = TrainingModule(config.model, config.codec, self.settings, config.align)
        initialise(module.network, config.seed)
        self.ema = copy.deepcopy(module.network).eval().requires_grad_(False).to(self.accelerator.device)
        optimizer = make_optimizer(module, self.settings, "fused" if self.speed.optimizer == "fused" else "plain")
        self.network = module.network
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.grid = TrainingGrid(config, out / "grids", self.accelerator.device) if self.settings.grid_every else None
        self.step, self.seconds, self.loss = 0, 0.0, float("nan")
        self.one_step = self._prepare_step()

    def _prepare_step(self) -> Step:
        """The hot path; which switches it runs with is written to `speed.json`."""
        device, speed = self.accelerator.device, self.speed
        if speed.compile == "on":
            compile_blocks(self.network)
            compile_blocks(self.ema)
        if self.accelerator.is_main_process:
            write_json(self.out / "speed.json", {"device": str(device), **dataclasses.asdict(speed)})
            print(f"speed: {speed}", flush=True)
        scaled = self.accelerator.scaler is not None
        self.finite = FiniteCheck(self._judge, device, late=speed.losses == "logged", scaled=scaled)
        teacher = teacher_of(self.ema, self.config.align, speed)
        return Step(self.accelerator, self.module, self.ema, teacher, self.optimizer, self.settings, speed, self.finite)

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
        """Continue from the newest whole checkpoint, where there is one; the log is cut back to it."""
        state = checkpoint.load_newest(self.out / "checkpoints", self.accelerator.device)
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(with_kernel_of(self.optimizer, state["optimizer"]))
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            print(f"continues at step {self.step} of {self.total}", flush=True)
        if self.accelerator.is_main_process:
            self._cut_log()
        self.accelerator.wait_for_everyone()

    def _cut_log(self) -> None:
        log = self.out / "log.jsonl"
        lines = log.read_text().splitlines() if log.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.step]
        write_bytes(log, "".join(f"{line}\n" for line in kept).encode())

    def save(self) -> None:
        """Write a resumable checkpoint (main process; all others wait)."""
        self.finite.look()
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "network": self.network.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else {},
                "step": self.step,
                "seconds": self.seconds,
            }
            checkpoint.save(self.out / "checkpoints", self.step, state, self.settings.keep)
        self.accelerator.wait_for_everyone()

    def weights_file(self, step: int) -> Path:
        """Where the EMA weights of a milestone stand."""
        return self.out / "weights" / f"step-{step:08d}.safetensors"

    def export(self) -> None:
        """Write the EMA network without the training head."""
        self.finite.look()
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
        progress = job.Progress("train", self.total, " steps", done=self.step)
        while self.step < self.total:
            started = time.monotonic()
            epoch = self.step / self.order.steps_per_epoch
            parts, norm = self.one_step(self.step, epoch, self._batch)
            self.step += 1
            self.seconds += time.monotonic() - started
            self._after_step(parts[-1], norm, progress)

    def _after_step(self, losses: StepLosses, norm: Tensor, progress: job.Progress) -> None:
        last = self.step == self.total
        logged = self.step % self.settings.log_every == 0 or last or self.step == 1
        if logged or not self.finite.late:
            self.finite.look()
            self.loss = float(losses.total.detach())
        if logged:
            self._log(losses, float(norm))
        progress.update(loss=self.loss)
        if last or self.step in self.settings.milestones:
            self.export()
        if self.grid is not None and self.step % self.settings.grid_every == 0 and self.accelerator.is_main_process:
            self.grid.draw(self.ema, self.step)
        stopping = self._someone_stops()
        if last or stopping or self.step % self.settings.checkpoint_every == 0:
            self.save()
        if stopping and not last:
            raise job.Stopped

    def _someone_stops(self) -> bool:
        """Whether any process was asked to stop: all must leave at the same step."""
        if self.accelerator.num_processes == 1:
            return job.stop_requested()
        flag = torch.tensor([int(job.stop_requested())], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item())

    def _judge(self, step: int, loss: float, norm: float) -> bool:
        """The fp16 scaler skips steps whose gradient overflows; anything else that is not finite ends the run."""
        scaled = self.accelerator.scaler is not None
        if not math.isfinite(loss) or (not scaled and not math.isfinite(norm)):
            raise NonFiniteError(
                f"training step {step + 1}: loss {loss}, gradient norm {norm}: not finite; "
                f"nothing was changed, the last checkpoint in {self.out / 'checkpoints'} is good"
            )
        return True

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

    def _log(self, losses: StepLosses, norm: float) -> None:
        if not self.accelerator.is_main_process:
            return
        row = {
            "step": self.step,
            "loss": float(losses.total.detach()),
            "generation": float(losses.generation.detach().mean()),
            "alignment": None if losses.alignment is None else float(losses.alignment.detach().mean()),
            "grad_norm": norm,
            "lr": rate_at(self.settings, self.step - 1),
            "seconds": round(self.seconds, 4),
        }
        with (self.out / "log.jsonl").open("a") as handle:
            handle.write(json.dumps(row) + "\n")


def main(arguments: list[str]) -> None:
    """`python -m sra.train --config stage.json [...] --latents DIR [...] --out DIR [...]`: one run after another."""
    parser = argparse.ArgumentParser(prog="python -m sra.train", description=main.__doc__)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--latents", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    options = parser.parse_args(arguments)
    if not len(options.config) == len(options.latents) == len(options.out):
        raise ConfigError("--config, --latents and --out name different numbers of places: one of each a run")
    for config, latents, out in zip(options.config, options.latents, options.out, strict=True):
        Trainer(job.read_config(config, TrainJob), latents, out).run()


if __name__ == "__main__":
    job.run(main)
