"""A resumable checkpoint as the authors' training would have saved it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sra.common.errors import DataError
from sra.common.files import replacing
from sra.config import ModelConfig, TrainJob, to_plain
from sra.training import checkpoint
from sra.training.module import TrainingModule

# The authors register their layers in this order; their optimizer numbers its parameters by it, the frozen position
# encoding included.
ORDER = ("pos_embed", "x_embedder", "t_embedder", "y_embedder", "blocks", "ap_head", "final_layer")
HEAD = ("ap_head.linear1.", "ap_head.linear2.")
"""Parameters of SRA's head; a head of another alignment has no place in the authors' network."""


def _by_order(names: Iterable[str]) -> list[str]:
    """Names of parameters as the authors' network lists them; the sort is stable, blocks keep their order."""
    kept = [name for name in names if name.startswith(HEAD) or not name.startswith("ap_head.")]
    return sorted(kept, key=lambda name: ORDER.index(name.split(".")[0]))


def public_optimizer(state: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """AdamW's state, renumbered for the authors' optimizer.

    Args:
        state: `state_dict` of our optimizer.
        names: our parameters in the order of our optimizer, `network.` before those of the network; others have no
            place in the authors' file.
    """
    own = {name.removeprefix("network."): i for i, name in enumerate(names) if name.startswith("network.")}
    theirs = _by_order(["pos_embed", *own])
    moved = {i: state["state"][own[name]] for i, name in enumerate(theirs) if own.get(name) in state["state"]}
    groups = [{**state["param_groups"][0], "params": list(range(len(theirs)))}]
    return {"state": moved, "param_groups": groups}


def model_name(model: ModelConfig) -> str:
    """`SiT-XL/2` and its like; `custom` stands for a size that has no published name."""
    return f"{'SiT' if model.family == 'sit' else 'DiT'}-{model.size_name}/{model.patch}"


def public_document(config: TrainJob, state: dict[str, Any], images: int) -> dict[str, Any]:
    """model, ema, opt, args, epoch and steps, as the authors' training scripts save them.

    Args:
        config: the training run.
        state: a resumable checkpoint of it.
        images: size of the data set, for the epoch.
    """
    module = TrainingModule(config.model, config.codec, config.train, config.align)
    settings = argparse.Namespace(
        model=model_name(config.model),
        resolution=config.model.resolution,
        num_classes=config.model.classes,
        seed=config.seed,
        sra_bench=to_plain(config),
    )
    return {
        "model": _ordered(state["network"]),
        "ema": _ordered(state["ema"]),
        "opt": public_optimizer(state["optimizer"], [name for name, _ in module.named_parameters()]),
        "args": settings,
        "epoch": state["step"] // (images // config.train.global_batch),
        "steps": state["step"],
    }


def _ordered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name] for name in _by_order(state)}


def write_public(config: TrainJob, checkpoints: Path, images: int, out: Path) -> str:
    """Write the newest checkpoint of a run in the authors' layout; returns what it is.

    Raises:
        DataError: there is no checkpoint.
    """
    state = checkpoint.load_newest(checkpoints)
    if state is None:
        raise DataError(f"{checkpoints}: found no resumable checkpoint")
    with replacing(out) as temporary:
        torch.save(public_document(config, state, images), temporary)
    return f"{out}: step {state['step']} of {model_name(config.model)}"
