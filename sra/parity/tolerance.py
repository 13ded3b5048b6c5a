"""Tolerances: one table of limits, and the comparisons that use it.

Every number counts: besides the relative L2 distance of an array, each element has a limit of its own, as small as
rounding permits, so that one wrong element is seen in a large array. All limits are multiples of one, which depends
on the mode alone. The multiples were measured: the same computation, rounded differently (batch reversed, other
kernels), for networks of 2 to 12 blocks, stays below half of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

LIMIT = 1e-6
"""Relative L2 distance in float32 on a CPU."""
ROUNDING = {"fp32": 2.0**0, "tf32": 2.0**13, "fp16": 2.0**13, "bf16": 2.0**16}
"""Rounding error of a precision in units of float32's: 23, 10, 10 and 7 bits of mantissa."""
OTHER_KERNELS = 10.0
"""The numbers come from eager kernels on a CPU; CUDA's and compiled ones sum in other orders."""

# Multiples of the mode's limit.
OUTPUT, GRADIENT = 0.5, 5.0
"""An element, relative to its size plus the array's root mean square; gradients are sums that cancel."""
WEIGHT_LEAST, WEIGHT_MOST = 0.2, 100.0
"""A trained weight, absolute: where Adam does not amplify rounding, and where it does (0 / 0 at worst)."""
NOISE_MATRIX, NOISE_VECTOR = 30.0, 1.0
"""Rounding error of a gradient's element, relative to the size of its row and column, or of the vector."""
TYPICAL = 20.0
"""In units of the item's own median error: where a whole array is noisier, so may each element be."""


def limit_of(device: str, precision: str, *, compiled: bool) -> float:
    """The relative L2 distance that a mode is allowed."""
    return LIMIT * ROUNDING[precision] * (OTHER_KERNELS if device != "cpu" or compiled else 1.0)


@dataclass(frozen=True)
class Verdict:
    """What came of one comparison."""

    error: float
    """Of what decided: relative L2 of the array, or of the worst element."""
    tolerance: float
    """What it may be."""
    note: str = ""
    """Which element, or why no number can be given."""

    @property
    def ok(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return self.error <= self.tolerance


Judge = Callable[[Tensor, Tensor, float], Verdict]
"""(found, expected, the mode's limit) to the verdict."""


def exact(found: Tensor, expected: Tensor, _limit: float) -> Verdict:
    """Integers, pixels and copied weights: the number of elements that differ."""
    if found.shape != expected.shape:
        return _misshapen(found, expected)
    different = found.cpu() != expected.cpu()
    verdict = Verdict(int(different.sum()), 0)
    return verdict if verdict.ok else replace(verdict, note=_element(found, expected, int(different.int().argmax())))


def output(
    found: Tensor, expected: Tensor, limit: float, multiple: float = OUTPUT, typical: float = TYPICAL
) -> Verdict:
    """Predictions, losses, norms, samples: relative L2, and each element relative to its size plus the array's."""
    if found.shape != expected.shape:
        return _misshapen(found, expected)
    a, b = _double(found), _double(expected)
    relative = (a - b).abs() / (b.abs() + _rms(b)).clamp_min(torch.finfo(b.dtype).tiny)
    median = float(relative[b != 0].median()) if b.any() else 0.0
    return _verdict(a, b, relative, max(multiple * limit, typical * median), limit)


def guided(scale: float) -> Judge:
    """As `output`, with room for d_null + w (d_cond - d_null) to enlarge the rounding errors of both more than twofold.

    Args:
        scale: w.
    """
    room = max(1.0, math.hypot(scale, scale - 1) / 2)
    return lambda found, expected, limit: output(found, expected, room * limit, typical=room * TYPICAL)


gradient: Judge = partial(output, multiple=GRADIENT)
"""As `output`, for gradients of weights."""


def table(found: Tensor, expected: Tensor, _limit: float) -> Verdict:
    """Constants (position encoding, betas), the same in every mode: each element relative to its own size."""
    if found.shape != expected.shape:
        return _misshapen(found, expected)
    a, b = _double(found), _double(expected)
    # Float64 leaves about 1e-16 where a sine should be 0.
    relative = (a - b).abs() / (b.abs() + 1e-3 * LIMIT * _rms(b)).clamp_min(torch.finfo(b.dtype).tiny)
    return _verdict(a, b, relative, LIMIT, LIMIT)


def trained(amplification: Tensor) -> Judge:
    """Weights after some steps of Adam; `amplification` is what `Amplification.of` says of them."""

    def judge(found: Tensor, expected: Tensor, limit: float) -> Verdict:
        if found.shape != expected.shape:
            return _misshapen(found, expected)
        a, b = _double(found), _double(expected)
        error = (a - b).abs()
        allowed = limit * (_double(amplification).clamp(WEIGHT_LEAST, WEIGHT_MOST) + b.abs())
        worst = int((error / allowed).argmax())
        verdict = Verdict(float(error.flatten()[worst]), float(allowed.flatten()[worst]))
        return verdict if verdict.ok else replace(verdict, note=_element(a, b, worst))

    return judge


class Amplification:
    """How far rounding errors of the gradient may move each weight.

    Adam divides by the root of the second moment: where a gradient is nearly zero, as that of a key's bias is by
    symmetry, its rounding error moves the weight as far as a gradient would.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        self.sums = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in network.named_parameters()}

    def after_step(self) -> None:
        """Add what the optimizer's last step may have amplified."""
        group = self.optimizer.param_groups[0]
        for name, parameter in self.network.named_parameters():
            state: dict[str, Any] = self.optimizer.state[parameter]
            second = state["exp_avg_sq"].double() / (1 - group["betas"][1] ** float(state["step"]))
            assert parameter.grad is not None
            self.sums[name] += group["lr"] * _noise(parameter.grad) / (second.sqrt() + group["eps"])

    def of(self, name: str) -> Tensor | None:
        """Of a parameter, in units of the mode's limit; None for a buffer."""
        return self.sums.get(name)


def _noise(gradient: Tensor) -> Tensor:
    """Rounding error of a gradient, whose elements are sums of products of a row's (outputs) and a column's (inputs).

    The size of such an element is taken as the root mean square of its row times that of its column over that of all.
    """
    square = gradient.double().pow(2)
    if square.ndim < 2:
        return NOISE_VECTOR * square.mean().sqrt()
    square = square.flatten(1)
    rows, columns = square.mean(1, keepdim=True), square.mean(0, keepdim=True)
    return NOISE_MATRIX * (rows * columns / square.mean().clamp_min(1e-300)).sqrt().view_as(gradient)


def _verdict(a: Tensor, b: Tensor, relative: Tensor, allowed: float, limit: float) -> Verdict:
    distance = float((a - b).norm() / b.norm().clamp_min(torch.finfo(b.dtype).tiny))
    whole, worst = Verdict(distance, limit), int(relative.argmax())
    element = Verdict(float(relative.flatten()[worst]), allowed, _element(a, b, worst))
    if whole.ok:
        return whole if element.ok else element
    return replace(whole, note=element.note)


def _double(x: Tensor) -> Tensor:
    return x.detach().cpu().double()


def _rms(x: Tensor) -> Tensor:
    return x.pow(2).mean().sqrt()


def _element(found: Tensor, expected: Tensor, place: int) -> str:
    index = [int(i) for i in torch.unravel_index(torch.tensor(place), found.shape)]
    values = (float(x.flatten()[place]) for x in (found, expected))
    return "element {}: found {:.9g}, expected {:.9g}".format(index, *values)


def _misshapen(found: Tensor, expected: Tensor) -> Verdict:
    return Verdict(float("inf"), 0, f"shape: found {tuple(found.shape)}, expected {tuple(expected.shape)}")
