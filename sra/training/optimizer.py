"""AdamW, its learning rate, and its state in checkpoints; with `train.shard: optimizer` sharded over processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from sra.config import TrainConfig

STATE = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter."""


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


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """State in the form of AdamW's `state_dict`; every process calls this, and the main process has all of it."""
    inner = getattr(optimizer, "optimizer", optimizer)
    own = unwrap_optimizer(optimizer)
    if own is inner:
        state: dict[str, Any] = inner.state_dict()
        return state
    return _gathered_state(inner, own)


def _gathered_state(sharded: Any, own: torch.optim.AdamW) -> dict[str, Any]:
    """Send the state of each parameter from its process to the main one, tensor by tensor.

    Torch's `consolidate_state_dict` pickles all of it into Python bytes: seven minutes for XL on eight processes.
    """
    rank, groups = dist.get_rank(), []
    state: dict[int, dict[str, Tensor | None]] = {}
    mine = {parameter for group in own.param_groups for parameter in group["params"]}
    for group in sharded.param_groups:
        first, parameters = len(state), group["params"]
        owners = torch.tensor([rank if p in mine else -1 for p in parameters], device=parameters[0].device)
        dist.all_reduce(owners, dist.ReduceOp.MAX)
        for index, (parameter, owner) in enumerate(zip(parameters, owners.tolist(), strict=True), start=first):
            state[index] = {name: _from_owner(own, parameter, owner, name) for name in STATE}
        settings = {name: value for name, value in group.items() if name != "params"}
        groups.append({**settings, "params": list(range(first, len(state)))})
    return {"state": state, "param_groups": groups}


def _from_owner(own: torch.optim.AdamW, parameter: nn.Parameter, owner: int, name: str) -> Tensor | None:
    """One tensor of a parameter's state from the process that updates it; None except on the main process."""
    if owner == dist.get_rank():
        value = own.state[parameter][name].to(parameter.device)
    else:
        value = torch.empty(() if name == "step" else parameter.shape, device=parameter.device)
    dist.broadcast(value, owner)
    # On the host at once: the state of all processes may not fit on one device.
    return value.cpu() if dist.get_rank() == 0 else None


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Copy a saved state, whichever implementation of AdamW saved it."""
    optimizer.load_state_dict(keep_kernel_flags(optimizer, state))
    own = unwrap_optimizer(optimizer)
    if (sharded := getattr(optimizer, "optimizer", optimizer)) is not own:
        # ZeRO keeps the loaded tensors here as well, and never uses them.
        sharded.state.clear()
    fused = own.param_groups[0].get("fused")
    for parameter, values in own.state.items():
        for name, value in values.items():
            # The fused kernel reads the steps on the device; a sharded optimizer loads them on the host.
            placed = value.to(parameter.device) if fused else value
            values[name] = placed.clone() if placed.device.type == "cpu" else placed


def keep_kernel_flags(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Copy a saved state with this optimizer's own choice of implementation (`fused`, `foreach`, `capturable`)."""
    flags = {name: optimizer.param_groups[0].get(name) for name in ("fused", "foreach", "capturable")}
    return {**state, "param_groups": [{**group, **flags} for group in state["param_groups"]]}
