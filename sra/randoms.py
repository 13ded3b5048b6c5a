"""Random numbers that are functions of (seed, name, position, element): Philox4x32-10 in torch integers.

The same numbers come out on any number of processes, with any batch and on any device; only the logarithm and the
cosine of the normal numbers may differ in the last bit between devices. Philox: Salmon et al., SC 2011.
"""

from __future__ import annotations

import hashlib
import math
from typing import Protocol

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


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four int64 tensors that hold 32-bit words, for four counter words and two key words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, M0)
        high1, low1 = _multiply(c2, M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product; int64 wraps around, and its low 64 bits are still right."""
    product = a * b
    return (product >> 32) & MASK, product & MASK


class Randoms:
    """Named streams for N positions (images, or places in the order of training)."""

    def __init__(self, seed: int, positions: Tensor) -> None:
        self.seed = seed
        self.positions = positions.to(torch.int64)

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32 in [0, 1), 24 bits each."""
        return self._words(name, shape, lambda w: torch.stack(w, -1).bitwise_right_shift(8).float() * 2.0**-24)

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32, standard normal by Box and Muller."""
        return self._words(name, shape, _box_muller)

    def _words(self, name: str, shape: tuple[int, ...], convert) -> Tensor:  # type: ignore[no-untyped-def]
        count = math.prod(shape)
        blocks = (count + 3) // 4
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"))
        extra = int.from_bytes(digest[8:12], "little")
        rows = self.positions[:, None]
        block = torch.arange(blocks, device=rows.device)[None, :]
        zero = torch.zeros_like(rows) + torch.zeros_like(block)
        words = philox((block + zero, (rows & MASK) + zero, ((rows >> 32) & MASK) + zero, zero + extra), key)
        numbers: Tensor = convert(words)
        return numbers.reshape(len(rows), -1)[:, :count].reshape(len(rows), *shape)


def _box_muller(words: tuple[Tensor, ...]) -> Tensor:
    pairs = []
    for a, b in ((words[0], words[1]), (words[2], words[3])):
        # (a + 1) / 2^32 lies in (0, 1]: its logarithm is finite.
        radius = ((a + 1).double() * 2.0**-32).log().mul(-2).sqrt()
        angle = b.double() * (2 * math.pi * 2.0**-32)
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs, -1).float()
