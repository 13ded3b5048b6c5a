"""Random numbers drawn by the reference code, replayed in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sra.common.errors import DataError
from sra.config import GROUP_0_DIVISOR
from sra.objectives.ddpm import STEPS
from sra.parity.golden import Scope

DROPOUT = 0.5
"""Label dropout that tells the streams below apart: 0 is dropped, 1 is kept."""


class GoldenRandoms:
    """A `RandomSource` with fixed numbers by name of the stream."""

    def __init__(self, uniform: dict[str, Tensor], normal: dict[str, Tensor]) -> None:
        self._uniform, self._normal = uniform, normal

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:  # noqa: ARG002 - as it is stored
        """(N, *shape)."""
        return self._uniform[name]

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:  # noqa: ARG002 - as it is stored
        """(N, *shape)."""
        return self._normal[name]


def for_sit(case: Scope, path: str) -> GoldenRandoms:
    """Of one step of SiT with SRA; times are given for both of their distributions."""
    count = len(case.labels("labels"))
    t = case.shaped("t", count)
    uniform = {"t": t, "dropout": _kept(case), "align.time": _offset(case, t)}
    return GoldenRandoms(uniform, {"noise": case.latents("noise", count), "t.normal": _normal_of(t, path)})


def for_groups(case: Scope) -> GoldenRandoms:
    """Of one step with two groups of tokens: group 1 has the baseline's time."""
    count, tokens = len(case.labels("labels")), case.config.tokens
    t, group = case.shaped("t", 2, count), case.shaped("group", count, tokens).long()
    sizes = torch.stack([(group == 0).sum(1), (group == 1).sum(1)], dim=1)
    wanted = sizes.new_tensor([tokens // GROUP_0_DIVISOR, tokens - tokens // GROUP_0_DIVISOR])
    if not (sizes == wanted).all():
        raise DataError(f"group must hold 0 for one in {GROUP_0_DIVISOR} tokens of each sample, else 1")
    uniform = {"align.group": group.float(), "align.t": t[0], "t": t[1], "dropout": _kept(case)}
    if case.has("t_teacher"):
        uniform["align.time"] = _offset(case, t).T
    return GoldenRandoms(uniform, {"noise": case.latents("noise", count)})


def for_dit(case: Scope) -> GoldenRandoms:
    """Of one step of DiT: the middle of what becomes an integer step."""
    count = len(case.labels("labels"))
    t, t_teacher = case.shaped("t", count).long(), case.shaped("t_teacher", count).long()
    if not ((t >= 0) & (t < STEPS)).all():
        raise DataError(f"t must hold steps from 0 to {STEPS - 1}")
    offset = ((t - t_teacher).clamp_min(0).double() + 0.5) / max(round(case.config.t_max * STEPS), 1)
    uniform = {"t": (t.double() + 0.5) / STEPS, "dropout": _kept(case), "align.time": offset}
    return GoldenRandoms(uniform, {"noise": case.latents("noise", count)})


def labels_after_dropout(case: Scope) -> Tensor:
    """(N,) what dropout makes of the labels: the expected ones must be those or null."""
    labels = case.labels("labels")
    return torch.where(_kept(case) < DROPOUT, torch.full_like(labels, case.config.num_classes), labels)


def _kept(case: Scope) -> Tensor:
    case.shaped("labels_after_dropout", len(case.labels("labels")))
    return (case.labels("labels_after_dropout") != case.config.num_classes).float()


def _offset(case: Scope, t: Tensor) -> Tensor:
    """U of t' = clamp(t - U t_max, 0, 1)."""
    difference = t - case.shaped("t_teacher", *t.shape)
    return (difference / case.config.t_max).clamp(0, 1) if case.config.t_max else torch.zeros_like(t)


def _normal_of(t: Tensor, path: str) -> Tensor:
    """The normal number that gives a log-normal time: the inverse of `flow.draw_times`."""
    t = t.double()
    s = t / (1 - t) if path == "linear" else torch.tan(t * math.pi / 2)
    return s.log().float()
