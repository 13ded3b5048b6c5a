"""Weights of networks: the suite's safetensors and published checkpoints, loaded strictly and safely."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from sra.common.checkpoints import SAFETENSORS, check_content, read_headers
from sra.common.errors import DataError
from sra.common.files import named_in_utf8
from sra.config import CodecConfig, ModelConfig
from sra.model.state import check_shapes, find_state, has_head, own_shapes, shapes_of
from sra.model.transformer import DiffusionTransformer, build


def load_network(path: Path, model: ModelConfig, codec: CodecConfig, which: str = "ema") -> DiffusionTransformer:
    """A network in eval mode with the weights of a file.

    Args:
        path: `.safetensors` of this suite, or a published `.pt`: a dict with `ema` and `model`, or a bare state.
        model: the network, with the convention of the weights.
        codec: for the latent's shape.
        which: `ema` or `model`, where the file has both.

    Raises:
        DataError: not a weights file, or one of another network; damaged weights; see `_check_values`.
    """
    return network_of(read_state(path, which), model, codec, str(path))


def network_of(state: dict[str, Tensor], model: ModelConfig, codec: CodecConfig, source: str) -> DiffusionTransformer:
    """A network in eval mode with the weights of a state, with SRA's head where the state has one; see `fill`."""
    _check_values(state, source)
    shapes = own_shapes(shapes_of(state), model, codec)
    state = {name: state[name].reshape(shape) for name, shape in shapes.items() if shape is not None}
    network = build(model, codec, head=has_head(state))
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
    check_shapes(source, shapes_of(state), shapes_of(network.state_dict()))
    network.load_state_dict(state)


def _check_values(state: dict[str, Tensor], source: str) -> None:
    """Refuse what torch would take for weights but are none.

    Raises:
        DataError: integers, tensors without values, NaN or infinity; the first of them.
    """
    for name, value in state.items():
        if not value.is_floating_point() or value.is_meta or value.layout != torch.strided:
            kind = value.device if value.is_meta else value.dtype if value.layout == torch.strided else value.layout
            raise DataError(f"{source}: {name}: expected floating-point numbers, got {kind}")
        if not value.isfinite().all():
            count = sum(not other.isfinite().all() for other in state.values())
            raise DataError(f"{source}: {name}: expected finite numbers, got NaN or infinity (in {count} tensors)")


def read_state(path: Path, which: str = "ema") -> dict[str, Tensor]:
    """Names to tensors; the one class that published files pickle, `argparse.Namespace`, is allowed.

    What names share (`module.`, `_orig_mod.`) is taken off. A file with one state gives that, by whatever name.

    Raises:
        DataError: missing, damaged or unsafe file, or one without such a state: the keys that it has.
    """
    headers, _ = find_state(read_headers(path), which, path)
    check_content(path, headers.values())
    try:
        with named_in_utf8(path) as name, torch.serialization.safe_globals([argparse.Namespace]):
            if path.suffix == SAFETENSORS:
                document = load_file(name)
            else:
                # Mapped, the optimizer's state of a training checkpoint is never read; torch's first format cannot be.
                mapped = zipfile.is_zipfile(path)
                document = torch.load(name, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # Each format raises errors of its own for a damaged file.
        raise DataError(f"{path}: expected weights, got: {str(error).splitlines()[0]}") from error
    state, notes = find_state(document, which, path)
    for note in notes:
        print(f"{path}: {note}", flush=True)
    return state
