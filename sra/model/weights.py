"""Weights of networks: the suite's safetensors and published checkpoints, loaded strictly and safely."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from sra.common.errors import DataError
from sra.config import CodecConfig, ModelConfig
from sra.model.transformer import DiffusionTransformer, build


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
    network = build(model, codec, head=any(name.startswith("ap_head.") for name in state))
    fill(network, state, source)
    return network.eval()


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

    Raises:
        DataError: missing, damaged or unsafe file.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a checkpoint, got no file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Each format raises errors of its own for a damaged file.
        raise DataError(f"{path}: expected weights, got: {str(error).splitlines()[0]}") from error
    state = document.get(which, document) if isinstance(document, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path}: expected a state {which!r} of named tensors, got none")
    return state


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
