"""The tables of a report as plain text, shared by all formats; templates decide the layout."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from benchmark.published.comparability import show
from benchmark.published.schema import LOWER_IS_BETTER
from benchmark.published.verdict import TOOL, MetricVerdict, RowVerdict
from benchmark.report.model import ClaimVerdict, Comparison, Difference, Group, Report, Row, TimeToTarget
from evaluator.tools import NETWORKS, is_optional, is_predicted
from evaluator.tools.score_record import Interval
from sra.common.tables import text_table

METHOD = (
    "A metric is reproduced if the interval of its difference (measured minus published) contains zero. The interval "
    "is the sum of these parts: half a unit of the last printed digit; sampling noise, which is this run's own 95 % "
    "interval times sqrt(2) (sqrt(1 + 1/k) for the mean of k runs), because the published number is one draw with the "
    "same noise, but over several trainings at least Student's interval; for rows trained here, a robust standard "
    "deviation of the known trainings of the same row, which are "
    "shown beside it; and, where the source leaves the sampler open, how far the admitted ones differ. "
    "A part that is not known counts as zero, and the row says so."
)
CLAIMS = (
    "A claim is a published difference between two rows: with the method minus without. Here it is the mean difference "
    "of two variants, paired over training seeds. Its interval covers sampling noise of both sides and training noise: "
    "Student's interval over several seeds; with one seed, the known spread of the same difference or of its rows. "
    "Reproduced: the interval excludes zero, and the printed difference, itself one draw with the same noise, agrees; "
    "in sign, smaller or larger: only the sign agrees; undecided: the interval holds zero, and the printed difference "
    "agrees; not reproduced: it holds zero, and the printed difference does not agree; reversed: the other sign."
)
ABSENT = "–"


@dataclass(frozen=True)
class Column:
    """One metric of one tool."""

    tool: str
    metric: str
    title: str
    digits: int
    """Decimals."""
    meaning: str = ""
    """For a reader who sees the metric for the first time."""

    @property
    def heading(self) -> str:
        """Title, and an arrow to the better side."""
        return f"{self.title} {'↓' if self.metric in LOWER_IS_BETTER else '↑'}"


PRINTED_METRICS = (
    Column("adm", "fid", "FID", 2, "distance of the samples' Inception features from those of real images"),
    Column("adm", "sfid", "sFID", 2, "the same on features that keep positions: structure"),
    Column("adm", "is", "IS", 2, "how surely and how diversely a classifier names the samples"),
    Column("adm", "precision", "Prec.", 3, "share of samples that look like real images"),
    Column("adm", "recall", "Rec.", 3, "share of real images that the samples cover"),
)
"""Metrics that papers print."""
BY_METRIC = {column.metric: column for column in PRINTED_METRICS}
COLUMNS = (
    *PRINTED_METRICS,
    Column("clean-fid", "fid", "clean-fid FID", 2),
    Column("torch-fidelity", "fid", "torch-fidelity FID", 2),
    Column("torch-fidelity", "is", "torch-fidelity IS", 2),
)
OPTIONAL_COLUMNS = (
    Column("adm-torch", "fid", "adm-torch FID", 2),
    Column("adm-torch", "is", "adm-torch IS", 2),
)
"""Of a tool that scores only on request."""
EFFECTS = ("moves FID", "harmless", "not stated", "none")
"""In the order in which settings are listed."""
COSTS = {
    "seconds_per_step": "seconds per step",
    "training_hours": "training",
    "processes": "processes",
    "device_hours": "device time",
    "memory_gib": "GPU memory, GiB",
    "sample_seconds": "sampling",
    "images_per_second": "images per second",
}
"""Titles of the fields of `Cost`."""
KINDS = {
    "paper": "printed in the method's paper",
    "readme": "printed in its authors' README",
    "cited": "printed in a later paper",
    "rerun": "rerun by others",
    "note": "read in a summary of the paper only",
}
CAUTION = " (!)"
"""Mark of a verdict that needs a caution."""
MAX_REASONS = 4
"""Maximum number shown for one row."""


# -- numbers --------------------------------------------------------------------------------------------------------


def number(value: float | None, digits: int) -> str:
    """Rounded to decimals; a dash for None."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int) -> str:
    """With its sign and a real minus; a value that rounds to zero has no sign."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def significant(value: float) -> str:
    """Three significant digits, large numbers in full."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def supported_digits(interval: Interval) -> int | None:
    """Decimals that give an interval's width two significant digits; None without a width."""
    width = interval[1] - interval[0]
    return min(6, max(0, 1 - math.floor(math.log10(width)))) if 0 < width < math.inf else None


def _ends(interval: Interval | None) -> str:
    """An interval in the digits that its width supports; empty without a width."""
    if interval is None or (digits := supported_digits(interval)) is None:
        return ""
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def around(difference: float, interval: Interval) -> tuple[str, str]:
    """A difference and its interval, to two significant digits of the interval's width."""
    digits = supported_digits(interval)
    digits = 3 if digits is None else digits
    low, high = (signed(value, digits) for value in interval)
    return signed(difference, digits), f"[{low}, {high}]"


def digits_of(metric: str, printed: str | None) -> int:
    """Decimals to show: the column's, or the source's if it prints more."""
    column = BY_METRIC[metric].digits
    exponent = None if printed is None else Decimal(printed).as_tuple().exponent
    return max(column, -exponent) if isinstance(exponent, int) else column


# -- verdicts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Column titles and lines of text."""

    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Cell:
    """One metric of one row of the verdict table."""

    column: Column
    measured: str
    published: str | None = None
    difference: str | None = None
    interval: str | None = None
    status: str | None = None
    trainings: str = ""
    """What the known trainings of the same row printed."""
    own: str = ""
    """95 % interval of the measured value, where no difference has one."""


@dataclass(frozen=True)
class Line:
    """One row of the verdict table: a row of the report, or the mean over the seeds of a variant."""

    name: str
    row: Row
    """The row itself, or the first of the seeds."""
    verdict: RowVerdict
    cells: tuple[Cell, ...]
    url: str | None
    """Page of the paper that prints the published row."""
    is_seed: bool = False
    """Whether this is one seed of the variant above it."""

    @property
    def cost(self) -> str:
        """Device time of training; empty where it was not measured, and for a mean."""
        hours = self.row.cost.device_hours
        return "" if hours is None or self.name != self.row.variant else duration(hours)

    @property
    def why(self) -> str:
        """A caution, and the first reason for the verdict."""
        return "; ".join(filter(None, (self.verdict.caution, first_reason(self.verdict))))

    @property
    def status(self) -> str:
        """The verdict, marked where a caution belongs to it."""
        return marked(self.verdict)


def verdict_lines(report: Report) -> list[Line]:
    """A line for every row, and above the seeds of a variant a line for their mean."""
    groups = {group.runs[0]: group for group in report.groups}
    seeds = {name for group in report.groups for name in group.runs}
    lines = []
    for row in report.rows:
        if group := groups.get(row.variant):
            lines.append(_mean_line(report, group, row))
        line = _line(report, row, row.variant, row.verdict, row.adm, row.intervals.get(TOOL, {}))
        lines.append(replace(line, is_seed=row.variant in seeds))
    return lines


def reasons(lines: Sequence[Line]) -> list[str]:
    """Each reason for a verdict with the rows that have it; what a mean has from one of its seeds is told there."""
    seeds = {line.name for line in lines if line.is_seed}
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.why and line.why.partition(": ")[0] not in seeds:
            found.setdefault(line.why, []).append(line.name)
    return [f"{', '.join(names)}: {why}" for why, names in found.items()]


def _line(
    report: Report,
    row: Row,
    name: str,
    verdict: RowVerdict,
    measured: Mapping[str, float | None],
    intervals: Mapping[str, Interval],
) -> Line:
    judged = {metric.metric: metric for metric in verdict.metrics}
    printed = row.published.metrics if row.published else {}
    cells = (_cell(m, measured.get(m), judged.get(m), printed.get(m), intervals.get(m)) for m in BY_METRIC)
    return Line(name, row, verdict, tuple(cells), next(iter(_urls(report, row)), None))


def _mean_line(report: Report, group: Group, row: Row) -> Line:
    counts = [(len(group.seeds), "training"), (len(group.sample_seeds), "sample")]
    name = f"{group.variant}, mean of " + " x ".join(f"{n} {what} seeds" for n, what in counts if n > 1)
    line = _line(report, row, name, group.verdict, {metric: mean.mean for metric, mean in group.metrics.items()}, {})
    cells = []
    for column, cell in zip(PRINTED_METRICS, line.cells, strict=True):
        mean = group.metrics.get(column.metric)
        spread = f"{cell.measured} ± {number(mean.sd, column.digits)}" if mean else cell.measured
        cells.append(replace(cell, measured=spread))
    return replace(line, cells=tuple(cells))


def _cell(
    metric: str,
    measured: float | None,
    judged: MetricVerdict | None,
    published: str | None,
    interval: Interval | None,
) -> Cell:
    column, shown = BY_METRIC[metric], number(measured, digits_of(metric, published))
    if judged is None or judged.difference is None or judged.interval is None:
        return Cell(column, shown, published, status=judged.status if judged else None, own=_ends(interval))
    difference = around(judged.difference, judged.interval)
    return Cell(column, shown, published, *difference, judged.status, ", ".join(judged.trainings))


def marked(verdict: RowVerdict) -> str:
    """The status, marked where a caution belongs to it."""
    return verdict.status + (CAUTION if verdict.caution else "")


def first_reason(verdict: RowVerdict) -> str:
    """The first reason for a verdict, and how many more there are."""
    if not verdict.reasons:
        return ""
    return verdict.reasons[0] + (f" (and {len(verdict.reasons) - 1} more)" if len(verdict.reasons) > 1 else "")


def interval_parts(row: Row) -> Table:
    """How the interval of each metric of a row was made."""
    header = ["metric", "measured", "published", "difference", "rounding", "sampling", "allowed", "interval", "verdict"]
    lines = []
    for m in row.verdict.metrics:
        if m.difference is None or m.interval is None or m.measured is None:
            continue
        difference, interval = around(m.difference, m.interval)
        lines.append(
            [
                BY_METRIC[m.metric].title,
                number(m.measured, digits_of(m.metric, m.published) + 1),
                m.published or ABSENT,
                difference,
                f"±{m.rounding:g}",
                f"−{m.sampling[0]:.2g} / +{m.sampling[1]:.2g}" if m.sampling else "not estimated",
                "none known" if m.allowance is None else f"±{m.allowance:.3g}",
                interval,
                m.status,
            ]
        )
    return Table(header, lines)


def settings(row: Row) -> Table:
    """The settings of a row and of its published row; differences first."""
    found = sorted(row.verdict.settings, key=lambda item: EFFECTS.index(item.effect))
    lines = [[s.field, show(s.published), show(s.ours), s.effect, s.why] for s in found]
    return Table(["setting", "published", "here", "effect", "why"], lines)


# -- claims ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClaimLine:
    """One row of the table of claims."""

    claim: ClaimVerdict
    metric: str
    printed: str
    here: str
    """Difference and interval."""
    against: str
    """The same minus the printed one."""
    status: str

    @property
    def text(self) -> str:
        """As a sentence."""
        who = f"{self.claim.what} ({self.claim.source})" if self.claim.source else self.claim.what
        printed = f"{self.printed} {self.metric} printed; " if self.claim.printed else f"{self.metric} "
        of = f" ({self.claim.ratio:.2f} of the printed change)" if self.claim.ratio is not None else ""
        return f"{who}: {printed}here {self.here}: {self.status}{of}"

    @property
    def remarks(self) -> list[str]:
        """Caution, reasons and notes."""
        claim = self.claim
        return [*filter(None, [claim.caution]), *claim.reasons, *claim.notes]


def claim_lines(report: Report) -> list[ClaimLine]:
    """What each method changes here, and what was printed."""
    return [_claim_line(claim) for claim in report.claims]


def _claim_line(claim: ClaimVerdict) -> ClaimLine:
    metric = BY_METRIC[claim.metric]
    printed = ABSENT if claim.printed is None else claim.printed.replace("-", "−")
    status = claim.status + (CAUTION if claim.caution else "")
    numbers = [(claim.difference, claim.interval), (claim.against, claim.against_interval)]
    here, against = (_with_its_interval(value, interval, metric.digits) for value, interval in numbers)
    return ClaimLine(claim, metric.title, printed, here, against, status)


def _with_its_interval(value: float | None, interval: Interval | None, digits: int) -> str:
    if value is None:
        return ABSENT
    return " ".join(around(value, interval)) if interval else f"{signed(value, digits)} (interval not known)"


# -- time to target --------------------------------------------------------------------------------------------------


def target_lines(report: Report) -> Table:
    """When each variant reached each target; empty without curves."""
    header = [
        "variant",
        "target FID",
        "step",
        "interval",
        "training images",
        "device time",
        "energy",
        "speedup",
        "interval",
    ]
    return Table(header, [_target_cells(time) for time in report.targets])


def _target_cells(time: TimeToTarget) -> list[str]:
    at_most = "at most " if time.at_most else ""
    step = "not reached" if time.step is None else f"{at_most}{thousands(time.step)}"
    low, high = time.steps_interval or (None, None)
    steps = ABSENT if low is None else f"[{thousands(low)}, {'beyond' if high is None else thousands(high)}]"
    ratio, ends = time.speedup, time.speedup_interval
    ratios = ABSENT if ends is None or ends[1] is None else f"[{ends[0]:.2f}, {ends[1]:.2f}]"
    images = ABSENT if time.images is None else significant(time.images)
    unknown = ABSENT if time.step is None else "not measured"
    hours = unknown if time.device_hours is None else duration(time.device_hours)
    energy = unknown if time.kwh is None else f"{significant(time.kwh)} kWh"
    target = f"{time.target:.2f} ({time.what})"
    speedup = ABSENT if ratio is None else f"{ratio:.2f}x"
    return [time.variant, target, step, steps, images, hours, energy, speedup, ratios]


def thousands(step: float) -> str:
    """A step in thousands, small ones in full."""
    return f"{step / 1000:.0f}K" if step >= 10_000 else f"{step:.0f}"


def target_sentences(report: Report) -> list[str]:
    """The speedups in words."""
    lines = []
    for time in report.targets:
        if time.variant == time.baseline:
            continue
        *_, ratios = _target_cells(time)
        if time.step is None:
            lines.append(f"{time.variant} does not reach FID {time.target:.2f} ({time.what})")
        else:
            reached = f"{time.variant} reaches FID {time.target:.2f} ({time.what}) at step {thousands(time.step)}"
            lines.append(reached + (f": {time.speedup:.2f}x {ratios}" if time.speedup is not None else ""))
        if time.left_out:
            scored = "checkpoint, scored on another number of images, is"
            if time.left_out > 1:
                scored = "checkpoints scored on another number of images are"
            lines[-1] += f"; {time.left_out} {scored} left out"
    return lines


# -- numbers of every tool, comparisons, costs ----------------------------------------------------------------------


def all_numbers(report: Report) -> Table:
    """Every metric of every tool, with its interval where there is one; but those that were named alone."""
    return _numbers(report, optional=False)


def optional_numbers(report: Report) -> Table:
    """Metrics that were named, and those of networks: no paper of this suite prints them; some are predicted."""
    return _numbers(report, optional=True)


LOOKS = (
    "FID of all images, predicted from the first of them before the others were sampled; it is compared with the "
    "published FID whether or not the settings are comparable, and enters no verdict."
)


def looks(report: Report) -> Table:
    """What the first images of each variant said."""
    lines = [
        [row.variant, f"{look.images:,} of {look.of:,}", look.prediction, look.against or ABSENT, look.status]
        for row in report.rows
        for look in row.looks
    ]
    return Table(["variant", "after images", "predicted FID", "compared with", "early verdict"], lines)


def _numbers(report: Report, *, optional: bool) -> Table:
    pairs = ((tool, metric) for row in report.rows for tool in row.metrics for metric in row.metrics[tool])
    found = dict.fromkeys(pair for pair in pairs if (is_optional(pair[1]) or pair[0] in NETWORKS) == optional)
    tools = list(dict.fromkeys(tool for tool, _ in found))
    known = [(column.tool, column.metric) for column in COLUMNS]
    ordered = sorted(found, key=lambda n: (tools.index(n[0]), known.index(n) if n in known else len(known)))
    lines = [
        [tool, f"{m} (predicted)" if is_predicted(m) else m, *(_with_interval(row, tool, m) for row in report.rows)]
        for tool, m in ordered
    ]
    return Table(["tool", "metric", *(row.variant for row in report.rows)], lines)


def _with_interval(row: Row, tool: str, metric: str) -> str:
    value, interval = row.value(tool, metric), row.interval(tool, metric)
    if value is None:
        return ABSENT
    # The value in more digits than the interval supports: the tools are compared by them.
    return f"{value:.5g} {_ends(interval)}".strip()


def numbers_csv(report: Report) -> str:
    """The numbers of a report for a spreadsheet."""
    text, numbers = io.StringIO(), report.numbers()
    writer = csv.DictWriter(text, numbers[0] if numbers else ())
    writer.writeheader()
    writer.writerows(numbers)
    return text.getvalue()


def differences(comparison: Comparison) -> Table:
    """The metrics of two variants."""
    lines = []
    for m in comparison.metrics:
        digits = BY_METRIC[m.metric].digits
        shown = around(m.difference, m.interval) if m.interval else (signed(m.difference, digits), "not known")
        sides = number(m.baseline, digits), number(m.variant, digits)
        lines.append([BY_METRIC[m.metric].heading, *sides, *shown, better_side(comparison, m)])
    return Table(["metric", comparison.baseline, comparison.variant, "difference", "95 % interval", "better"], lines)


def better_side(comparison: Comparison, difference: Difference) -> str:
    """Which of two variants is better in a metric, as far as the interval tells."""
    if difference.interval is None or difference.interval[0] <= 0 <= difference.interval[1]:
        return "not clear"
    improved = (difference.difference < 0) == (difference.metric in LOWER_IS_BETTER)
    return comparison.variant if improved else comparison.baseline


def cost_ratios(comparison: Comparison) -> Table:
    """The cost of two variants."""
    lines = [
        [COSTS[name], cost_text(name, cost.baseline), cost_text(name, cost.variant), f"{cost.ratio:.3f}"]
        for name, cost in comparison.cost.items()
        if cost
    ]
    return Table(["cost", comparison.baseline, comparison.variant, "ratio"], lines)


def comparison_notes(comparison: Comparison) -> list[str]:
    """The settings that differ, the noise that the intervals include, and the cost that a paper prints."""
    changed = [f"{s.field}: {show(s.baseline)} → {show(s.variant)}" for s in comparison.settings]
    notes = [f"settings that differ: {'; '.join(changed)}"] if changed else ["no setting differs"]
    notes += [f"interval: {noise}" for noise in dict.fromkeys(m.noise for m in comparison.metrics)]
    steps, hours = comparison.cost.get("seconds_per_step"), comparison.cost.get("device_hours")
    if steps and hours and not 0.9 < steps.ratio / hours.ratio < 1.1:
        notes.append("the median step and the hours give other ratios: some steps were slower than others")
    if printed := comparison.published_cost:
        notes.append(f"published ratios: hours {printed.hours:.3f}, memory {printed.memory:.3f} ({printed.source})")
    return notes


def curve(row: Row) -> Table:
    """Every scored set of weights; empty if there is only one."""
    lines = [
        [
            f"{p.step:,}",
            ABSENT if p.hours is None else duration(p.hours),
            ABSENT if p.images is None else f"{p.images:,}",
            number(p.fid, 2),
            number(p.inception_score, 2),
        ]
        for p in row.curve
    ]
    return Table(["step", "training", "images", "FID", "IS"], lines if len(lines) > 1 else [])


def costs(row: Row) -> list[tuple[str, str]]:
    """(title, measured value) of each cost of a row that was measured."""
    values = {name: getattr(row.cost, name) for name in COSTS}
    return [(COSTS[name], cost_text(name, value)) for name, value in values.items() if value is not None]


def cost_text(name: str, value: float) -> str:
    """A field of `Cost` with its unit, if the title does not give it."""
    if name.endswith("hours"):
        return duration(value)
    return duration(value / 3600) if name == "sample_seconds" else significant(value)


def duration(hours: float) -> str:
    """In seconds, minutes or hours."""
    for unit, seconds in (("h", 3600), ("min", 60)):
        if hours * 3600 >= seconds:
            return f"{significant(hours * 3600 / seconds)} {unit}"
    return f"{significant(hours * 3600)} s"


# -- sentences ------------------------------------------------------------------------------------------------------


def _urls(report: Report, row: Row) -> list[str]:
    papers = [report.papers[key] for key in row.published.papers] if row.published else []
    return [paper.url for paper in papers if paper.url]


def published_row(report: Report, row: Row) -> str | None:
    """The published row in words."""
    if not (found := row.published):
        return None
    shown, urls = f"{found.id}: {found.model}, {found.source}, {KINDS[found.kind]}", _urls(report, row)
    return f"{shown} ({', '.join(urls)})" if urls else shown


def notes(row: Row, where: str = "see the report") -> list[str]:
    """Why a row has its status, and everything else to know that is not a number.

    Args:
        row: of the report.
        where: the rest of its settings stand.
    """
    reasons = row.verdict.reasons
    if row.verdict.settings and len(reasons) > MAX_REASONS + 1:
        rest = f"{len(reasons) - MAX_REASONS} more settings differ: {where}"
        reasons = [*reasons[:MAX_REASONS], rest]
    lines = [*filter(None, [row.verdict.caution]), *reasons, *row.verdict.notes]
    lines += [f"{tool} could not run: {text}" for tool, text in row.errors.items()]
    lines += [f"{tool}: no {name}: {why}" for tool, absent in row.absent.items() for name, why in absent.items()]
    return lines + [f"{tool}: {text}" for tool, found in row.warnings.items() for text in found]


def terminal_summary(report: Report) -> str:
    """The table that a run prints at its end, with reasons, notes and curves."""
    scored = {tool for row in report.rows for tool in row.metrics}
    columns = (*COLUMNS, *(column for column in OPTIONAL_COLUMNS if column.tool in scored))
    header = ["variant", *(column.title for column in columns), "verdict"]
    lines = [
        [row.variant, *(number(row.value(c.tool, c.metric), c.digits) for c in columns), marked(row.verdict)]
        for row in report.rows
    ]
    remarks = [f"{row.variant}: {text}" for row in report.rows for text in notes(row)]
    for row in report.rows:
        if len(row.curve) > 1:
            points = ", ".join(f"{p.fid:.2f} at step {p.step} ({p.images} images)" for p in row.curve)
            remarks.append(f"{row.variant}: FID {points}")
    claims = [f"{line.text} [{line.claim.variant} minus {line.claim.baseline}]" for line in claim_lines(report)]
    remarks += target_sentences(report)
    return "\n".join(["", text_table(header, lines), "", *claims, *([""] if claims else []), *remarks])
