"""One process of the all-reduce test: `torchrun ... -m sra.accept.collectives MEGABYTES`. Rank 0 prints GB/s."""

from __future__ import annotations

import sys

import torch
from torch import distributed as dist

from sra.accept.stage import milliseconds


def main(arguments: list[str]) -> None:
    """Time the sum of one buffer over all processes; the rate is what each process sends in a ring."""
    gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if gpu else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    buffer = torch.full((int(arguments[0]) * 2**18,), 1.0, device=device)
    dist.all_reduce(buffer)
    if not bool((buffer == size).all()):
        raise RuntimeError(f"the sum over {size} processes is wrong")
    seconds = milliseconds(lambda: dist.all_reduce(buffer), device) / 1e3
    if rank == 0:
        print(2 * (size - 1) / size * 4 * buffer.numel() / seconds / 1e9, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
