"""What every format shows, as plain tables of text; how it looks is the format's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmark.published.comparability import show
from benchmark.report.columns import BY_METRIC, COLUMNS, PROTOCOL, around, digits_of, number, signed, significant

INTERVAL = (
    "A metric is reproduced when zero lies within the interval of its difference, measured minus published. The "
    "interval adds up what both sides leave open: half a unit of the last printed digit; sampling noise, which is this "
    "run's own 95 % interval widened by the square root of two (of 1 + 1/k for the mean of k runs), because "
    "the published number is one draw of the same noise; and, for rows trained here, the largest difference known "
    "between honest trainings of the same row. Where one of these is not known, nothing is allowed for it, and the row "
    "says so."
)
EFFECTS = {"moves FID": 0, "harmless": 1, "not stated": 2, "none": 3}
COSTS = {"seconds_per_step": "seconds per step", "memory_gib": "GPU memory, GiB", "device_hours": "device hours"}


@dataclass(frozen=True)
class Cell:
    """One metric of one row."""

    title: str
    measured: str
    published: str | None = None
    difference: str | None = None
    interval: str | None = None
    status: str | None = None


@dataclass(frozen=True)
class Line:
    """One row of the verdict table."""

    name: str
    anchor: str
    status: str
    cells: tuple[Cell, ...]
    row: str | None
    source: str | None
    urls: tuple[str, ...]
    why: str
    part: bool
    """One seed of the variant above it."""


def verdict_table(report: dict[str, Any]) -> list[Line]:
    """A line a row, and above the seeds of one variant a line for their mean."""
    groups = {group["runs"][0]: group for group in report["groups"]}
    parts = {name for group in report["groups"] for name in group["runs"]}
    lines = []
    for row in report["rows"]:
        group = groups.get(row["variant"])
        if group:
            lines.append(_group_line(report, group, row))
        lines.append(_line(report, row, row["variant"], row["verdict"], row["variant"] in parts))
    return lines


def _line(report: dict[str, Any], row: dict[str, Any], name: str, verdict: dict[str, Any], part: bool) -> Line:
    judged = {m["metric"]: m for m in verdict["metrics"]}
    measured = row["metrics"].get("adm", {})
    printed = (row["published"] or {}).get("metrics", {})
    cells = tuple(
        _cell(c.metric, measured.get(c.metric), judged.get(c.metric), printed.get(c.metric)) for c in PROTOCOL
    )
    return _made(report, row, name, verdict, cells, part)


def _group_line(report: dict[str, Any], group: dict[str, Any], row: dict[str, Any]) -> Line:
    judged = {m["metric"]: m for m in group["verdict"]["metrics"]}
    cells = []
    for column in PROTOCOL:
        known = group["metrics"].get(column.metric)
        printed = (row["published"] or {}).get("metrics", {}).get(column.metric)
        cell = _cell(column.metric, known["mean"] if known else None, judged.get(column.metric), printed)
        spread = f"{cell.measured} ± {number(known['sd'], column.digits)}" if known else cell.measured
        cells.append(Cell(cell.title, spread, cell.published, cell.difference, cell.interval, cell.status))
    counts = [(len(group["seeds"]), "training"), (len(group["sample_seeds"]), "sample")]
    name = f"{group['variant']}, mean of " + " x ".join(f"{n} {what} seeds" for n, what in counts if n > 1)
    return _made(report, row, name, group["verdict"], tuple(cells), False)


def _made(
    report: dict[str, Any],
    row: dict[str, Any],
    name: str,
    verdict: dict[str, Any],
    cells: tuple[Cell, ...],
    part: bool,
) -> Line:
    published = row["published"] or {}
    papers = [report["papers"][key] for key in published.get("papers", [])]
    return Line(
        name=name,
        anchor=row["variant"],
        status=verdict["status"],
        cells=cells,
        row=published.get("id"),
        source=published.get("source"),
        urls=tuple(paper["url"] for paper in papers if paper["url"]),
        why=_short(verdict["reasons"]),
        part=part,
    )


def _short(reasons: list[str]) -> str:
    if not reasons:
        return ""
    return reasons[0] + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")


def _cell(metric: str, measured: float | None, judged: dict[str, Any] | None, published: str | None) -> Cell:
    title = BY_METRIC[metric].title
    digits = digits_of(metric, published)
    if judged is None or judged["difference"] is None:
        status = judged["status"] if judged else None
        return Cell(title, number(measured, digits), published, status=status)
    difference, interval = around(judged["difference"], tuple(judged["interval"]))
    return Cell(title, number(measured, digits), published, difference, interval, judged["status"])


def terms(row: dict[str, Any]) -> list[list[str]]:
    """What each interval of a row is made of: metric, difference, rounding, sampling, allowance, interval, status."""
    lines = []
    for m in row["verdict"]["metrics"]:
        if m["difference"] is None:
            continue
        digits = digits_of(m["metric"], m["published"]) + 1
        sampling = "not estimated"
        if m["sampling"] is not None:
            sampling = f"−{m['sampling'][0]:.2g} / +{m['sampling'][1]:.2g}"
        allowance = "none known" if m["allowance"] is None else f"±{m['allowance']:.3g}"
        difference, interval = around(m["difference"], tuple(m["interval"]))
        lines.append(
            [
                BY_METRIC[m["metric"]].title,
                f"{m['measured']:.{digits}f}",
                m["published"],
                difference,
                f"±{m['rounding']:g}",
                sampling,
                allowance,
                interval,
                m["status"],
            ]
        )
    return lines


TERMS = ["metric", "measured", "published", "difference", "rounding", "sampling", "allowed", "interval", "verdict"]


def settings(row: dict[str, Any]) -> list[list[str]]:
    """Setting, published, ours, effect, why; differences first."""
    found = sorted(row["verdict"]["settings"], key=lambda item: EFFECTS[item["effect"]])
    return [[s["field"], show(s["published"]), show(s["ours"]), s["effect"], s["why"]] for s in found]


SETTINGS = ["setting", "published", "here", "effect", "why"]


def numbers(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """(header, lines) of every number of every tool, with its interval where there is one."""
    names = [
        (tool, metric)
        for row in report["rows"]
        for tool, metrics in row["metrics"].items()
        for metric in metrics
        if not isinstance(metrics[metric], dict)
    ]
    known = [(c.tool, c.metric) for c in COLUMNS]
    columns = sorted(dict.fromkeys(names), key=lambda n: known.index(n) if n in known else len(known))
    columns = sorted(columns, key=lambda n: list(dict.fromkeys(tool for tool, _ in names)).index(n[0]))
    header = ["tool", "metric", *(row["variant"] for row in report["rows"])]
    lines = []
    for tool, metric in columns:
        cells = [_number_cell(row, tool, metric) for row in report["rows"]]
        lines.append([tool.replace("_", "-"), metric, *cells])
    return header, lines


def _number_cell(row: dict[str, Any], tool: str, metric: str) -> str:
    value = row["metrics"].get(tool, {}).get(metric)
    if not isinstance(value, (int, float)):
        return number(None, 0)
    interval = row["intervals"].get(tool, {}).get(metric)
    shown = f"{value:.5g}"
    return f"{shown} [{interval[0]:.5g}, {interval[1]:.5g}]" if interval else shown


def pair_metrics(pair: dict[str, Any]) -> list[list[str]]:
    """Metric, without, with, difference, interval."""
    lines = []
    for m in pair["metrics"]:
        column = BY_METRIC[m["metric"]]
        digits = column.digits
        difference, interval = signed(m["difference"], digits), "not known"
        if m["interval"]:
            difference, interval = around(m["difference"], tuple(m["interval"]))
        before, after = number(m["without"], digits), number(m["with"], digits)
        lines.append([column.title, before, after, difference, interval])
    return lines


def pair_costs(pair: dict[str, Any]) -> list[list[str]]:
    """Cost, without, with, ratio."""
    lines = []
    for name, title in COSTS.items():
        cost = pair["cost"][name]
        if cost:
            lines.append([title, significant(cost["without"]), significant(cost["with"]), f"{cost['ratio']:.3f}"])
    return lines


def pair_notes(pair: dict[str, Any]) -> list[str]:
    """What differs between the two besides the numbers, and what a paper prints for the cost."""
    changed = [f"{s['field']}: {show(s['without'])} → {show(s['with'])}" for s in pair["settings"]]
    notes = [f"settings that differ: {'; '.join(changed)}"] if changed else ["no setting differs"]
    notes += [f"interval: {text}" for text in dict.fromkeys(m["of"] for m in pair["metrics"])]
    printed = pair["published_cost"]
    if printed:
        ratios = f"hours {printed['hours']:.3f}, memory {printed['memory']:.3f}"
        notes.append(f"published ratios: {ratios} ({printed['source']})")
    return notes


def curve(row: dict[str, Any]) -> list[list[str]]:
    """Step, hours, images, FID, IS of every scored set of weights, where there are several."""
    if len(row["curve"]) < 2:
        return []
    return [
        [f"{p['step']:,}", _hours(p["hours"]), f"{p['images']:,}", number(p["fid"], 2), number(p["is"], 2)]
        for p in row["curve"]
    ]


def _hours(value: float | None) -> str:
    return number(None, 0) if value is None else f"{value:.3g}"


REASONS = 4
"""That a row shows where it has many."""
CURVE = ["step", "hours", "images", "FID", "IS"]


def against(report: dict[str, Any], row: dict[str, Any]) -> str | None:
    """The published row in words."""
    published = row["published"]
    if not published:
        return None
    kinds = {
        "paper": "printed in the method's paper",
        "readme": "printed in its authors' README",
        "cited": "printed in a later paper",
        "rerun": "somebody else's rerun",
    }
    places = [report["papers"][key]["url"] for key in published["papers"] if report["papers"][key]["url"]]
    shown = f"{published['id']}: {published['model']}, {published['source']}, {kinds[published['kind']]}"
    return f"{shown} ({', '.join(places)})" if places else shown


def reasons(row: dict[str, Any]) -> list[str]:
    """Why a row has its status: of many differences the first few, as the table of settings has them all."""
    found: list[str] = row["verdict"]["reasons"]
    if not row["verdict"]["settings"] or len(found) <= REASONS + 1:
        return found
    return [*found[:REASONS], f"{len(found) - REASONS} more settings differ: see the report"]


def remarks(row: dict[str, Any]) -> list[str]:
    """Everything to know of a row that is neither reason nor number."""
    lines = list(row["verdict"]["notes"])
    lines += [f"{tool.replace('_', '-')} could not run: {text}" for tool, text in row["errors"].items()]
    for tool, warnings in row["warnings"].items():
        lines += [f"{tool.replace('_', '-')}: {text}" for text in warnings]
    return lines
