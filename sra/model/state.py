"""States of networks: the names and shapes of their tensors, and how files name them. Torch-free.

A state maps names to tensors, or to the headers of tensors that are not loaded; both have a `shape`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sra.common.checkpoints import read_headers
from sra.common.errors import DataError
from sra.config import CodecConfig, ModelConfig
from sra.model.flops import SINUSOIDS

COMPILED = "_orig_mod."
"""What torch.compile puts before the names of a module's tensors."""
POSITIONS = "pos_embed"
"""The fixed positions, which are saved but not trained."""

Shapes = Mapping[str, tuple[int, ...] | None]
"""By name; None: not known."""


def network_shapes(model: ModelConfig, codec: CodecConfig, *, head: bool = False) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's state.

    Args:
        model: the network.
        codec: for the latent's shape.
        head: with SRA's training head.
    """
    d, area = model.dimensions.width, model.patch**2

    def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    shapes: dict[str, tuple[int, ...]] = {
        POSITIONS: (1, model.tokens(codec), d),
        "x_embedder.proj.weight": (d, codec.channels, model.patch, model.patch),
        "x_embedder.proj.bias": (d,),
        "y_embedder.embedding_table.weight": (model.classes + 1, d),
        **linear("t_embedder.mlp.0", SINUSOIDS, d),
        **linear("t_embedder.mlp.2", d, d),
        **linear("final_layer.linear", d, area * model.output_channels(codec)),
        **linear("final_layer.adaLN_modulation.1", d, 2 * d),
    }
    for block in (f"blocks.{number}" for number in range(model.dimensions.depth)):
        shapes |= linear(f"{block}.attn.qkv", d, 3 * d) | linear(f"{block}.attn.proj", d, d)
        shapes |= linear(f"{block}.mlp.fc1", d, 4 * d) | linear(f"{block}.mlp.fc2", 4 * d, d)
        shapes |= linear(f"{block}.adaLN_modulation.1", d, 6 * d)
    return shapes | (linear("ap_head.linear1", d, 2 * d) | linear("ap_head.linear2", 2 * d, d) if head else {})


def check_file(path: Path, model: ModelConfig, codec: CodecConfig, which: str) -> None:
    """Refuse a file of weights that a network cannot load, without loading it.

    Args:
        path: the file.
        model: the network.
        codec: for the latent's shape.
        which: `ema` or `model`, where the file has both.

    Raises:
        DataError: as `read_headers`, `find_state` and `check_shapes`.
    """
    state, _ = find_state(read_headers(path), which, path)
    found = own_shapes(shapes_of(state), model, codec)
    check_shapes(str(path), found, network_shapes(model, codec, head=has_head(found)))


def shapes_of(state: Mapping[str, Any]) -> Shapes:
    """Shapes by name."""
    return {name: None if value.shape is None else tuple(value.shape) for name, value in state.items()}


def has_head(names: Mapping[str, Any]) -> bool:
    """Whether a state has SRA's training head."""
    return any(name.startswith("ap_head.") for name in names)


def own_shapes(shapes: Shapes, model: ModelConfig, codec: CodecConfig) -> Shapes:
    """Names and shapes in which a state of Self-Flow's code fits the networks of SiT; those of any other as they are.

    There the patches, laid out (channel, row, column), go through a linear layer, the convolution by another name; and
    the state has a training head.
    """
    name, patch = "x_embedder.proj.weight", (codec.channels, model.patch, model.patch)
    shape = shapes.get(name)
    if shape is None or shape[1:] != (math.prod(patch),):
        return shapes
    kept = {key: value for key, value in shapes.items() if not key.startswith("projector.")}
    return kept | {name: (shape[0], *patch)}


def find_state(document: Any, which: str, path: Path) -> tuple[dict[str, Any], list[str]]:
    """The state of a file, without what wrappers put into its names; and what is to be said of it.

    Args:
        document: what the file holds.
        which: `ema` or `model`; a file with one state gives that, by whatever name.
        path: of the file, for errors.

    Raises:
        DataError: no such state: the keys that are there.
    """
    notes = []
    if not _is_state(document):
        found = document if isinstance(document, dict) else {}
        nested = found.get("state_dict")
        if which not in found and isinstance(nested, dict) and not _is_state(nested):
            found = nested
        states = [key for key, value in found.items() if _is_state(value)]
        key = which if which in states else states[0] if len(states) == 1 else None
        if key is None:
            keys = (
                ", ".join(map(str, found))
                or f"no keys, but a {'tensor' if hasattr(document, 'shape') else type(document).__name__}"
            )
            raise DataError(f"{path}: expected a state {which!r} of named tensors, got {keys:.200}")
        if key != which:
            notes = [f"has no state {which!r}; its only one, {key!r}, is used"]
        document = found[key]
    names = {name: name.replace(COMPILED, "") for name in document}
    removed = COMPILED if any(name != bare for name, bare in names.items()) else ""
    while len(names) > 1 and len(firsts := {bare.partition(".")[0] for bare in names.values()}) == 1:
        (first,) = firsts
        if not all(bare.startswith(f"{first}.") for bare in names.values()):
            break
        names = {name: bare.removeprefix(f"{first}.") for name, bare in names.items()}
        removed += f"{first}."
    if removed:
        notes.append(f"{removed!r} is taken off the names of its tensors")
    return {bare: document[name] for name, bare in names.items()}, notes


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(hasattr(part, "shape") for part in value.values())


def check_shapes(source: str, found: Shapes, expected: Shapes) -> None:
    """Refuse a state of another network.

    Raises:
        DataError: names that are missing or unexpected, shapes that differ; the first of each.
    """
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name} {found[name]} instead of {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] not in (expected[name], None)
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
    problems = [f"{kind}: {', '.join(n[:5])}{' ...' if len(n) > 5 else ''}" for kind, n in kinds if n]
    if problems:
        raise DataError(f"{source}: expected weights of the manifest's network, got {'; '.join(problems)}")
