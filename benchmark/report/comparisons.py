"""Several seeds of one variant as one group, and variants beside each other: what changed, what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from benchmark.manifest.schema import Run
from benchmark.published.schema import METRICS, Registry
from benchmark.published.verdict import COMPARED, TOOL, judge_metrics, overall, sentence
from sra.config import to_plain

COSTS = ("seconds_per_step", "memory_gib", "device_hours")
# Names and places differ between any two variants; they are no settings.
NOT_SETTINGS = ("variant", "published", "seed")


def base_name(run: Run) -> str:
    """The variant as the manifest names it, whatever its seeds."""
    return run.network.removesuffix(f"-seed{run.seed}")


def _members(runs: Sequence[Run]) -> dict[str, list[int]]:
    """Places of the runs of each variant."""
    members: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        members.setdefault(base_name(run), []).append(place)
    return members


def groups_of(registry: Registry, runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Variants that were trained or sampled with several seeds: mean, deviation, and the verdict on the mean."""
    groups = []
    for name, places in _members(runs).items():
        if len(places) > 1:
            groups.append(_group(registry, name, [runs[p] for p in places], [rows[p] for p in places]))
    return groups


def _group(registry: Registry, name: str, runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = {metric: [_value(row, metric) for row in rows] for metric in METRICS}
    known = {metric: [v for v in found if v is not None] for metric, found in values.items()}
    return {
        "variant": name,
        "runs": [row["variant"] for row in rows],
        "seeds": list(dict.fromkeys(run.seed for run in runs)),
        "sample_seeds": list(dict.fromkeys(run.sample.seed for run in runs)),
        "metrics": {m: {"mean": fmean(v), "sd": deviation(v), "n": len(v)} for m, v in known.items() if v},
        "verdict": _group_verdict(registry, runs[0], rows, values),
    }


def _group_verdict(
    registry: Registry, run: Run, rows: Sequence[dict[str, Any]], values: Mapping[str, Sequence[float | None]]
) -> dict[str, Any]:
    """Of the mean over seeds; one that failed or is not comparable decides for all."""
    for row in rows:
        if row["verdict"]["status"] not in COMPARED:
            reasons = [f"{row['variant']}: {reason}" for reason in row["verdict"]["reasons"]]
            return {"status": row["verdict"]["status"], "reasons": reasons, "row": run.published, "metrics": []}
    assert run.published is not None
    intervals = [row["intervals"].get(TOOL, {}) for row in rows]
    judged = judge_metrics(
        registry, registry.row(run.published), values, intervals, trained=run.train is not None, comparable=True
    )
    return {
        "status": overall(judged, comparable=True),
        "reasons": [sentence(m) for m in judged if m.status in ("worse", "better")],
        "row": run.published,
        "metrics": [vars(m) for m in judged],
    }


def pairs_of(registry: Registry, runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Variants of one network beside its first without alignment (else its first of all)."""
    networks: dict[Any, list[tuple[str, list[int]]]] = {}
    for name, places in _members(runs).items():
        run = runs[places[0]]
        # A given file is nothing to set beside a network.
        if run.samples is None:
            model = run.model
            network = (model.family, model.dimensions, model.patch, model.resolution)
            networks.setdefault(network, []).append((name, places))
    found = []
    for variants in networks.values():
        without = next((v for v in variants if runs[v[1][0]].align is None), variants[0])
        found += [_pair(registry, runs, rows, without, other) for other in variants if other is not without]
    return found


def _pair(
    registry: Registry,
    runs: Sequence[Run],
    rows: Sequence[dict[str, Any]],
    without: tuple[str, list[int]],
    with_: tuple[str, list[int]],
) -> dict[str, Any]:
    first, second = runs[without[1][0]], runs[with_[1][0]]
    return {
        "without": without[0],
        "with": with_[0],
        "settings": changed_settings(first, second),
        "metrics": _differences(runs, rows, without[1], with_[1]),
        "cost": {name: _ratio(rows, name, without[1], with_[1]) for name in COSTS},
        "published_cost": _published_cost(registry, first, second),
    }


def changed_settings(first: Run, second: Run) -> list[dict[str, Any]]:
    """Settings in which two runs differ; a section that only one has counts as one setting.

    That one was trained and the other not shows in `checkpoint`.
    """
    a, b = to_plain(first), to_plain(second)
    skipped = (*NOT_SETTINGS, "train") if first.train is None or second.train is None else NOT_SETTINGS
    changes = _changes({k: v for k, v in a.items() if k not in skipped}, b)
    return [{"field": name, "without": old, "with": new} for name, old, new in changes]


def _changes(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for name in a:
        old, new = a[name], b.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _changes({**dict.fromkeys(new), **old}, new, f"{prefix}{name}.")
        elif old != new:
            found.append((f"{prefix}{name}", old, new))
    return found


def _differences(
    runs: Sequence[Run], rows: Sequence[dict[str, Any]], without: Sequence[int], with_: Sequence[int]
) -> list[dict[str, Any]]:
    found = []
    for metric in METRICS:
        paired = _paired(runs, rows, without, with_, metric)
        if not paired:
            continue
        differences = [after - before for before, after, *_ in paired]
        entry: dict[str, Any] = {
            "metric": metric,
            "without": fmean([p[0] for p in paired]),
            "with": fmean([p[1] for p in paired]),
            "difference": fmean(differences),
            "seeds": len(paired),
        }
        found.append({**entry, **_interval(differences, [(p[2], p[3]) for p in paired])})
    return found


def _paired(
    runs: Sequence[Run], rows: Sequence[dict[str, Any]], without: Sequence[int], with_: Sequence[int], metric: str
) -> list[tuple[float, float, Any, Any]]:
    """(without, with, reach of their sampling noise) of each training seed that both variants have.

    Sets of samples from the same weights differ by sampling noise alone: their mean stands for the seed.
    """
    first, second = _by_seed(runs, without), _by_seed(runs, with_)
    # Variants with a seed of their own, and checkpoints, are paired as they are.
    seeds = [(seed, seed) for seed in second if seed in first]
    if not seeds and len(first) == len(second) == 1:
        seeds = [(next(iter(first)), next(iter(second)))]
    found = []
    for a, b in seeds:
        before, after = _value_of(rows, first[a], metric), _value_of(rows, second[b], metric)
        if before is not None and after is not None:
            found.append((before, after, _sampling(rows, first[a], metric), _sampling(rows, second[b], metric)))
    return found


def _by_seed(runs: Sequence[Run], places: Sequence[int]) -> dict[int, list[int]]:
    """Places of the runs of each training seed."""
    found: dict[int, list[int]] = {}
    for place in places:
        found.setdefault(runs[place].seed, []).append(place)
    return found


def _value_of(rows: Sequence[dict[str, Any]], places: Sequence[int], metric: str) -> float | None:
    """Mean of a metric over sets of samples; None where one has none."""
    values = [_value(rows[place], metric) for place in places]
    return fmean([v for v in values if v is not None]) if None not in values else None


def _interval(differences: Sequence[float], sampling: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """95 % interval of the mean difference: Student's t over seeds; of one seed, sampling noise alone."""
    middle = fmean(differences)
    if len(differences) > 1:
        from scipy import stats  # a second of imports that only several seeds pay

        half = float(stats.t.ppf(0.975, len(differences) - 1)) * deviation(differences) / math.sqrt(len(differences))
        return {"interval": [middle - half, middle + half], "of": "training and sampling, paired over seeds"}
    reach = sampling[0]
    if reach[0] is None or reach[1] is None:
        return {"interval": None, "of": "one seed, and no sampling interval was estimated"}
    below = math.hypot(reach[1][0], reach[0][1])
    above = math.hypot(reach[1][1], reach[0][0])
    return {"interval": [middle - below, middle + above], "of": "sampling alone: one training seed"}


def _sampling(rows: Sequence[dict[str, Any]], places: Sequence[int], metric: str) -> tuple[float, float] | None:
    """How far the 95 % interval of the mean of sets of samples reaches below and above it."""
    below, above = [], []
    for place in places:
        pair, value = rows[place]["intervals"].get(TOOL, {}).get(metric), _value(rows[place], metric)
        if pair is None or value is None:
            return None
        below.append(max(0.0, value - pair[0]))
        above.append(max(0.0, pair[1] - value))
    return math.hypot(*below) / len(below), math.hypot(*above) / len(above)


def _ratio(
    rows: Sequence[dict[str, Any]], name: str, without: Sequence[int], with_: Sequence[int]
) -> dict[str, float] | None:
    """Mean cost of both variants and their ratio; None where either was not measured."""
    costs = []
    for places in (without, with_):
        found = [rows[p]["cost"].get(name) for p in places]
        if any(value is None for value in found):
            return None
        costs.append(fmean([float(value) for value in found]))
    return {"without": costs[0], "with": costs[1], "ratio": costs[1] / costs[0]} if costs[0] > 0 else None


def _published_cost(registry: Registry, first: Run, second: Run) -> dict[str, Any] | None:
    """What the SRA paper prints for this network: ratios of hours and memory."""
    if first.align is not None or second.align is None or second.align.kind != "sra":
        return None
    name = {"sit": "SiT", "dit": "DiT"}[first.model.family] + f"-{first.model.size_name}"
    if name not in registry.cost:
        return None
    hours, memory, hours_with, memory_with = registry.cost[name]
    source = registry.cost_source
    return {
        "hours": hours_with / hours,
        "memory": memory_with / memory,
        "source": f"{source.source}: {name} on {source.devices} {source.device}",
    }


def _value(row: dict[str, Any], metric: str) -> float | None:
    value = row["metrics"].get(TOOL, {}).get(metric)
    return float(value) if value is not None and math.isfinite(value) else None


def deviation(values: Sequence[float]) -> float:
    """Standard deviation (n - 1); zero for a single value."""
    return stdev(values) if len(values) > 1 else 0.0
