"""The verdict of a run on a published row: reproduced, better, worse, not comparable, no published value or failed.

A metric is reproduced if the interval of its difference (measured minus published) contains zero. The interval is the
sum of three parts:

- half a unit of the last printed digit;
- sampling noise: the run's own 95 % interval times sqrt(1 + 1/k) for the mean of k runs, because the published number
  is one draw with the same noise;
- for rows that were trained here, the largest known difference between repeated trainings of the same row (`spread` in
  the registry).

A part that is not known counts as zero, and the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from benchmark.manifest.schema import Run
from benchmark.published.comparability import Compared, Evidence, blocking, compare
from benchmark.published.schema import LOWER_IS_BETTER, METRICS, NO_ADDRESS, Registry, Row, Spread

Interval = tuple[float, float]
Status = Literal["reproduced", "better", "worse", "not comparable", "no published value", "failed"]
COMPARED: tuple[Status, ...] = ("reproduced", "better", "worse")
TOOL = "adm"
"""The only tool whose numbers the papers print."""


@dataclass(frozen=True, kw_only=True)
class MetricVerdict:
    """One metric of one row."""

    metric: str
    measured: float | None
    published: str | None
    """As printed."""
    difference: float | None = None
    """Measured minus published."""
    interval: Interval | None = None
    """Of the difference."""
    rounding: float | None = None
    """Half a unit of the last printed digit."""
    sampling: tuple[float, float] | None = None
    """Sampling noise below and above; None: not estimated."""
    allowance: float | None = None
    """For training noise, or the arithmetic of another device; None: not known."""
    status: Status


@dataclass(frozen=True, kw_only=True)
class RowVerdict:
    """Status of one row, the reasons for it, and all metrics and settings that were compared."""

    status: Status
    reasons: list[str]
    row: str | None = None
    """Id of the published row."""
    metrics: list[MetricVerdict] = field(default_factory=list)
    settings: list[Compared] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(registry: Registry, run: Run, evidence: Evidence) -> RowVerdict:
    """The verdict of one run that was scored.

    Args:
        registry: the published rows.
        run: the run, which names its row.
        evidence: what its files say.

    Raises:
        RegistryError: the run names a row that does not exist.
    """
    if run.published is None:
        return _without_row(registry, run, evidence.record.graph.name)
    row = registry.row(run.published)
    settings = compare(registry, row, run, evidence)
    blocks = blocking(settings)
    trained = run.train is not None and not registry.protocols[row.protocol].scores_only
    one = {name: [evidence.record.metrics.get(name)] for name in METRICS}
    intervals = [evidence.record.intervals]
    judged = judge_metrics(registry, row, one, intervals, trained=trained, comparable=not blocks)
    return RowVerdict(
        status=overall(judged, comparable=not blocks),
        reasons=[item.text() for item in blocks] or _reasons(judged),
        row=row.id,
        metrics=judged,
        settings=settings,
        notes=_notes(registry, row, judged, trained=trained),
    )


def judge_metrics(
    registry: Registry,
    row: Row,
    measured: Mapping[str, Sequence[float | None]],
    intervals: Sequence[Mapping[str, Interval]],
    *,
    trained: bool,
    comparable: bool,
) -> list[MetricVerdict]:
    """Verdict on every metric of a row.

    Args:
        registry: the published rows.
        row: the row.
        measured: by metric, one value a run.
        intervals: of each run, the 95 % intervals by metric.
        trained: whether the networks were trained here.
        comparable: whether the settings match those of the row.
    """
    verdicts = []
    for metric in METRICS:
        values = [v for v in measured.get(metric, []) if v is not None and math.isfinite(v)]
        complete = len(values) == len(measured.get(metric, [])) > 0
        mean = sum(values) / len(values) if complete else None
        published = row.printed.get(metric)
        if published is None or mean is None:
            status: Status = "no published value" if published is None else "failed"
            shown = None if published is None else str(published)
            verdicts.append(MetricVerdict(metric=metric, measured=mean, published=shown, status=status))
            continue
        sampling = _sampling(registry, row, metric, values, intervals)
        allowance = allowance_of(registry, row, metric, trained=trained)
        verdicts.append(_judged(metric, mean, published, sampling, allowance, comparable=comparable))
    return verdicts


def _judged(
    metric: str,
    measured: float,
    published: Decimal,
    sampling: tuple[float, float] | None,
    allowance: float | None,
    *,
    comparable: bool,
) -> MetricVerdict:
    difference = measured - float(published)
    rounding = half_unit(published)
    below, above = sampling or (0.0, 0.0)
    room = rounding + (allowance or 0.0)
    low, high = difference - below - room, difference + above + room
    status: Status = "reproduced"
    if not comparable:
        status = "not comparable"
    elif low > 0 or high < 0:
        status = "better" if (difference < 0) == (metric in LOWER_IS_BETTER) else "worse"
    return MetricVerdict(
        metric=metric,
        measured=measured,
        published=str(published),
        difference=difference,
        interval=(low, high),
        rounding=rounding,
        sampling=sampling,
        allowance=allowance,
        status=status,
    )


def half_unit(printed: Decimal) -> float:
    """Half a unit of the last digit: 0.005 for 29.10."""
    exponent = printed.as_tuple().exponent
    assert isinstance(exponent, int), printed
    return float(Decimal(5).scaleb(exponent - 1))


def _sampling(
    registry: Registry, row: Row, metric: str, values: Sequence[float], intervals: Sequence[Mapping[str, Interval]]
) -> tuple[float, float] | None:
    """Sampling noise below and above the mean of `values`, including that of the published number."""
    if registry.protocols[row.protocol].scores_only:
        return (0.0, 0.0)
    ends = [interval[metric] for interval in intervals if interval.get(metric)]
    if not ends or len(ends) < len(intervals):
        return None
    below = [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)]
    above = [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]
    factor = math.sqrt(1 + 1 / len(values))
    return factor * _rms(below), factor * _rms(above)


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(v * v for v in values) / len(values))


def allowance_of(registry: Registry, row: Row, metric: str, *, trained: bool) -> float | None:
    """Allowance for training noise (for a given file: for the arithmetic of another device); None: not known."""
    arithmetic = registry.protocols[row.protocol].arithmetic
    if arithmetic is not None:
        published = row.printed.get(metric)
        if metric in ("precision", "recall") or published is None:
            return arithmetic.share
        return arithmetic.relative * float(published)
    widths = [float(s.width) for s in spreads_of(registry, row, trained=trained) if s.metric == metric]
    return max(widths, default=None)


def allowances_of(registry: Registry, run: Run) -> dict[str, dict[str, Any]]:
    """By metric: the allowance for training noise in the verdict on a run, and its source."""
    if run.published is None or run.train is None:
        return {}
    row = registry.row(run.published)
    found = spreads_of(registry, row, trained=True)
    return {
        s.metric: {"allowed": allowance_of(registry, row, s.metric, trained=True), "source": s.source} for s in found
    }


def spreads_of(registry: Registry, row: Row, *, trained: bool) -> list[Spread]:
    """Entries of `spread` in the registry that apply to a row."""
    if not trained:
        return []
    return [
        s
        for s in registry.spread
        if s.what in ("training", "framework")
        and (s.model, s.align, s.steps) == (row.model, row.align_kind, registry.steps(row))
    ]


def overall(metrics: Sequence[MetricVerdict], *, comparable: bool) -> Status:
    """Status of a row; in order of precedence: failed, not comparable, worse, better, reproduced."""
    statuses = {m.status for m in metrics}
    if "failed" in statuses:
        return "failed"
    if not comparable:
        return "not comparable"
    order: tuple[Status, ...] = ("worse", "better", "reproduced")
    return next((status for status in order if status in statuses), "no published value")


def _reasons(metrics: Sequence[MetricVerdict]) -> list[str]:
    """Why a row that is compared is worse, better or failed."""
    failed = [m.metric for m in metrics if m.status == "failed"]
    if failed:
        return [f"{', '.join(failed)}: not measured"]
    return [sentence(m) for m in metrics if m.status in ("worse", "better")]


def sentence(verdict: MetricVerdict) -> str:
    """A metric that is worse or better, in words."""
    assert verdict.difference is not None
    assert verdict.interval is not None
    low, high = verdict.interval
    return (
        f"{verdict.metric}: {verdict.measured:.4g} measured, {verdict.published} published: "
        f"difference {verdict.difference:+.3g}, interval [{low:+.3g}, {high:+.3g}]"
    )


def _notes(registry: Registry, row: Row, metrics: Sequence[MetricVerdict], *, trained: bool) -> list[str]:
    """Notes on a row in addition to the reasons for its status."""
    notes = [note] if (note := registry.protocols[row.protocol].note) else []
    if not registry.address(row):
        notes.append(f"published numbers from {row.source}: {NO_ADDRESS}")
    compared = [m for m in metrics if m.difference is not None]
    without = [m.metric for m in compared if m.sampling is None]
    if without:
        notes.append(f"no sampling interval was estimated for {', '.join(without)}: sampling noise counts as zero")
    if trained:
        spread = spreads_of(registry, row, trained=True)
        notes += [f"allowance for training noise of {s.metric}: {s.width} ({s.source})" for s in spread]
        unknown = [m.metric for m in compared if m.allowance is None]
        if unknown:
            notes.append(f"no spread between repeated trainings is known for {', '.join(unknown)}: it counts as zero")
    notes += [f"also printed for {o.metric}: {o.value} ({o.source})" for o in row.also_printed]
    seen = [s for s in registry.spread if s.what == "sampling" and s.model == row.model]
    return notes + [f"{s.metric} of other samplings: {' and '.join(map(str, s.values))} ({s.source})" for s in seen]


def _without_row(registry: Registry, run: Run, graph: str) -> RowVerdict:
    """A run that names no row: not comparable if it is not an ImageNet evaluation, otherwise without a value."""
    reasons = []
    if graph.startswith("embedded:"):
        reasons.append(f"{graph.removeprefix('embedded:')} features: not comparable with ImageNet numbers")
    counts = sorted({registry.images(row) for row in registry.rows}, reverse=True)
    if run.sample.images not in counts:
        used = " or ".join(f"{count:,}" for count in counts)
        reasons.append(f"{run.sample.images:,} images were scored; published rows use {used}")
    status: Status = "not comparable" if reasons else "no published value"
    kind, why = run.align.kind if run.align else None, "the manifest names no published row for this variant"
    for known in registry.unprinted:
        if (known.family, known.align) == (run.model.family, kind) and known.size in (None, run.model.size):
            why = f"no number is published for this row ({known.source})"
    return RowVerdict(status=status, reasons=[*reasons, why])
