"""Training: `python -m sra.training.train`, one process or many under torchrun. Can be stopped and continued.

A step depends on (seed, step) only: each epoch is a permutation of the data, every random number belongs to a position
in that order, and each process takes its slice of the global batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import DistributedDataParallelKwargs
from safetensors.torch import save_file

from sra.common.errors import ConfigError, DataError, Stopped
from sra.common.files import remove_unfinished, replacing, write_json
from sra.config import RESUMABLE_KEYS, TrainJob, to_plain
from sra.data.latents import PackedLatents
from sra.runtime import job
from sra.runtime.device import record_of, set_tf32
from sra.runtime.distributed import CpuProcessGroup, StopVote, leave, make_accelerator
from sra.runtime.speed import speed_from_environment
from sra.sampling.image_grid import TrainingGrid
from sra.training import checkpoint
from sra.training.batches import Batches
from sra.training.logbook import (
    LogBook,
    check_trackers,
    finish_trackers,
    mean_losses,
    memory_peak,
    power_draw,
    reset_memory_peak,
    start_trackers,
)
from sra.training.optimizer import learning_rate
from sra.training.step import StepResult, TrainState


class Trainer:
    """One training run in its stage folder."""

    def __init__(self, config: TrainJob, latents: Path, out: Path, processes: int | None = None) -> None:
        self.config, self.settings, self.out = config, config.train, out
        self.speed = speed_from_environment("cuda" if torch.cuda.is_available() else "cpu")
        check_trackers(self.settings.trackers)
        ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=self.speed.buckets == "views")
        self.accelerator = make_accelerator(
            self.settings.precision,
            processes,
            log_with=list(self.settings.trackers) or None,
            project_dir=out / "trackers",
            kwargs_handlers=[ddp],
        )
        set_tf32(self.settings.precision)
        reset_memory_peak(self.accelerator.device)
        self.data = PackedLatents(latents)
        self._check_data()
        self.batches = Batches(config, self.data, self.accelerator, self.speed)
        self.steps_per_epoch = self.batches.order.steps_per_epoch
        self.total = self.settings.steps or (self.settings.epochs or 0) * self.steps_per_epoch
        self.state = TrainState(config, self.accelerator, self.speed)
        self.grid = TrainingGrid(config, out / "grids", self.accelerator.device) if self.settings.grid_every else None
        self.step, self.seconds, self.loss, self.skipped = 0, 0.0, float("nan"), 0
        self.ahead = 0  # newest checkpoint of a longer run whose earlier weights are made again
        self.log = LogBook(out, self.accelerator)
        self.processes = CpuProcessGroup()
        self.vote = StopVote(self.processes)
        policy = checkpoint.Policy(keep=self.settings.keep, keep_every=self.settings.keep_every)
        self.writer = checkpoint.Writer(out / "checkpoints", self.identity(), policy)
        if self.processes.is_main:
            record = record_of(self.accelerator.device, self.settings.precision, config.model)
            write_json(out / "speed.json", {**record, **dataclasses.asdict(self.speed)})
            print(f"speed: {self.speed}", flush=True)
        start_trackers(self.accelerator, self.settings.trackers, out)

    def identity(self) -> dict[str, Any]:
        """Settings and data that a step depends on, flat; a checkpoint with other values is refused."""
        plain = to_plain(self.config)
        train = {f"train.{name}": value for name, value in plain.pop("train").items() if name not in RESUMABLE_KEYS}
        data = {"latents": self.data.facts.get("moments_sha256"), "images": self.data.count}
        return {**plain, **train, **data}

    def _check_data(self) -> None:
        shape = self.config.codec.moments_shape(self.config.model.resolution)
        if self.data.shape != shape:
            raise DataError(f"{self.data.path}: expected latents of shape {shape} (C, H, W), got {self.data.shape}")
        if self.settings.flip and self.data.flipped is None:
            raise DataError(f"{self.data.path}: expected mirrored latents for train.flip, got none")
        if self.data.classes > self.config.model.classes:
            expected = f"at most model.classes {self.config.model.classes}"
            raise DataError(f"{self.data.path}: expected {expected} classes, got {self.data.classes}")
        used = len(np.unique(self.data.labels))
        if used < self.config.model.classes and not self.settings.allow_unused_classes:
            wanted = f"images of all {self.config.model.classes} classes (model.classes; fewer only with "
            wanted += "train.allow_unused_classes: true, as the others would be sampled untrained)"
            raise DataError(f"{self.data.path}: expected {wanted}, got {used} classes")
        processes, batch = self.accelerator.num_processes, self.settings.global_batch
        if batch % (processes * self.settings.accumulate):
            parts = f"{processes} processes x accumulate {self.settings.accumulate}"
            raise DataError(f"train.global_batch: expected a multiple of {parts}, got {batch}")
        if self.config.align is not None:
            self.config.align.check_batch(batch // (processes * self.settings.accumulate))

    # -- saving and resuming ------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, if there is one after this step.

        If the weights of a milestone are missing, continue from the newest checkpoint before it. Later ones stay:
        once the weights are there, training goes on from the last of them.
        """
        while True:
            missing = [step for step in self._exported_steps() if not self.weights_file(step).is_file()]
            missing, steps = self.processes.broadcast_from_main((missing, self.writer.steps()))
            self.ahead = max(steps, default=0) if missing else 0
            self._load_newest(missing[0] if missing else None)
            if self.step not in missing:
                break
            self.export()
        self.processes.barrier()

    def _load_newest(self, limit: int | None) -> None:
        found = checkpoint.load_newest(self.out / "checkpoints", self.identity(), limit)
        if found is not None and int(found["step"]) > self.step:
            self.state.load_state_dict(found)
            self.step, self.seconds = int(found["step"]), float(found["seconds"])
            self.skipped = int(found["skipped"])
            print(f"continues at step {self.step} of {self.total}", flush=True)
        if self.step != (first := self.processes.broadcast_from_main(self.step)):
            raise DataError(
                f"{self.out / 'checkpoints'}: expected the newest checkpoint of step {first} that the first process "
                f"sees, got {self.step}: the machines see different files; start again"
            )

    def _exported_steps(self) -> list[int]:
        return [*self.settings.milestones, self.total]

    def save(self, *, wait: bool) -> None:
        """Write a resumable checkpoint (main process), in the background where the host has memory for a copy.

        Args:
            wait: return only when the checkpoint is on disk, and every process knows.
        """
        self.skipped += self.state.guard.read()
        state = self.state.state_dict()
        if self.processes.is_main:
            counters = {"step": self.step, "seconds": self.seconds, "skipped": self.skipped}
            self.writer.save(self.step, {**state, **counters})
        if wait:
            self.writer.join()
        # Without a copy, the main process may write for longer than a step of the others waits for it.
        self.processes.barrier()

    def weights_file(self, step: int) -> Path:
        """File of the EMA weights of a milestone."""
        return self.out / "weights" / f"step-{step:08d}.safetensors"

    def export(self) -> None:
        """Write the EMA network without the training head, unless it is there: it may have been sampled already."""
        self.skipped += self.state.guard.read()
        if self.processes.is_main and not self.weights_file(self.step).is_file():
            weights = self.state.ema.state_dict().items()
            exported = {n: v.contiguous().cpu() for n, v in weights if not n.startswith("ap_head.")}
            remove_unfinished(self.weights_file(self.step))
            with replacing(self.weights_file(self.step)) as temporary:
                save_file(exported, temporary)

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Stopped: on request, with a checkpoint of the last complete step.
            NonFiniteError: before the step that would have corrupted the weights.
        """
        self.resume()
        if self.processes.is_main:
            # Lines up to a later checkpoint stay: the steps before it are only repeated.
            self.log.truncate(max(self.step, self.ahead))
        try:
            self._train()
        finally:
            # Errors of the thread that writes the last checkpoint are raised here.
            self.writer.join()
            finish_trackers(self.accelerator)

    def _train(self) -> None:
        if self.speed.compile != "off":
            # The others read its code from the cache of their machine.
            self.processes.one_per_machine_first(self.state.rehearse)
        progress = job.Progress(self.out.name, self.total, " steps", done=self.step)
        while self.step < self.total:
            started = time.monotonic()
            epoch = self.step / self.steps_per_epoch
            result = self.state.update(self.step, epoch, self.batches.of_step(self.step))
            self.step += 1
            self.seconds += time.monotonic() - started
            self._after_step(result, progress)
        self.vote.finish()

    def _after_step(self, result: StepResult, progress: job.Progress) -> None:
        if result.skipped:
            self.skipped += 1
            norm = float(result.norm)
            print(f"warning: step {self.step} is skipped, {self.skipped} so far: gradient norm {norm}", flush=True)
        last = self.step == self.total
        logged = self.step % self.settings.log_every == 0 or last or self.step == 1
        if logged or not self.state.guard.late:
            self.skipped += self.state.guard.read()
            self.loss = float(result.losses[-1].total.detach())
        if logged:
            self._log(result)
        progress.update(loss=self.loss)
        if self.step in self._exported_steps():
            self.export()
        if self.grid is not None and self.step % self.settings.grid_every == 0 and self.processes.is_main:
            self.grid.draw(self.state.ema, self.step)
        self.writer.check()
        stopping = self.vote(job.stop_requested())
        if last or stopping or self.step % self.settings.checkpoint_every == 0:
            self.save(wait=last or stopping)
        if stopping and not last:
            self.vote.finish()
            leave()
            raise Stopped
        if self.step < self.ahead and self.step in self._exported_steps():
            self._go_ahead(progress)

    def _go_ahead(self, progress: job.Progress) -> None:
        """Leave out the steps up to a later checkpoint, if their weights are there."""
        self.writer.join()
        self.vote.finish()
        before = self.step
        self.resume()
        progress.update(self.step - before)

    def _log(self, result: StepResult) -> None:
        means = mean_losses(result.losses, self.accelerator)
        if not self.processes.is_main:
            return
        row = {
            "step": self.step,
            **means,
            "grad_norm": float(result.norm),
            "lr": learning_rate(self.settings, self.step - 1),
            "skipped": self.skipped,
            "seconds": round(self.seconds, 4),
            **memory_peak(self.accelerator.device),
            **power_draw(self.accelerator.device),
        }
        if self.accelerator.scaler is not None:
            row["loss_scale"] = self.accelerator.scaler.get_scale()
        self.log.write(row)


def main(arguments: list[str]) -> None:
    """`python -m sra.training.train --config stage.json [...] --latents DIR [...] --out DIR [...]`: run after run."""
    parser = argparse.ArgumentParser(prog="python -m sra.training.train", description=main.__doc__)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--latents", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    parser.add_argument("--processes", type=int, help="expected number of processes")
    options = parser.parse_args(arguments)
    if not len(options.config) == len(options.latents) == len(options.out):
        raise ConfigError("--config, --latents, --out: expected as many of each, one per run")
    for config, latents, out in zip(options.config, options.latents, options.out, strict=True):
        Trainer(job.read_config(config, TrainJob), latents, out, options.processes).run()
    leave()


if __name__ == "__main__":
    job.run(main)
