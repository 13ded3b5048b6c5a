"""Several seeds of one variant as one group, and variants compared with the baseline of their network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from benchmark.manifest.schema import Run
from benchmark.published.schema import METRICS, Registry
from benchmark.published.verdict import COMPARED, TOOL, RowVerdict, caution_of, judge_metrics, overall, sentence
from benchmark.report.model import (
    Comparison,
    CostRatio,
    Difference,
    Group,
    Mean,
    PublishedCost,
    Row,
    SettingChange,
)
from evaluator.tools.score_record import Interval
from sra.config import FAMILIES, to_plain

COSTS = ("seconds_per_step", "memory_gib", "device_hours")
"""Fields of `Cost` that are compared."""
NOT_SETTINGS = ("variant", "published", "expected_fid", "seed")
"""Fields of a run that differ between any two variants."""


@dataclass(frozen=True)
class Variant:
    """A variant of the manifest with all its seeds."""

    name: str
    runs: list[Run]
    rows: list[Row]
    """One a run."""

    def values(self, metric: str) -> list[float | None]:
        """An ADM metric of each row; None where it is absent or not finite."""
        found = [row.value(TOOL, metric) for row in self.rows]
        return [value if value is not None and math.isfinite(value) else None for value in found]

    def by_training_seed(self) -> dict[int, Variant]:
        """The sample sets of each training seed."""
        found: dict[int, Variant] = {}
        for run, row in zip(self.runs, self.rows, strict=True):
            found.setdefault(run.seed, Variant(self.name, [], [])).append(run, row)
        return found

    def append(self, run: Run, row: Row) -> None:
        """Add a seed."""
        self.runs.append(run)
        self.rows.append(row)

    def mean(self, metric: str) -> float | None:
        """Mean over the rows; None where one has no value."""
        values = self.values(metric)
        return fmean([v for v in values if v is not None]) if None not in values else None

    def sampling_noise(self, metric: str) -> tuple[float, float] | None:
        """How far the 95 % interval of the mean over sample sets reaches below and above it."""
        below, above = [], []
        for row, value in zip(self.rows, self.values(metric), strict=True):
            interval = row.interval(TOOL, metric)
            if interval is None or value is None:
                return None
            below.append(max(0.0, value - interval[0]))
            above.append(max(0.0, interval[1] - value))
        return math.hypot(*below) / len(below), math.hypot(*above) / len(above)

    def cost(self, name: str) -> float | None:
        """Mean of a field of `Cost`; None where a row has no value."""
        values = [getattr(row.cost, name) for row in self.rows]
        return fmean(map(float, values)) if None not in values else None


def base_name(run: Run) -> str:
    """The variant as the manifest names it, whatever its seeds."""
    return run.network.removesuffix(f"-seed{run.seed}")


def variants_of(runs: Sequence[Run], rows: Sequence[Row]) -> list[Variant]:
    """The variants of a report, in order."""
    found: dict[str, Variant] = {}
    for run, row in zip(runs, rows, strict=True):
        found.setdefault(base_name(run), Variant(base_name(run), [], [])).append(run, row)
    return list(found.values())


def groups_of(registry: Registry, variants: Sequence[Variant]) -> list[Group]:
    """Variants that were trained or sampled with several seeds: mean, deviation, and the verdict on the mean."""
    return [_group(registry, variant) for variant in variants if len(variant.rows) > 1]


def _group(registry: Registry, variant: Variant) -> Group:
    known = {metric: [v for v in variant.values(metric) if v is not None] for metric in METRICS}
    return Group(
        variant=variant.name,
        runs=[row.variant for row in variant.rows],
        seeds=list(dict.fromkeys(run.seed for run in variant.runs)),
        sample_seeds=list(dict.fromkeys(run.sample.seed for run in variant.runs if run.sample.seed is not None)),
        metrics={m: Mean(mean=fmean(v), sd=deviation(v), n=len(v)) for m, v in known.items() if v},
        verdict=_group_verdict(registry, variant),
    )


def _group_verdict(registry: Registry, variant: Variant) -> RowVerdict:
    """The verdict on the mean over seeds; a row that failed or is not comparable decides for all."""
    run = variant.runs[0]
    for row in sorted(variant.rows, key=lambda row: row.verdict.status != "failed"):
        if row.verdict.status not in COMPARED:
            reasons = [f"{row.variant}: {reason}" for reason in row.verdict.reasons]
            return RowVerdict(status=row.verdict.status, reasons=reasons, row=run.published)
    assert run.published is not None
    judged = judge_metrics(
        registry,
        registry.row(run.published),
        {metric: variant.values(metric) for metric in METRICS},
        [row.intervals.get(TOOL, {}) for row in variant.rows],
        trained=run.train is not None,
        comparable=True,
        seeds={metric: noise for metric in METRICS if (noise := _noise_over_seeds(variant, metric)) is not None},
    )
    return RowVerdict(
        status=overall(judged, comparable=True),
        reasons=[sentence(m) for m in judged if m.status in ("worse", "better")],
        row=run.published,
        metrics=judged,
        caution=caution_of(registry.row(run.published)),
    )


def _noise_over_seeds(variant: Variant, metric: str) -> float | None:
    """Half of Student's 95 % interval of the mean over seeds minus one further draw, which the published number is.

    The draws are training seeds; of one training, sets of samples, if their noise was not estimated. None: one draw.
    """
    means = [sets.mean(metric) for sets in variant.by_training_seed().values()]
    draws = means if len(means) > 1 or variant.sampling_noise(metric) else variant.values(metric)
    known = [draw for draw in draws if draw is not None]
    return _student(known) * math.sqrt(len(known) + 1) if len(known) > 1 else None


def _student(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of the mean of two or more values."""
    from scipy import stats  # a second of imports that only several seeds pay

    return float(stats.t.ppf(0.975, len(values) - 1)) * deviation(values) / math.sqrt(len(values))


def comparisons_of(registry: Registry, variants: Sequence[Variant]) -> list[Comparison]:
    """Each variant compared with the first one of its network without alignment (else with the first of all)."""
    networks: dict[Any, list[Variant]] = {}
    for variant in variants:
        model = variant.runs[0].model
        # A variant that only scores a given file has no network.
        if variant.runs[0].samples is None:
            network = (model.family, model.dimensions, model.patch, model.resolution)
            networks.setdefault(network, []).append(variant)
    found = []
    for members in networks.values():
        baseline = next((variant for variant in members if variant.runs[0].align is None), members[0])
        found += [_compared(registry, baseline, variant) for variant in members if variant is not baseline]
    return found


def _compared(registry: Registry, baseline: Variant, variant: Variant) -> Comparison:
    differences = (difference_of(baseline, variant, metric) for metric in METRICS)
    return Comparison(
        baseline=baseline.name,
        variant=variant.name,
        settings=changed_settings(baseline.runs[0], variant.runs[0]),
        metrics=[difference for difference in differences if difference is not None],
        cost={name: _cost_ratio(baseline.cost(name), variant.cost(name)) for name in COSTS},
        published_cost=_published_cost(registry, baseline.runs[0], variant.runs[0]),
    )


def changed_settings(first: Run, second: Run) -> list[SettingChange]:
    """Settings in which two runs differ; a section that only one has counts as one setting.

    That one was trained and the other not shows in `checkpoint`.
    """
    a, b = to_plain(first), to_plain(second)
    skipped = (*NOT_SETTINGS, "train") if first.train is None or second.train is None else NOT_SETTINGS
    return _changes({name: value for name, value in a.items() if name not in skipped}, b)


def _changes(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[SettingChange]:
    found: list[SettingChange] = []
    for name, old in a.items():
        new = b.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _changes({**dict.fromkeys(new), **old}, new, f"{prefix}{name}.")
        elif old != new:
            found.append(SettingChange(field=f"{prefix}{name}", baseline=old, variant=new))
    return found


def difference_of(baseline: Variant, variant: Variant, metric: str) -> Difference | None:
    """Variant minus baseline over the training seeds that both have; None where there is none.

    Sets of samples from the same weights differ by sampling noise alone, so their mean is the value of the seed.
    """
    first, second = baseline.by_training_seed(), variant.by_training_seed()
    seeds = [(seed, seed) for seed in second if seed in first]
    # Variants with a seed of their own, and checkpoints, are paired as they are.
    if not seeds and len(first) == len(second) == 1:
        seeds = [(next(iter(first)), next(iter(second)))]
    pairs = [(first[a], second[b]) for a, b in seeds]
    values = [
        (pair, before, after)
        for pair in pairs
        if (before := pair[0].mean(metric)) is not None and (after := pair[1].mean(metric)) is not None
    ]
    if not values:
        return None
    differences = [after - before for _, before, after in values]
    interval, noise = _interval(differences, *(side.sampling_noise(metric) for side in values[0][0]))
    return Difference(
        metric=metric,
        baseline=fmean([before for _, before, _ in values]),
        variant=fmean([after for *_, after in values]),
        difference=fmean(differences),
        seeds=len(values),
        interval=interval,
        noise=noise,
    )


def _interval(
    differences: Sequence[float], before: tuple[float, float] | None, after: tuple[float, float] | None
) -> tuple[Interval | None, str]:
    """95 % interval of the mean difference, and the noise that it includes.

    Args:
        differences: one a training seed.
        before: sampling noise of the baseline's first seed, below and above.
        after: the same of the variant.
    """
    middle = fmean(differences)
    if len(differences) > 1:
        half = _student(differences)
        return (middle - half, middle + half), "training and sampling noise, paired over seeds (Student's t)"
    if before is None or after is None:
        return None, "one seed, and no sampling interval was estimated"
    below, above = math.hypot(after[0], before[1]), math.hypot(after[1], before[0])
    return (middle - below, middle + above), "sampling noise alone: one training seed"


def _cost_ratio(baseline: float | None, variant: float | None) -> CostRatio | None:
    if baseline is None or variant is None or baseline <= 0:
        return None
    return CostRatio(baseline=baseline, variant=variant, ratio=variant / baseline)


def _published_cost(registry: Registry, first: Run, second: Run) -> PublishedCost | None:
    """What the SRA paper prints for this network: ratios of hours and memory."""
    if first.align is not None or second.align is None or second.align.kind != "sra":
        return None
    name = FAMILIES[first.model.family] + f"-{first.model.size_label}"
    if name not in registry.cost:
        return None
    hours, memory, hours_with, memory_with = registry.cost[name]
    source = registry.cost_source
    where = f"{source.source}: {name} on {source.devices} {source.device}"
    return PublishedCost(hours=hours_with / hours, memory=memory_with / memory, source=where)


def deviation(values: Sequence[float]) -> float:
    """Standard deviation (n - 1); zero for a single value."""
    return stdev(values) if len(values) > 1 else 0.0
