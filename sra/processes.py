"""The processes of a job: as many as torchrun started, on GPUs or, without any, on the CPU."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState

from sra.errors import ConfigError


def on_cpu() -> bool:
    """Whether there is no GPU. Accelerate has to be told: else each of several processes would work for itself."""
    return not torch.cuda.is_available()


def join() -> PartialState:
    """Meet the other processes.

    Raises:
        ConfigError: see `check_world`.
    """
    state = PartialState(cpu=on_cpu())
    check_world(state.num_processes)
    return state


def check_world(found: int) -> None:
    """Refuse to run alone where several were started.

    Raises:
        ConfigError: the launcher's WORLD_SIZE is another number than the processes that have met.
    """
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if found != wanted:
        raise ConfigError(f"WORLD_SIZE is {wanted}, found {found} processes: start the job through torchrun")
