"""Counter-based random numbers, functions of (seed, stream name, position, element): Philox4x32-10 in torch integers.

The numbers do not depend on the number of processes, the batch size or the device; only the logarithm and cosine of
normal numbers may differ in the last bit between devices. Philox: Salmon et al., SC 2011.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Protocol

import torch
from torch import Tensor

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
MASK = 0xFFFFFFFF


class RandomSource(Protocol):
    """Source of random numbers for training and sampling; tests pass golden numbers through it."""

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32 in [0, 1)."""

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32, standard normal."""


Words = tuple[Tensor, Tensor, Tensor, Tensor]
RoundKeys = Sequence[tuple[int | Tensor, int | Tensor]]


def round_keys(key: tuple[int, int]) -> list[tuple[int, int]]:
    """Keys of the ten rounds, from two 32-bit key words."""
    k0, k1 = key
    return [((k0 + i * W0) & MASK, (k1 + i * W1) & MASK) for i in range(10)]


def philox(counter: Words, keys: RoundKeys) -> Words:
    """Philox4x32-10 of four int64 tensors of 32-bit words, with the keys of its ten rounds.

    Shapes of words and keys broadcast, so that the first rounds work on small tensors. Bits above the 32nd are cleared
    only before a multiplication and at the end.
    """
    c0, c1, c2, c3 = counter
    for k0, k1 in keys:
        # int64 products wrap around, and their low 64 bits are still right.
        product0, product1 = c0 * M0, c2 * M1
        c0 = ((product1 >> 32) ^ c1 ^ k0) & MASK
        c2 = ((product0 >> 32) ^ c3 ^ k1) & MASK
        c1, c3 = product1, product0
    return c0, c1 & MASK, c2, c3 & MASK


class Randoms:
    """Named random streams for N positions (image indices, or positions in the training order)."""

    def __init__(self, seed: int, positions: Tensor) -> None:
        self.seed = seed
        self.positions = positions.to(torch.int64)

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32 in [0, 1), 24 bits each."""
        words = self._words([name], shape)
        return self._shaped([w.bitwise_right_shift(8).float() * 2.0**-24 for w in words], shape)[0]

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32, standard normal (Box-Muller)."""
        return self.normals([name], shape)[0]

    def normals(self, names: Sequence[str], shape: tuple[int, ...] = ()) -> Tensor:
        """(K, N, *shape): `normal` of K streams at once, with a fraction of the kernel launches."""
        a, b, c, d = self._words(names, shape)
        return self._shaped([*_box_muller(a, b), *_box_muller(c, d)], shape)

    def _words(self, names: Sequence[str], shape: tuple[int, ...]) -> Words:
        """Four random words for every four numbers, each (K, N, numbers / 4)."""
        device = self.positions.device
        constants = _constants(self.seed, tuple(names), device)
        extra, *words = constants[:, :, None, None].unbind(1)
        block = torch.arange((math.prod(shape) + 3) // 4, device=device)[None, None, :]
        rows = self.positions[None, :, None]
        keys = list(zip(words[::2], words[1::2], strict=True))
        return philox((block, rows & MASK, (rows >> 32) & MASK, extra), keys)

    def _shaped(self, numbers: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        """Interleave the four numbers of every block: (K, N, *shape)."""
        flat = torch.stack(numbers, -1).flatten(2)
        return flat[:, :, : math.prod(shape)].reshape(*flat.shape[:2], *shape)


@lru_cache(maxsize=1024)
def _constants(seed: int, names: tuple[str, ...], device: torch.device) -> Tensor:
    """(K, 21) int64 constants of K streams. Cached, because a copy to a GPU makes the host wait for its queue."""
    return torch.tensor([_stream_constants(seed, name) for name in names], device=device)


def _stream_constants(seed: int, name: str) -> list[int]:
    """A counter word of the stream, then the keys of its ten rounds."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    k0, k1, extra = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4, 8))
    return [extra, *(word for pair in round_keys((k0, k1)) for word in pair)]


def _box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two normal numbers from two words; (a + 1) / 2^32 lies in (0, 1], so its logarithm is finite."""
    radius = ((a + 1).double() * 2.0**-32).log().mul(-2).sqrt()
    angle = b.double() * (2 * math.pi * 2.0**-32)
    return (radius * angle.cos()).float(), (radius * angle.sin()).float()


class StepNoise:
    """Noise `normal("step.<k>")` of a sampler's steps, drawn for several steps at once.

    On a GPU, launching the 140 small kernels of a draw costs more than running them; on a CPU, arrays should fit into
    the cache.
    """

    MAX_NUMBERS: ClassVar[dict[str, int]] = {"cpu": 2**17, "cuda": 2**22}
    """Numbers per draw, by device type."""

    def __init__(self, randoms: Randoms, shape: tuple[int, ...], steps: int) -> None:
        """Draw nothing yet.

        Args:
            randoms: source for N positions.
            shape: of one position's noise.
            steps: number of steps of the sampler.
        """
        self.randoms, self.shape, self.steps = randoms, shape, steps
        numbers = len(randoms.positions) * math.prod(shape)
        limit = self.MAX_NUMBERS.get(randoms.positions.device.type, 2**20)
        self.steps_per_draw = max(1, min(32, limit // max(1, numbers)))
        self._drawn: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """Noise (N, *shape) of a step."""
        if step not in self._drawn:
            steps = range(step, max(step + 1, min(step + self.steps_per_draw, self.steps)))
            noises = self.randoms.normals([f"step.{k}" for k in steps], self.shape)
            self._drawn = dict(zip(steps, noises, strict=True))
        return self._drawn[step]
