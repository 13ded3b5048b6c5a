"""AdamW, its learning rate, and its state in checkpoints; with `train.shard: optimizer` sharded over processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from sra.config import TrainConfig


def make_optimizer(module: nn.Module, config: TrainConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """Make AdamW with the manifest's settings, fused or in torch's default implementation.

    With `train.shard: optimizer` and several processes, each process updates its part of the parameters and sends it to
    the others (ZeRO stage 1). AdamW updates every element independently, so the numbers are the same.
    """
    settings: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "eps": config.eps,
        "weight_decay": config.weight_decay,
        "fused": True if fused else None,
    }
    if config.shard == "optimizer" and dist.is_initialized() and dist.get_world_size() > 1:
        # Importing this package compiles scripts: a second that other runs need not pay.
        from torch.distributed.optim import ZeroRedundancyOptimizer

        return ZeroRedundancyOptimizer(module.parameters(), optimizer_class=torch.optim.AdamW, **settings)
    return torch.optim.AdamW(module.parameters(), **settings)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of optimizer step `step`, counted from 0."""
    return config.lr * min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else config.lr


def unwrap_optimizer(optimizer: Any) -> Any:
    """Return the AdamW inside the wrappers of accelerate and ZeRO, if any."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return getattr(inner, "optim", inner)


def gather_state(optimizer: Any) -> None:
    """Send the shards of the state to the main process, which then can save it; every process calls this."""
    inner = getattr(optimizer, "optimizer", optimizer)
    if hasattr(inner, "consolidate_state_dict"):
        inner.consolidate_state_dict(to=0)


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load a saved state, whichever implementation of AdamW saved it."""
    optimizer.load_state_dict(keep_kernel_flags(optimizer, state))
    move_step_counts_to_device(optimizer)


def keep_kernel_flags(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Copy a saved state with this optimizer's own choice of implementation (`fused`, `foreach`)."""
    flags = {name: optimizer.param_groups[0].get(name) for name in ("fused", "foreach")}
    return {**state, "param_groups": [{**group, **flags} for group in state["param_groups"]]}


def move_step_counts_to_device(optimizer: Any) -> None:
    """Move step counts to the device for the fused kernel: a sharded optimizer loads them on the host."""
    inner = unwrap_optimizer(optimizer)
    if inner.param_groups[0].get("fused"):
        for parameter, state in inner.state.items():
            state["step"] = state["step"].to(parameter.device)
