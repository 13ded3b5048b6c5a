"""Counter-based random numbers, functions of (seed, stream name, position, element): Philox4x32-10 in torch integers.

The numbers do not depend on the number of processes, the batch size or the device; only the logarithm and cosine of
normal numbers may differ in the last bit between devices. Philox: Salmon et al., SC 2011.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import ClassVar, Literal, Protocol

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
Draw = tuple[Literal["uniform", "normal"], str, tuple[int, ...]]
"""Distribution, name of the stream, and shape of one position's numbers."""


def round_keys(key: tuple[int, int]) -> list[tuple[int, int]]:
    """Keys of the ten rounds, from two 32-bit key words."""
    k0, k1 = key
    return [((k0 + i * W0) & MASK, (k1 + i * W1) & MASK) for i in range(10)]


def philox(
    counter: Words, keys: RoundKeys, m0: int | Tensor = M0, m1: int | Tensor = M1, mask: int | Tensor = MASK
) -> Words:
    """Philox4x32-10 of four int64 tensors of 32-bit words, with the keys of its ten rounds.

    Shapes of words and keys broadcast, so that the first rounds work on small tensors. Bits above the 32nd are cleared
    only before a multiplication and at the end. The compiler takes the constants as tensors only: Triton's are 32-bit.
    """
    c0, c1, c2, c3 = counter
    for k0, k1 in keys:
        # int64 products wrap around, and their low 64 bits are still right.
        product0, product1 = c0 * m0, c2 * m1
        c0 = ((product1 >> 32) ^ c1 ^ k0) & mask
        c2 = ((product0 >> 32) ^ c3 ^ k1) & mask
        c1, c3 = product1, product0
    return c0, c1 & mask, c2, c3 & mask


class Together:
    """The draws of a training step: made one by one in the first step, and all at once in every later one.

    They are the same in every step; a hundred small kernels are launched for each draw, or for all of them, or compiled
    into one or two.
    """

    def __init__(self, *, compiled: bool = False) -> None:
        self.draws: list[Draw] = []
        self.generate = torch.compile(_generate, dynamic=False) if compiled else _generate


class Randoms:
    """Named random streams for N positions (image indices, or positions in the training order)."""

    def __init__(self, seed: int, positions: Tensor, together: Together | None = None) -> None:
        """Draw nothing yet.

        Args:
            seed: of all streams.
            positions: (N,).
            together: of all steps of a training run; it changes no number.
        """
        self.seed = seed
        self.positions = positions.to(torch.int64)
        self._together = together
        self._drawn: dict[Draw, Tensor] = {}

    def tensors(self) -> list[Tensor]:
        """Positions and the numbers drawn so far: what differs from step to step."""
        return [self.positions, *self._drawn.values()]

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32 in [0, 1), 24 bits each."""
        return self._draw(("uniform", name, shape))

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """(N, *shape) float32, standard normal (Box-Muller)."""
        return self._draw(("normal", name, shape))

    def normals(self, names: Sequence[str], shape: tuple[int, ...] = ()) -> list[Tensor]:
        """`normal` of several streams at once, with a fraction of the kernel launches."""
        return self._numbers([("normal", name, shape) for name in names], _generate)

    def _draw(self, draw: Draw) -> Tensor:
        if self._together is None:
            return self._numbers([draw], _generate)[0]
        if draw not in self._drawn:
            if draw in self._together.draws:
                draws = [known for known in self._together.draws if known not in self._drawn]
                self._drawn.update(zip(draws, self._numbers(draws, self._together.generate), strict=True))
            else:
                self._together.draws.append(draw)
                self._drawn[draw] = self._numbers([draw], _generate)[0]
        return self._drawn[draw]

    def _numbers(self, draws: Sequence[Draw], generate: Callable[..., tuple[Tensor, Tensor]]) -> list[Tensor]:
        """(N, *shape) of each draw."""
        uniform = [draw for draw in draws if draw[0] == "uniform"]
        normal = [draw for draw in draws if draw[0] == "normal"]
        keys, columns = _constants(self.seed, (*uniform, *normal), self.positions.device)
        generated = generate(self.positions, keys, columns, sum(_blocks(draw) for draw in uniform))
        found: dict[Draw, Tensor] = {}
        for part, numbers in zip((uniform, normal), generated, strict=True):
            sizes = [4 * _blocks(draw) for draw in part]
            for draw, own in zip(part, torch.split(numbers, sizes, dim=1), strict=True):
                found[draw] = own[:, : math.prod(draw[2])].reshape(len(own), *draw[2])
        return [found[draw] for draw in draws]


def _blocks(draw: Draw) -> int:
    """Runs of Philox, of four numbers each, for one position."""
    return (math.prod(draw[2]) + 3) // 4


def _generate(positions: Tensor, streams: Tensor, columns: Tensor, uniform: int) -> tuple[Tensor, Tensor]:
    """Uniform numbers (N, 4 uniform) and normal ones (N, 4 (B - uniform)).

    Args:
        positions: (N,).
        streams: (24, K); see `_constants`.
        columns: (2, B), of each block the index of its stream, and its number in the stream.
        uniform: number of blocks with uniform numbers; normal ones follow.
    """
    stream, block = columns.unbind()
    m0, m1, mask = streams[:3, 0].unbind()
    extra, *words = streams[3:, stream].unbind()
    rows = positions[:, None]
    keys = list(zip(words[::2], words[1::2], strict=True))
    drawn = torch.stack(philox((block, rows & mask, (rows >> 32) & mask, extra), keys, m0, m1, mask), -1)
    low = drawn[:, :uniform].flatten(1).bitwise_right_shift(8).float() * 2.0**-24
    pairs = _box_muller(drawn[:, uniform:, ::2], drawn[:, uniform:, 1::2])
    return low, torch.stack(pairs, -1).flatten(1)


@lru_cache(maxsize=1024)
def _constants(seed: int, draws: tuple[Draw, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(24, K) int64, Philox's three constants and those of each stream, and (2, B) stream and number of each block.

    Cached, because a copy to a GPU makes the host wait for its queue.
    """
    streams = torch.tensor([[M0, M1, MASK, *_stream_constants(seed, name)] for _, name, _ in draws]).T
    blocks = [torch.arange(_blocks(draw)) for draw in draws]
    columns = torch.cat([torch.stack([torch.full_like(b, stream), b]) for stream, b in enumerate(blocks)], dim=1)
    return streams.contiguous().to(device), columns.to(device)


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
