"""Weights of networks: the suite's safetensors and published checkpoints, loaded strictly and safely."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sra.common.checkpoints import SAFETENSORS, check_weights
from sra.common.errors import DataError
from sra.config import CodecConfig, ModelConfig
from sra.model.transformer import DiffusionTransformer, build

COMPILED = "_orig_mod."
"""What torch.compile puts before the names of a module's tensors."""


def load_network(path: Path, model: ModelConfig, codec: CodecConfig, which: str = "ema") -> DiffusionTransformer:
    """A network in eval mode with the weights of a file.

    Args:
        path: `.safetensors` of this suite, or a published `.pt`: a dict with `ema` and `model`, or a bare state.
        model: the network, with the convention of the weights.
        codec: for the latent's shape.
        which: `ema` or `model`, where the file has both.

    Raises:
        DataError: not a weights file, or one of another network.
    """
    return network_of(read_state(path, which), model, codec, str(path))


def network_of(state: dict[str, Tensor], model: ModelConfig, codec: CodecConfig, source: str) -> DiffusionTransformer:
    """A network in eval mode with the weights of a state, with SRA's head where the state has one; see `fill`."""
    state = _convolution_of(state, codec.channels, model.patch)
    network = build(model, codec, head=any(name.startswith("ap_head.") for name in state))
    fill(network, state, source)
    return network.eval()


def _convolution_of(state: dict[str, Tensor], channels: int, patch: int) -> dict[str, Tensor]:
    """A state of Self-Flow's code in the names of SiT, without its training head; any other state unchanged.

    There the patches, laid out (channel, row, column), go through a linear layer, the convolution by another name.
    """
    name, shape = "x_embedder.proj.weight", (channels, patch, patch)
    weight = state.get(name)
    if weight is None or weight.shape[1:] != (math.prod(shape),):
        return state
    kept = {key: value for key, value in state.items() if not key.startswith("projector.")}
    return kept | {name: weight.reshape(-1, *shape)}


def fill(network: DiffusionTransformer, state: dict[str, Tensor], source: str) -> None:
    """Load a state strictly.

    Args:
        network: to load into.
        state: names to tensors.
        source: of the state, for the error.

    Raises:
        DataError: names are missing or unexpected, or shapes differ.
    """
    _check(source, state, network.state_dict())
    network.load_state_dict(state)


def read_state(path: Path, which: str = "ema") -> dict[str, Tensor]:
    """Names to tensors; the one class that published files pickle, `argparse.Namespace`, is allowed.

    What names share (`module.`, `_orig_mod.`) is taken off. A file with one state gives that, by whatever name.

    Raises:
        DataError: missing, damaged or unsafe file, or one without such a state: the keys that it has.
    """
    check_weights(path)
    try:
        if path.suffix == SAFETENSORS:
            return _bare(load_file(path), path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Each format raises errors of its own for a damaged file.
        raise DataError(f"{path}: expected weights, got: {str(error).splitlines()[0]}") from error
    return _bare(_state(document, which, path), path)


def _state(document: Any, which: str, path: Path) -> dict[str, Tensor]:
    """The state `which` of a loaded file."""
    if _is_state(document):
        return document  # type: ignore[no-any-return]
    found = document if isinstance(document, dict) else {}
    nested = found.get("state_dict")
    if which not in found and isinstance(nested, dict) and not _is_state(nested):
        return _state(nested, which, path)
    states = [key for key, value in found.items() if _is_state(value)]
    key = which if which in states else states[0] if len(states) == 1 else None
    if key is None:
        keys = ", ".join(map(str, found)) or f"no keys, but {type(document).__name__}"
        raise DataError(f"{path}: expected a state {which!r} of named tensors, got {keys:.200}")
    if key != which:
        print(f"{path}: has no state {which!r}; its only one, {key!r}, is used", flush=True)
    return found[key]  # type: ignore[no-any-return]


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(part, Tensor) for part in value.values())


def _bare(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The state without what wrappers (DDP, torch.compile) put into its names."""
    names = {name: name.replace(COMPILED, "") for name in state}
    removed = COMPILED if any(name != bare for name, bare in names.items()) else ""
    while len(names) > 1 and len(firsts := {bare.partition(".")[0] for bare in names.values()}) == 1:
        (first,) = firsts
        if not all(bare.startswith(f"{first}.") for bare in names.values()):
            break
        names = {name: bare.removeprefix(f"{first}.") for name, bare in names.items()}
        removed += f"{first}."
    if removed:
        print(f"{path}: {removed!r} is taken off the names of its tensors", flush=True)
    return {bare: state[name] for name, bare in names.items()}


def _check(source: str, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
    problems = [f"{kind}: {', '.join(n[:5])}{' ...' if len(n) > 5 else ''}" for kind, n in kinds if n]
    if problems:
        raise DataError(f"{source}: expected weights of the manifest's network, got {'; '.join(problems)}")
