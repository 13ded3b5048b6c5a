"""The verdict of a run on a published row: reproduced, better, worse, not comparable, no published value, failed or not
finished.

A metric is reproduced if the interval of its difference (measured minus published) contains zero. The interval is the
sum of these parts:

- half a unit of the last printed digit;
- sampling noise: the run's own 95 % interval times sqrt(1 + 1/k) for the mean of k runs, because the published number
  is one draw with the same noise;
- for rows that were trained here, a robust standard deviation of the known trainings of the same row (`spread` in the
  registry);
- where the protocol admits several samplers, what they may differ by (`allowance` in the registry).

A part that is not known counts as zero, and the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

from benchmark.manifest.schema import Run
from benchmark.published.comparability import Compared, Evidence, blocking, compare
from benchmark.published.schema import LOWER_IS_BETTER, METRICS, NO_ADDRESS, SUMMARY_ONLY, Registry, Row, Spread
from sra.common.files import is_embedded

Interval = tuple[float, float]
Status = Literal["reproduced", "better", "worse", "not comparable", "no published value", "failed", "not finished"]
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
    seeds: float | None = None
    """Student's interval of the difference from several seeds; counts where it is wider than the sampling noise."""
    allowance: float | None = None
    """For training noise, another admitted sampler, or the arithmetic of another device; None: none is known."""
    trainings: tuple[str, ...] = ()
    """What the known trainings of the same row printed, where the row was trained here."""
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
    caution: str | None = None
    """What a reader must know of the published row before the verdict."""


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
    one: dict[str, list[float | None]] = {name: [evidence.record.metrics.get(name)] for name in METRICS}
    intervals = [evidence.record.intervals]
    judged = judge_metrics(registry, row, one, intervals, trained=trained, comparable=not blocks)
    return RowVerdict(
        status=overall(judged, comparable=not blocks),
        reasons=[item.text() for item in blocks] or _reasons(judged),
        row=row.id,
        metrics=judged,
        settings=settings,
        notes=_notes(registry, row, judged, trained=trained),
        caution=caution_of(row),
    )


def caution_of(row: Row) -> str | None:
    """What a reader must know of a row before any comparison with it."""
    return SUMMARY_ONLY if row.kind == "note" else None


def judge_metrics(
    registry: Registry,
    row: Row,
    measured: Mapping[str, Sequence[float | None]],
    intervals: Sequence[Mapping[str, Interval]],
    *,
    trained: bool,
    comparable: bool,
    seeds: Mapping[str, float] | None = None,
) -> list[MetricVerdict]:
    """Verdict on every metric of a row.

    Args:
        registry: the published rows.
        row: the row.
        measured: by metric, one value a run.
        intervals: of each run, the 95 % intervals by metric.
        trained: whether the networks were trained here.
        comparable: whether the settings match those of the row.
        seeds: by metric, the noise of the difference as several seeds show it.
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
        noise = (seeds or {}).get(metric)
        found = judge_metric(metric, mean, published, sampling, allowance, comparable=comparable, seeds=noise)
        # Trainings that were sampled in another way have the same noise, but other values.
        spreads = (s for s in spreads_of(registry, row, trained=trained) if s.metric == metric)
        values_of = [s.values for s in spreads if published in s.values]
        verdicts.append(replace(found, trainings=tuple(str(value) for values in values_of for value in values)))
    return verdicts


def judge_metric(
    metric: str,
    measured: float,
    published: Decimal,
    sampling: tuple[float, float] | None,
    allowance: float | None,
    *,
    comparable: bool,
    seeds: float | None = None,
) -> MetricVerdict:
    """Verdict on one metric from the parts of its interval."""
    difference = measured - float(published)
    rounding = half_unit(published)
    below, above = (max(reach, seeds or 0.0) for reach in sampling or (0.0, 0.0))
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
        seeds=seeds,
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
    """What is allowed beyond rounding and sampling noise; None: nothing is known.

    For training noise and another admitted sampler together; for a given file, for the arithmetic of another device.
    """
    arithmetic = registry.protocols[row.protocol].arithmetic
    if arithmetic is not None:
        published = row.printed.get(metric)
        if metric in ("precision", "recall") or published is None:
            return arithmetic.share
        return arithmetic.relative * float(published)
    deviations = [s.deviation for s in spreads_of(registry, row, trained=trained) if s.metric == metric]
    parts = [*([max(deviations)] if deviations else []), *_of_samplers(registry, row, metric)]
    return sum(parts) if parts else None


def _of_samplers(registry: Registry, row: Row, metric: str) -> list[float]:
    """How far the samplers that the protocol admits may differ in a metric, if that is known."""
    allowance = registry.protocols[row.protocol].allowance
    return [allowance[metric]] if metric in allowance else []


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


def with_allowances_of(written: RowVerdict, verdict: RowVerdict) -> RowVerdict:
    """The verdict with the allowances of one that was written under another registry."""
    before, comparable = {m.metric: m for m in written.metrics}, verdict.status != "not comparable"
    metrics = []
    for found in verdict.metrics:
        old = before.get(found.metric)
        if old is not None and found.difference is not None and found.measured is not None and found.published:
            parts = (found.metric, found.measured, Decimal(found.published), found.sampling, old.allowance)
            found = replace(judge_metric(*parts, comparable=comparable), trainings=old.trainings)
        metrics.append(found)
    return replace(verdict, metrics=metrics, status=overall(metrics, comparable=comparable)) if metrics else verdict


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
    protocol = registry.protocols[row.protocol]
    notes = [protocol.note] if protocol.note else []
    if not registry.address(row):
        notes.append(f"published numbers from {row.source}: {NO_ADDRESS}")
    compared = [m for m in metrics if m.difference is not None]
    without = [m.metric for m in compared if m.sampling is None]
    if without:
        notes.append(f"no sampling interval was estimated for {', '.join(without)}: sampling noise counts as zero")
    if trained:
        spread = spreads_of(registry, row, trained=True)
        notes += [
            f"allowance for training noise of {s.metric}: {s.deviation:.2g}, a robust standard deviation of trainings "
            f"that printed {', '.join(map(str, s.values))} ({s.source})"
            for s in spread
        ]
        known = {s.metric for s in spread}
        if unknown := [m.metric for m in compared if m.metric not in known]:
            notes.append(f"no spread between repeated trainings is known for {', '.join(unknown)}: it counts as zero")
    if len(protocol.samplers) > 1:
        admitted = " or ".join(protocol.samplers)
        notes += [f"{admitted} is admitted, with an allowance of {v:g} {m}" for m, v in protocol.allowance.items()]
        if unknown := [m.metric for m in compared if m.metric not in protocol.allowance]:
            notes.append(f"how much {admitted} differ is not known for {', '.join(unknown)}: it counts as zero")
    notes += [f"also printed for {o.metric}: {o.value} ({o.source})" for o in row.also_printed]
    shown = ("sampling", "labels", *(["solver"] if len(protocol.samplers) > 1 else []))
    seen = [s for s in registry.spread if s.what in shown and s.of(row.model)]
    return notes + [f"{s.what}: {s.metric} {' and '.join(map(str, s.values))} ({s.source})" for s in seen]


def _without_row(registry: Registry, run: Run, graph: str) -> RowVerdict:
    """A run that names no row: not comparable if it is not an ImageNet evaluation, otherwise without a value."""
    reasons = []
    if is_embedded(graph):
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
