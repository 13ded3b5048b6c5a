"""Random numbers that are functions of (seed, name, position, element): Philox4x32-10 in torch integers.

The same numbers come out on any number of processes, with any batch and on any device; only the logarithm and the
cosine of the normal numbers may differ in the last bit between devices. Philox: Salmon et al., SC 2011.
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
    """What training and sampling draw from; tests give golden numbers through it."""

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32 in [0, 1)."""

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32, standard normal."""


Words = tuple[Tensor, Tensor, Tensor, Tensor]
RoundKeys = Sequence[tuple[int | Tensor, int | Tensor]]


def round_keys(key: tuple[int, int]) -> list[tuple[int, int]]:
    """Of the ten rounds, from two key words."""
    k0, k1 = key
    return [((k0 + i * W0) & MASK, (k1 + i * W1) & MASK) for i in range(10)]


def philox(counter: Words, keys: RoundKeys) -> Words:
    """Philox4x32-10 of four int64 tensors that hold 32-bit words, with the keys of its ten rounds.

    Words and keys may be of shapes that broadcast: the first rounds then work on the small ones. Bits above the 32nd
    are carried along and cleared where they would count: a multiplication wants clean words.
    """
    c0, c1, c2, c3 = counter
    for k0, k1 in keys:
        # int64 wraps around, and the low 64 bits of a product are still right.
        product0, product1 = c0 * M0, c2 * M1
        c0 = ((product1 >> 32) ^ c1 ^ k0) & MASK
        c2 = ((product0 >> 32) ^ c3 ^ k1) & MASK
        c1, c3 = product1, product0
    return c0, c1 & MASK, c2, c3 & MASK


class Randoms:
    """Named streams for N positions (images, or places in the order of training)."""

    def __init__(self, seed: int, positions: Tensor) -> None:
        self.seed = seed
        self.positions = positions.to(torch.int64)

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32 in [0, 1), 24 bits each."""
        words = self._words([name], shape)
        return self._shaped([w.bitwise_right_shift(8).float() * 2.0**-24 for w in words], shape)[0]

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32, standard normal by Box and Muller."""
        return self.normals([name], shape)[0]

    def normals(self, names: Sequence[str], shape: tuple[int, ...] = ()) -> Tensor:
        """(K, N, *shape): `normal` of K streams at once, the same numbers for a fraction of the kernels."""
        a, b, c, d = self._words(names, shape)
        return self._shaped([*_box_muller(a, b), *_box_muller(c, d)], shape)

    def _words(self, names: Sequence[str], shape: tuple[int, ...]) -> Words:
        """Four words for every four numbers: each (K, N, numbers / 4)."""
        device = self.positions.device
        plan = _plans(self.seed, tuple(names), device)
        extra, *words = plan[:, :, None, None].unbind(1)
        block = torch.arange((math.prod(shape) + 3) // 4, device=device)[None, None, :]
        rows = self.positions[None, :, None]
        keys = list(zip(words[::2], words[1::2], strict=True))
        return philox((block, rows & MASK, (rows >> 32) & MASK, extra), keys)

    def _shaped(self, numbers: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        """Four numbers of every block, in order: (K, N, *shape)."""
        flat = torch.stack(numbers, -1).flatten(2)
        return flat[:, :, : math.prod(shape)].reshape(*flat.shape[:2], *shape)


@lru_cache(maxsize=1024)
def _plans(seed: int, names: tuple[str, ...], device: torch.device) -> Tensor:
    """(K, 21) int64 of K streams. Kept: to bring numbers to a GPU makes the host wait for all that it was given."""
    return torch.tensor([_plan(seed, name) for name in names], device=device)


def _plan(seed: int, name: str) -> list[int]:
    """What a stream has of its own: a counter word, then the keys of all rounds."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    k0, k1, extra = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4, 8))
    return [extra, *(word for pair in round_keys((k0, k1)) for word in pair)]


def _box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two normal numbers from two words. (a + 1) / 2^32 lies in (0, 1]: its logarithm is finite."""
    radius = ((a + 1).double() * 2.0**-32).log().mul(-2).sqrt()
    angle = b.double() * (2 * math.pi * 2.0**-32)
    return (radius * angle.cos()).float(), (radius * angle.sin()).float()


class StepNoise:
    """`normal("step.<k>")` of one step after the other, several drawn at once where that saves time.

    On a GPU each of some 140 small kernels costs more to start than to run; on a CPU the arrays should stay in its
    cache.
    """

    LIMIT: ClassVar[dict[str, int]] = {"cpu": 2**17, "cuda": 2**22}
    """Numbers per draw."""

    def __init__(self, randoms: Randoms, shape: tuple[int, ...], steps: int, prefix: str = "step.") -> None:
        """Nothing is drawn before it is asked for.

        Args:
            randoms: source for N positions.
            shape: of one position's noise.
            steps: how many steps may be asked for.
            prefix: of the streams' names.
        """
        self.randoms, self.shape, self.steps, self.prefix = randoms, shape, steps, prefix
        numbers = len(randoms.positions) * math.prod(shape)
        self.ahead = max(1, min(32, self.LIMIT.get(randoms.positions.device.type, 2**20) // max(1, numbers)))
        self._drawn: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """Noise (N, *shape) of a step."""
        if step not in self._drawn:
            steps = range(step, max(step + 1, min(step + self.ahead, self.steps)))
            noises = self.randoms.normals([f"{self.prefix}{k}" for k in steps], self.shape)
            self._drawn = dict(zip(steps, noises, strict=True))
        return self._drawn[step]
