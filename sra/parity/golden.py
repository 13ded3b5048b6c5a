"""Golden folders: the configuration, and arrays that record which of their keys were read."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sra.common.errors import DataError, expected
from sra.config import CodecConfig, ConfigError, ModelConfig, Size
from sra.parity.compare import Judge, Mode, Report, output

NEED_ALL = ("sit.npz", "dit.npz", "vanilla_sit.npz")
"""Files whose numbers need every key of the configuration; for others, the network's are enough."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The key `config` of `config.json`: settings of the networks and of the numbers."""

    depth: int
    hidden_size: int
    num_heads: int
    patch_size: int
    input_size: int
    """Latent cells along one axis."""
    in_channels: int
    num_classes: int
    # The rest belongs to the numbers of NEED_ALL; other files hold their settings themselves.
    block_out_s: int = 1
    """The student's block, counted from 1."""
    block_out_t: int = 1
    """The teacher's block."""
    t_max: float = 0.0
    """Largest difference between the student's and the teacher's time."""
    cfg_scale: float = 1.0
    guidance_low: float = 0.0
    guidance_high: float = 1.0
    num_steps: int = 1
    """Steps of SiT's samplers."""
    dit_respacing: int = 1
    """Steps of DiT's sampler."""

    def __post_init__(self) -> None:
        for name in ("block_out_s", "block_out_t"):
            if not 1 <= getattr(self, name) <= self.depth:
                raise ConfigError(expected(name, f"a block from 1 to {self.depth} (depth)", getattr(self, name)))

    @property
    def codec(self) -> CodecConfig:
        """For the shape of latents only."""
        return CodecConfig(channels=self.in_channels)

    @property
    def blocks(self) -> tuple[int, int]:
        """Student's and teacher's block."""
        return self.block_out_s, self.block_out_t

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return (self.input_size // self.patch_size) ** 2

    def model(
        self,
        family: Literal["sit", "dit"],
        convention: Literal["sra", "vanilla-sit"] = "sra",
    ) -> ModelConfig:
        """The network of one file."""
        return ModelConfig(
            family=family,
            size=Size(depth=self.depth, width=self.hidden_size, heads=self.num_heads),
            patch=self.patch_size,
            resolution=self.input_size * self.codec.factor,
            classes=self.num_classes,
            convention=convention,
        )


@dataclass(frozen=True)
class Golden:
    """A golden folder."""

    folder: Path
    config: Configuration
    state_dicts: dict[str, Any]
    """The other keys of `config.json`: lists of names and shapes."""


def open_golden(folder: Path) -> Golden:
    """Read `config.json` of a golden folder.

    Raises:
        DataError: not a golden folder.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise DataError(f"{folder}: expected a golden folder with config.json, got none")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        plain = document.pop("config")
        names = {f.name: f.default is dataclasses.MISSING for f in dataclasses.fields(Configuration)}
        every = any((folder / name).is_file() for name in NEED_ALL)
        config = Configuration(**{name: plain[name] for name, needed in names.items() if needed or every})
        # Checks the settings of the network (heads divide the width, ...) before anything is computed.
        config.model("sit")
    except KeyError as error:
        raise DataError(f"{path}: expected a key {error}, got none") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {error}") from error
    return Golden(folder, config, document)


class Arrays:
    """One `.npz`: tensors by key, and the keys that were not read."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            DataError: it is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                self._arrays = {key: torch.from_numpy(file[key]) for key in file.files}
        except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: expected arrays, got: {error}") from error
        self.stem, self.unread = path.stem, dict.fromkeys(self._arrays)

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._arrays:
            raise DataError(f"{key}: missing")
        self.unread.pop(key, None)
        return self._arrays[key]

    def state(self, prefix: str) -> dict[str, Tensor]:
        """All arrays below a prefix, by their names without it; those of the file without one."""
        start = f"{prefix}/" if prefix else ""
        return {key.removeprefix(start): self[key] for key in self if key.startswith(start)}


@dataclass(frozen=True)
class Scope:
    """The keys below one prefix: inputs are read and results compared by name."""

    arrays: Arrays
    report: Report
    mode: Mode
    config: Configuration
    prefix: str = ""

    def at(self, name: str) -> Scope:
        """One level deeper."""
        return dataclasses.replace(self, prefix=self.key(name))

    def key(self, name: str) -> str:
        """The full key."""
        return f"{self.prefix}/{name}" if self.prefix else name

    @property
    def children(self) -> list[str]:
        """First parts of the keys below, each once, in the file's order."""
        start = self.key("")
        return list(dict.fromkeys(k.removeprefix(start).split("/")[0] for k in self.arrays if k.startswith(start)))

    def has(self, name: str) -> bool:
        """Whether there is such an array."""
        return self.key(name) in self.arrays

    def given(self, name: str) -> Tensor:
        """An input on the mode's device, from this prefix or the nearest one above it.

        Raises:
            DataError: it is not there.
        """
        prefix = self.prefix
        while prefix and f"{prefix}/{name}" not in self.arrays:
            prefix = prefix.rpartition("/")[0]
        key = f"{prefix}/{name}" if prefix else name
        return self.arrays[key if key in self.arrays else self.key(name)].to(self.mode.device)

    def latents(self, name: str, *lead: int) -> Tensor:
        """(*lead, C, H, W).

        Raises:
            DataError: it is not there, or of another shape.
        """
        return self.shaped(name, *lead, self.config.in_channels, self.config.input_size, self.config.input_size)

    def shaped(self, name: str, *shape: int) -> Tensor:
        """An input of a known shape.

        Raises:
            DataError: it is not there, or of another shape.
        """
        x = self.given(name)
        if tuple(x.shape) != shape:
            raise DataError(f"{name}: expected shape {shape}, got {tuple(x.shape)}")
        return x

    def labels(self, name: str) -> Tensor:
        """(N,) classes or the null label.

        Raises:
            DataError: it is not there, or holds another number.
        """
        y = self.given(name).long()
        if y.ndim != 1 or not ((y >= 0) & (y <= self.config.num_classes)).all():
            raise DataError(f"{name}: expected labels from 0 to {self.config.num_classes} (null)")
        return y

    def compare(self, name: str, found: Tensor, judge: Judge = output) -> None:
        """Compare a result with the expected one, where the file has it."""
        if self.has(name):
            self.report.compare(self.item(name), found, self.arrays[self.key(name)], judge)
        else:
            self.report.absent.append(self.item(name))

    def item(self, name: str) -> str:
        """The item's name: file and key."""
        return f"{self.arrays.stem}/{self.key(name)}"
