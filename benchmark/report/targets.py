"""Time to target: when the FID of each variant first reached a value, interpolated between its scored checkpoints."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmark.report.comparisons import Variant, deviation
from benchmark.report.model import Comparison, CurvePoint, TimeToTarget

METRIC = "fid"


@dataclass(frozen=True)
class _Point:
    """FID of a variant at one step, with its noise below and above; hours and energy are those of one process."""

    step: int
    fid: float
    below: float
    above: float
    hours: float | None
    kwh: float | None


@dataclass(frozen=True)
class _Target:
    """A value to reach, with its noise."""

    fid: float
    what: str
    images: int | None
    """Only checkpoints that were scored on as many count."""
    below: float = 0.0
    above: float = 0.0


def times_to_targets(
    variants: Sequence[Variant], comparisons: Sequence[Comparison], targets: Sequence[float]
) -> list[TimeToTarget]:
    """When each variant with a curve reached each target.

    Args:
        variants: of the report, with all their seeds.
        comparisons: of the same variants; they name the baseline of each.
        targets: FID values; empty: the last FID of the baseline.
    """
    known = {variant.name: variant for variant in variants}
    baselines = {c.variant: known[c.baseline] for c in comparisons}
    found = []
    for variant in variants:
        if variant.runs[0].train is None or not any(len(row.curve) > 1 for row in variant.rows):
            continue
        baseline = baselines.get(variant.name, variant)
        for target in _targets(baseline, variant, targets):
            found.append(_time(baseline, variant, target))
    return found


def _targets(baseline: Variant, variant: Variant, targets: Sequence[float]) -> list[_Target]:
    if targets:
        images = variant.runs[0].sample.images
        return [_Target(value, "of the manifest", images) for value in targets]
    images = baseline.runs[0].sample.images
    points = _curve(baseline, images)
    if not points:
        return []
    last = points[-1]
    return [_Target(last.fid, f"the last of {baseline.name}", images, last.below, last.above)]


def _curve(variant: Variant, images: int | None) -> list[_Point]:
    """Mean over the seeds at every step that all of them scored on that many images."""
    curves = [{p.step: p for p in row.curve if p.images == images} for row in variant.rows]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return [_mean([curve[step] for curve in curves]) for step in steps]


def _mean(points: Sequence[CurvePoint]) -> _Point:
    values = [p.fid for p in points]
    middle = fmean(values)
    if len(values) > 1:
        from scipy import stats  # a second of imports that only several seeds pay

        half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation(values) / math.sqrt(len(values))
        below = above = half
    else:
        low, high = points[0].fid_interval or (middle, middle)
        below, above = max(0.0, middle - low), max(0.0, high - middle)
    hours, kwh = _known_mean([p.hours for p in points]), _known_mean([p.kwh for p in points])
    return _Point(points[0].step, middle, below, above, hours, kwh)


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _crossing(points: Sequence[_Point], fid: Callable[[_Point], float], target: float) -> float | None:
    """The first step at which straight lines between the points come down to the target; None: not in the curve."""
    if points and fid(points[0]) <= target:
        return float(points[0].step)
    for a, b in itertools.pairwise(points):
        if fid(b) <= target:
            return a.step + (fid(a) - target) / (fid(a) - fid(b)) * (b.step - a.step)
    return None


@dataclass(frozen=True)
class _Reached:
    """The first step at a target, and the ends of its interval; None: not in the curve."""

    step: float | None
    early: float | None
    late: float | None


def _reached(points: Sequence[_Point], target: _Target, *, noise: bool) -> _Reached:
    """When a curve comes down to a target; without noise the ends are the step."""
    step = _crossing(points, lambda p: p.fid, target.fid)
    if not noise:
        return _Reached(step, step, step)
    early = _crossing(points, lambda p: p.fid - math.hypot(p.below, target.above), target.fid)
    return _Reached(step, early, _crossing(points, lambda p: p.fid + math.hypot(p.above, target.below), target.fid))


def _time(baseline: Variant, variant: Variant, target: _Target) -> TimeToTarget:
    points, itself = _curve(variant, target.images), variant is baseline
    # The last FID of the baseline is the target itself: its noise counts for the others.
    last = target.what != "of the manifest"
    found = _reached(points, target, noise=not (itself and last))
    reference = _reached(_curve(baseline, target.images), target, noise=not last)
    step, train = found.step, variant.runs[0].train
    assert train is not None
    hours, kwh = _until(step, points, lambda p: p.hours), _until(step, points, lambda p: p.kwh)
    processes = variant.rows[0].cost.processes
    return TimeToTarget(
        variant=variant.name,
        baseline=baseline.name,
        target=target.fid,
        what=target.what,
        scored_images=target.images,
        step=step,
        at_most=not (itself and last) and step is not None and step == points[0].step,
        steps_interval=(found.early, found.late) if found.early is not None else None,
        images=None if step is None else step * train.global_batch,
        device_hours=hours * processes if hours is not None and processes is not None else None,
        kwh=kwh * processes if kwh is not None and processes is not None else None,
        speedup=reference.step / step if reference.step is not None and step else None,
        speedup_interval=None if itself else _ratios(reference, found),
        seeds=len(variant.by_training_seed()),
        left_out=len({p.step for row in variant.rows for p in row.curve} - {p.step for p in points}),
    )


def _ratios(reference: _Reached, found: _Reached) -> tuple[float, float | None] | None:
    """Ends of the speedup, (low, high): 0 and None where an end lies beyond a curve."""
    if reference.early is None or not found.early:
        return None
    low = reference.early / found.late if found.late else 0.0
    return low, None if reference.late is None else reference.late / found.early


def _until(step: float | None, points: Sequence[_Point], spent: Callable[[_Point], float | None]) -> float | None:
    """What one process had spent at a step, interpolated from the start."""
    if step is None:
        return None
    known = [(0.0, 0.0), *((float(p.step), value) for p in points if (value := spent(p)) is not None)]
    for (a, before), (b, after) in itertools.pairwise(known):
        if a < step <= b:
            return before + (step - a) / (b - a) * (after - before)
    return None
