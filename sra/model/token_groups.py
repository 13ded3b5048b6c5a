"""Token groups: two groups of tokens with one time each, for dual-timestep training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Groups:
    """Groups of tokens, each with a condition of its own: two for dual-timestep training, or one a token.

    Inside the blocks the tokens are sorted by group and cut into equal pieces, each within one group. A piece is a row
    of the batch with one condition, so that adaLN is computed for N x 2 conditions instead of N x T.
    """

    order: Tensor
    """(N, T) positions of the tokens, those of group 0 first."""
    sizes: tuple[int, ...]
    """Tokens in each group, the same in every sample; training has two groups."""
    separated: bool = False
    """Whether attention stays inside a group."""

    @property
    def pieces(self) -> int:
        """Pieces P that a sample is cut into."""
        return sum(self.sizes) // math.gcd(*self.sizes)

    def cut(self, tokens: Tensor) -> Tensor:
        """(N, T, D) in the image's order to (N P, T / P, D) in the groups' order."""
        n, t, d = tokens.shape
        ordered = tokens.gather(1, self.order[:, :, None].expand(n, t, d))
        return ordered.reshape(n * self.pieces, t // self.pieces, d)

    def join(self, pieces: Tensor) -> Tensor:
        """The inverse of `cut`."""
        n, t = self.order.shape
        ordered = pieces.reshape(n, t, -1)
        back = self.order.argsort(dim=1)
        return ordered.gather(1, back[:, :, None].expand_as(ordered))

    def per_piece(self, values: Tensor) -> Tensor:
        """(G, N, M), one row a group, to (N P, M)."""
        unit = math.gcd(*self.sizes)
        spread = [v[:, None].expand(-1, size // unit, -1) for v, size in zip(values, self.sizes, strict=True)]
        return torch.cat(spread, dim=1).flatten(0, 1)

    def per_token(self, values: Tensor) -> Tensor:
        """(G, N), one row a group, to (N, T) in the image's order."""
        spread = [v[:, None].expand(-1, size) for v, size in zip(values, self.sizes, strict=True)]
        return self.join(torch.cat(spread, dim=1)[:, :, None]).squeeze(2)
