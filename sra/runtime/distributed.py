"""One process or many under a launcher: that all of them are there, and that all stop at the same step."""

from __future__ import annotations

import gc
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from sra.common.errors import ConfigError

if TYPE_CHECKING:
    # `sra.perf` measures without it.
    from accelerate import Accelerator, PartialState

T = TypeVar("T")
PATIENCE = timedelta(days=7)


def check_processes(expected: int | None, found: int) -> None:
    """Refuse a world of another size than the plan's.

    `accelerate launch --cpu --num_machines 2` runs every machine alone and says nothing: each would train its own copy
    of the run and overwrite the others'.

    Args:
        expected: what `--processes` says; None: any number will do.
        found: processes that know of each other.

    Raises:
        ConfigError: they differ.
    """
    if expected is not None and expected != found:
        raise ConfigError(
            f"--processes {expected}: found {found}; start the job with torchrun or `python -m sra.runtime.launch` "
            f"(accelerate launch needs --multi_gpu to join machines, with --cpu it runs each alone)"
        )


def make_state(expected: int | None) -> PartialState:
    """This process's place among the others: NCCL where there are GPUs, else gloo.

    Raises:
        ConfigError: their number is not `expected`.
    """
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    check_processes(expected, state.num_processes)
    return state


def make_accelerator(precision: str, expected: int | None, **settings: Any) -> Accelerator:
    """Accelerate for training; `precision` as accelerate spells it.

    Raises:
        ConfigError: the number of processes is not `expected`.
    """
    from accelerate import Accelerator

    make_state(expected)
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available(), **settings)


class Everyone:
    """The processes of a job on the host network, where one may work alone for hours while the others wait.

    A barrier of NCCL would end all of them after ten minutes, which is right for a step of training, and wrong for the
    last shard of images, for 50,000 PNG files, or for a checkpoint on a slow disk.
    """

    def __init__(self) -> None:
        """Called by every process, at the same point."""
        self.alone = not dist.is_initialized() or dist.get_world_size() == 1
        self.group = None if self.alone else dist.new_group(backend="gloo", timeout=PATIENCE)

    def wait(self) -> None:
        """Until every process is here."""
        if not self.alone:
            dist.barrier(group=self.group)

    def told(self, value: T) -> T:
        """What the first process says: others may see a shared file system a moment later."""
        if self.alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]


class StopVote:
    """Whether any process was asked to stop: all leave at the same step, and none waits for the others.

    Each step starts a sum of one number over the host network and reads that of the step before.
    """

    def __init__(self, everyone: Everyone) -> None:
        self.alone, self.group = everyone.alone, everyone.group
        self.pending: tuple[Tensor, Any] | None = None

    def __call__(self, asked: bool) -> bool:
        """Called once a step by every process.

        Args:
            asked: whether this process was asked to stop.
        """
        if self.alone:
            return asked
        found = self.finish()
        flag = torch.tensor([int(asked)])
        self.pending = flag, dist.all_reduce(flag, group=self.group, async_op=True)
        return found

    def finish(self) -> bool:
        """The last vote that was started; False where there is none."""
        if self.pending is None:
            return False
        flag, work = self.pending
        self.pending = None
        work.wait()
        return bool(flag.item())


def leave() -> None:
    """Say goodbye to the other processes, all at the same point."""
    # Groups that a cycle keeps would end their threads in the interpreter's last moments, and abort it.
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
