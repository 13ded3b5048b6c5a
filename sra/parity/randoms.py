"""The numbers that the reference drew, given to training as if they were drawn here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sra.alignment.dual_timestep import PARTS
from sra.ddpm import STEPS
from sra.errors import DataError
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
    t = case.given("t")
    uniform = {"t": t, "dropout": _kept(case), "align.time": _offset(case, t)}
    return GoldenRandoms(uniform, {"noise": case.latents("noise"), "t.normal": _normal_of(t, path)})


def for_groups(case: Scope) -> GoldenRandoms:
    """Of one step with two groups of tokens: group 1 has the baseline's time."""
    t, group = case.given("t"), case.given("group").long()
    sizes = torch.stack([(group == 0).sum(1), (group == 1).sum(1)], dim=1)
    first = group.shape[1] // PARTS
    if not torch.equal(sizes, torch.tensor([first, group.shape[1] - first], device=sizes.device).expand_as(sizes)):
        raise DataError(f"group must hold 0 for one in {PARTS} tokens of each sample, else 1")
    uniform = {"align.group": group.float(), "align.t": t[0], "t": t[1], "dropout": _kept(case)}
    if case.has("t_teacher"):
        uniform["align.time"] = _offset(case, t).T
    return GoldenRandoms(uniform, {"noise": case.latents("noise")})


def for_dit(case: Scope) -> GoldenRandoms:
    """Of one step of DiT: the middle of what becomes an integer step."""
    t = case.given("t").long()
    steps = (t - case.given("t_teacher").long()).clamp_min(0)
    offset = (steps.double() + 0.5) / max(round(case.config.t_max * STEPS), 1)
    uniform = {"t": (t.double() + 0.5) / STEPS, "dropout": _kept(case), "align.time": offset}
    return GoldenRandoms(uniform, {"noise": case.latents("noise")})


def labels_after_dropout(case: Scope) -> Tensor:
    """(N,) what dropout makes of the labels: the expected ones must be those or null."""
    null = torch.full_like(case.labels("labels"), case.config.num_classes)
    return torch.where(_kept(case) < DROPOUT, null, case.labels("labels"))


def _kept(case: Scope) -> Tensor:
    return (case.labels("labels_after_dropout") != case.config.num_classes).float()


def _offset(case: Scope, t: Tensor) -> Tensor:
    """U of t' = clamp(t - U t_max, 0, 1)."""
    difference = t - case.given("t_teacher")
    return (difference / case.config.t_max).clamp(0, 1) if case.config.t_max else torch.zeros_like(t)


def _normal_of(t: Tensor, path: str) -> Tensor:
    """The normal number behind a log-normal time: the inverse of `flow.draw_times`."""
    t = t.double()
    s = t / (1 - t) if path == "linear" else torch.tan(t * math.pi / 2)
    return s.log().float()
