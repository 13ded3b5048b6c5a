"""Comparison of computed with golden numbers: modes of computing, limits of the error, and the report.

Besides the relative L2 distance of an array, each element has a limit of its own, as small as rounding permits, so
that one wrong element is noticed in a large array. All limits are multiples of the mode's. The multiples were measured:
the same computation, rounded differently (batch reversed, other kernels), for networks of 2 to 12 blocks, stays below
half of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sra.model.transformer import DiffusionTransformer, compile_blocks
from sra.runtime.device import autocast, set_tf32

LIMIT = 1e-6
"""Relative L2 distance in float32 on a CPU."""
ROUNDING = {"fp32": 2.0**0, "tf32": 2.0**11, "fp16": 2.0**11, "bf16": 2.0**14}
"""Limits of a precision in units of float32's: 23, 10, 10 and 7 bits of mantissa, and as measured a quarter of that."""
OTHER_KERNELS = 10.0
"""The golden numbers come from eager CPU kernels; CUDA's and compiled ones sum in other orders.

Only float32 needs it: other precisions round the products by more than the order of their sums does.
"""

# Multiples of the mode's limit.
OUTPUT, GRADIENT = 0.5, 5.0
"""An element, relative to its size plus the array's root mean square; gradients are sums that cancel."""
SOLVED, SOLVED_WHOLE = 9.0, 10.0
"""As OUTPUT, and the array's, for samples of an adaptive solver."""
CARRIED = 3.0
"""The same in units of what rounding errors of the network do to them; measured: at most 0.8, of 136 networks."""
WEIGHT_LEAST, WEIGHT_MOST = 0.2, 100.0
"""A trained weight, absolute: where Adam does not amplify rounding, and where it does (0 / 0 at worst)."""
NOISE_MATRIX, NOISE_VECTOR = 30.0, 1.0
"""Rounding error of a gradient's element, relative to the size of its row and column, or of the vector."""
TYPICAL = 20.0
"""An element in units of the array's median error: a noisier array permits noisier elements."""


def limit_of(device: str, precision: str, *, compiled: bool) -> float:
    """Relative L2 distance that a mode is allowed."""
    other = precision == "fp32" and (device != "cpu" or compiled)
    return LIMIT * ROUNDING[precision] * (OTHER_KERNELS if other else 1.0)


@dataclass(frozen=True)
class Mode:
    """A way to compute the numbers: device, precision, eager or compiled."""

    device: torch.device
    """Where networks run."""
    precision: str = "fp32"
    """As the manifest's keys: fp32, tf32, fp16, bf16; all but fp32 and tf32 by autocast, as in training."""
    compiled: bool = False
    """Whether the networks' blocks go through torch.compile."""

    @property
    def kernels_differ(self) -> bool:
        """Whether float32 is summed by other kernels than those of the golden numbers: a GPU's, or compiled ones."""
        return self.device.type != "cpu" or (self.compiled and self.precision == "fp32")

    @property
    def limit(self) -> float:
        """Relative L2 distance that is allowed."""
        return limit_of(self.device.type, self.precision, compiled=self.compiled)

    def start(self) -> None:
        """Set the process-wide precision of matrix products."""
        set_tf32(self.precision)

    def forget(self) -> None:
        """Drop compiled code before other shapes come: torch runs a function eagerly after a few recompilations."""
        if self.compiled:
            torch.compiler.reset()

    def autocast(self) -> AbstractContextManager[object]:
        """Context of the network's forward passes."""
        return autocast(self.precision, self.device.type)

    def prepared(self, network: DiffusionTransformer) -> DiffusionTransformer:
        """Move the network to the device, and compile it if asked, as training and sampling do."""
        network.to(self.device)
        if self.compiled:
            compile_blocks(network, fixed_shapes=False)
        return network


@dataclass(frozen=True)
class Verdict:
    """Result of one comparison."""

    error: float
    """Relative L2 distance of the array, or error of the worst element."""
    tolerance: float
    note: str = ""
    """Which element is wrong, or why there is no error."""

    @property
    def ok(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return self.error <= self.tolerance


Judge = Callable[[Tensor, Tensor, float], Verdict]
"""(found, expected, the mode's limit) to the verdict."""


def _same_shape(judge: Judge) -> Judge:
    """Let arrays of different shapes fail before their elements are compared."""

    def checked(found: Tensor, expected: Tensor, limit: float) -> Verdict:
        if found.shape != expected.shape:
            note = f"shape: expected {tuple(expected.shape)}, got {tuple(found.shape)}"
            return Verdict(float("inf"), 0, note)
        return judge(found, expected, limit)

    return checked


@_same_shape
def exact(found: Tensor, expected: Tensor, _limit: float) -> Verdict:
    """Integers, pixels and copied weights: the number of elements that differ."""
    different = found.cpu() != expected.cpu()
    verdict = Verdict(int(different.sum()), 0)
    return verdict if verdict.ok else replace(verdict, note=_element(found, expected, int(different.int().argmax())))


def within(multiple: float = OUTPUT, room: float = 1.0, whole: float = 1.0) -> Judge:
    """Relative L2, and each element relative to its size plus the array's root mean square.

    Args:
        multiple: tolerance of an element in units of the mode's limit.
        room: factor on all tolerances.
        whole: factor on the tolerance of the array.
    """

    @_same_shape
    def judge(found: Tensor, expected: Tensor, limit: float) -> Verdict:
        a, b = _double(found), _double(expected)
        relative = (a - b).abs() / (b.abs() + _rms(b)).clamp_min(torch.finfo(b.dtype).tiny)
        median = float(relative[b != 0].median()) if b.any() else 0.0
        return _verdict(a, b, relative, room * max(multiple * limit, TYPICAL * median), room * whole * limit)

    return judge


output = within()
"""Predictions, losses, norms, samples."""
gradient = within(GRADIENT)
"""Gradients of weights."""


def guided(scale: float) -> Judge:
    """As `output`, with room for d_null + w (d_cond - d_null) to enlarge the rounding errors of both more than twofold.

    Args:
        scale: w.
    """
    return within(room=max(1.0, math.hypot(scale, scale - 1) / 2))


def solved(reruns: Callable[[], list[Tensor]]) -> Judge:
    """As `output`, for samples of an adaptive solver, with the room that its step control needs.

    A step whose error is as small as rounding is followed by one whose length rounding decides, within the solver's
    tolerance. Correct runs then differ by up to a thousandth, but in a few ways only, as many as there are such steps.
    What the reruns do not differ in is compared as strictly as without them.

    Args:
        reruns: samples with rounding errors added to the network's outputs; asked for only if they are needed.
    """

    def judge(found: Tensor, expected: Tensor, limit: float) -> Verdict:
        strict = within(SOLVED, whole=SOLVED_WHOLE)(found, expected, limit)
        if strict.ok or not math.isfinite(strict.error):
            return strict
        a, b = _double(found), _double(expected)
        ways = [_double(x) - a for x in reruns()]
        if (b - a).norm() > CARRIED * max((way.norm() for way in ways), default=0.0):
            return strict
        # What is left of each way without the others: how well they describe all of them.
        left = [_beyond(way, ways[:k] + ways[k + 1 :]) for k, way in enumerate(ways)]
        element = max(float((x.abs() / (b.abs() + _rms(b))).max()) for x in left)
        whole = max(float(x.norm() / b.norm()) for x in left)
        room = within(max(SOLVED, CARRIED * element / limit), whole=max(SOLVED_WHOLE, CARRIED * whole / limit))
        return room(b - _beyond(b - a, ways), b, limit)

    return judge


def _beyond(x: Tensor, ways: list[Tensor]) -> Tensor:
    """The part of an array that no sum of others makes up."""
    if not ways:
        return x
    basis = torch.stack(ways).flatten(1).T
    sums: Tensor = torch.linalg.lstsq(basis, x.flatten()[:, None]).solution
    return x - (basis @ sums).view_as(x)


@_same_shape
def table(found: Tensor, expected: Tensor, _limit: float) -> Verdict:
    """Constants (position encoding, betas), the same in every mode: each element relative to its own size."""
    a, b = _double(found), _double(expected)
    # Float64 leaves about 1e-16 where a sine should be 0.
    relative = (a - b).abs() / (b.abs() + 1e-3 * LIMIT * _rms(b)).clamp_min(torch.finfo(b.dtype).tiny)
    return _verdict(a, b, relative, LIMIT, LIMIT)


def trained(amplification: Tensor) -> Judge:
    """Weights after some steps of Adam; see `Amplification.of`."""

    @_same_shape
    def judge(found: Tensor, expected: Tensor, limit: float) -> Verdict:
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
        """Add the amplification of the optimizer's last step."""
        group = self.optimizer.param_groups[0]
        for name, parameter in self.network.named_parameters():
            state: dict[str, Any] = self.optimizer.state[parameter]
            second = state["exp_avg_sq"].double() / (1 - group["betas"][1] ** float(state["step"]))
            assert parameter.grad is not None
            self.sums[name] += group["lr"] * _noise(parameter.grad) / (second.sqrt() + group["eps"])

    def of(self, name: str) -> Tensor | None:
        """Amplification of a parameter in units of the mode's limit; None for a buffer."""
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
    values = (float(x.flatten()[place]) for x in (expected, found))
    return "element {}: expected {:.9g}, got {:.9g}".format(index, *values)


@dataclass(frozen=True)
class Item:
    """One line of the report."""

    item: str
    """File and key, such as `sit/forward/velocity`."""
    error: float | None
    """None: there was nothing to compare."""
    tolerance: float | None
    ok: bool
    note: str = ""
    """What is wrong."""

    def row(self) -> tuple[str, str, str, str]:
        """Cells of the printed table."""
        numbers = ("-" if x is None else f"{x:.2g}" for x in (self.error, self.tolerance))
        return (self.item, *numbers, "ok" if self.ok else f"FAILS {self.note}".rstrip())  # type: ignore[return-value]


@dataclass
class Report:
    """All comparisons of a folder."""

    limit: float
    """Relative L2 distance that the mode is allowed."""
    items: list[Item] = field(default_factory=list)
    """In the order of the checks."""
    absent: list[str] = field(default_factory=list)
    """Known files, sections and results that are not in the folder."""

    def compare(self, name: str, found: Tensor, expected: Tensor, judge: Judge) -> None:
        """Add one comparison."""
        verdict = judge(found, expected, self.limit)
        error = verdict.error if math.isfinite(verdict.error) else None
        note = verdict.note or ("" if error is not None else "not a number")
        self.items.append(Item(name, error, verdict.tolerance, verdict.ok, note))

    def same(self, name: str, found: Any, expected: Any) -> None:
        """Add a comparison for equality."""
        holds = found == expected
        note = "" if holds else f"expected {expected}, got {found}"
        self.items.append(Item(name, float(not holds), 0, holds, note))

    def add(self, other: Report, folder: str) -> None:
        """Add the report of a folder below."""
        self.items += [replace(item, item=f"{folder}/{item.item}") for item in other.items]
        self.absent += [f"{folder}/{name}" for name in other.absent]

    def add_failures(self, other: Report, mode: str) -> None:
        """Replace the items that fall short in the report of another mode only."""
        wrong = {item.item: replace(item, note=f"{mode}: {item.note}") for item in other.failed}
        self.items = [wrong.get(item.item, item) if item.ok else item for item in self.items]

    def fail(self, name: str, note: str) -> None:
        """Add a failure without numbers."""
        self.items.append(Item(name, None, None, ok=False, note=note))

    @property
    def failed(self) -> list[Item]:
        """Items outside their tolerance."""
        return [item for item in self.items if not item.ok]

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        return {"ok": not self.failed, "items": [asdict(item) for item in self.items], "absent": self.absent}

    def table(self) -> str:
        """The report as text, one line an item."""
        rows = [("item", "error", "tolerance", "ok"), *(item.row() for item in self.items)]
        rows += [(name, "-", "-", "absent") for name in self.absent]
        width = max(len(row[0]) for row in rows)
        return "\n".join(f"{name:{width}} {error:>9} {limit:>9}  {ok}" for name, error, limit, ok in rows)
