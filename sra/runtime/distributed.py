"""The processes of a job: joining them, waiting for each other, stopping all at the same step."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from sra.common.errors import ConfigError
from sra.config import FP16_NEEDS_GPU
from sra.runtime import job
from sra.runtime.device import HALF

if TYPE_CHECKING:
    # `sra.perf` measures without it.
    from accelerate import Accelerator, PartialState

T = TypeVar("T")
PATIENCE_SECONDS = 10.0
"""Time for the other processes to arrive after a stop signal."""
GROUP_TIMEOUT = timedelta(days=7)
"""One process may work alone for hours while the others wait."""


def check_processes(expected: int | None, found: int) -> None:
    """Check that as many processes joined as the plan expects.

    `accelerate launch --cpu --num_machines 2` runs every machine alone without a word: each would train its own copy
    of the run and overwrite the others'.

    Args:
        expected: value of `--processes`; None: any number is accepted.
        found: number of processes that joined.

    Raises:
        ConfigError: they differ.
    """
    if expected is not None and expected != found:
        raise ConfigError(
            f"--processes: expected {expected} processes, got {found}; start the job with torchrun or "
            f"`python -m sra.runtime.launch` (accelerate launch needs --multi_gpu to join machines)"
        )


def make_state(expected: int | None) -> PartialState:
    """Join the processes of the job, over NCCL where there are GPUs, else gloo.

    Raises:
        ConfigError: the number of processes is not `expected`.
    """
    from accelerate import PartialState

    try:
        with job.on_stop(job.leave_at_once):
            state = PartialState(cpu=not torch.cuda.is_available())
    except dist.DistError as error:
        raise no_connection(error, os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")) from error
    check_processes(expected, state.num_processes)
    return state


def no_connection(error: dist.DistError, address: str | None, port: object) -> ConfigError:
    """The error of processes that cannot meet at an address."""
    if "EADDRINUSE" in str(error):
        return ConfigError(f"port {port}: in use by another program of this machine; give a free one")
    reason = str(error).strip().splitlines()[0]
    return ConfigError(f"{address}:{port}: no connection with the other processes: {reason}")


def make_accelerator(precision: str, expected: int | None, **settings: Any) -> Accelerator:
    """Join the processes of the job for training.

    Args:
        precision: fp32, tf32, fp16 or bf16.
        expected: number of processes; None: any.
        settings: further arguments of `Accelerator`.

    Raises:
        ConfigError: the number of processes is not `expected`; fp16 without a GPU, where accelerate would use float32.
    """
    from accelerate import Accelerator

    make_state(expected)
    on_cpu = not torch.cuda.is_available()
    if precision == "fp16" and on_cpu:
        raise ConfigError(FP16_NEEDS_GPU)
    mixed = precision if precision in HALF else "no"
    return Accelerator(mixed_precision=mixed, cpu=on_cpu, **settings)


class CpuProcessGroup:
    """All processes of a job, connected over the host network (gloo) in addition to their GPU network.

    A barrier of NCCL times out after ten minutes. That is right for a training step, but too short for the last shard
    of images, 50,000 PNG files, or a checkpoint on a slow disk.
    """

    def __init__(self) -> None:
        """Connect the processes; each of them calls this at the same point."""
        joined = dist.is_initialized()
        self.size, self.rank = (dist.get_world_size(), dist.get_rank()) if joined else (1, 0)
        self.group = None
        if self.size > 1:
            with job.on_stop(job.leave_at_once):
                self.group = dist.new_group(backend="gloo", timeout=GROUP_TIMEOUT)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes the files of a run."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here.

        Raises:
            Stopped: this process was asked to stop, and another one has ended.
        """
        if self.size > 1:
            with self._waiting():
                dist.barrier(group=self.group)

    def one_per_machine_first(self, work: Callable[[], None]) -> None:
        """Do some work in one process of each machine, while the others wait; nothing for a process alone."""
        if self.size > 1:
            if os.environ.get("LOCAL_RANK", "0") == "0":
                work()
            self.barrier()

    def broadcast_from_main(self, value: T) -> T:
        """Return the main process's value; a shared file system may show the others another state."""
        if self.size == 1:
            return value
        values = [value]
        with self._waiting():
            dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Wait for the others: after a stop signal the main process, which they may be waiting for, leaves soon."""
        leaving = threading.Timer(PATIENCE_SECONDS, job.leave_at_once)
        leaving.daemon = True

        def leave_soon() -> None:
            if not leaving.is_alive():
                leaving.start()

        with contextlib.ExitStack() as stack:
            stack.callback(leaving.cancel)
            if self.is_main:
                stack.enter_context(job.on_stop(leave_soon))
                if job.stop_requested():
                    leave_soon()
            try:
                yield
            except RuntimeError:
                # Stopped as well, another process has closed its connections.
                job.check_stop()
                raise


class StopVote:
    """Agreement on stopping: once any process was asked to stop, all leave at the same step.

    Each step starts a sum over the host network and reads the result of the step before, so that no step waits.
    """

    def __init__(self, processes: CpuProcessGroup) -> None:
        self.processes = processes
        self._pending: tuple[Tensor, Any] | None = None

    def __call__(self, requested: bool) -> bool:
        """Vote, and return the result of the previous vote; every process calls this once a step.

        Args:
            requested: whether this process was asked to stop.
        """
        if self.processes.size == 1:
            return requested
        result = self.finish()
        flag = torch.tensor([int(requested)])
        self._pending = flag, dist.all_reduce(flag, group=self.processes.group, async_op=True)
        return result

    def finish(self) -> bool:
        """Wait for the last vote and return its result; False if there was none."""
        if self._pending is None:
            return False
        flag, work = self._pending
        self._pending = None
        work.wait()
        return bool(flag.item())


def leave() -> None:
    """Destroy the process groups; every process calls this at the same point."""
    # Groups in reference cycles would end their threads in the interpreter's last moments, and abort it.
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
