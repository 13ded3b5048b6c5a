"""What a method changes: the difference of two variants, judged against what a paper claims."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.published.comparability import Evidence, blocking, compare
from benchmark.published.schema import Claim, Registry, Row, robust_deviation
from benchmark.published.verdict import caution_of, half_unit, spreads_of
from benchmark.report.comparisons import Variant, changed_settings, difference_of
from benchmark.report.model import ClaimStatus, ClaimVerdict, Comparison, Difference
from evaluator.tools.score_record import Interval

OF_NO_EFFECT = (
    "train.milestones",
    "train.checkpoint_every",
    "train.keep",
    "train.log_every",
    "sample.milestone_images",
)
"""Settings that change no final sample."""


def claims_of(
    registry: Registry,
    variants: Sequence[Variant],
    evidence: Mapping[str, Evidence],
    comparisons: Sequence[Comparison],
) -> list[ClaimVerdict]:
    """Every claim whose two rows have variants here, then the other alignments that were trained beside a baseline.

    Args:
        registry: rows and claims.
        variants: of the report, with all their seeds.
        evidence: by name of a row of the report: what its files say; absent if it was not scored.
        comparisons: of the same variants.
    """
    found = []
    for claim in registry.claims:
        pair = _best_pair(registry, claim, variants, evidence)
        if pair is not None:
            found.append(_judged(registry, claim, *pair))
    aligned = {variant.name for variant in variants if variant.runs[0].align is not None}
    judged = {(verdict.baseline, verdict.variant) for verdict in found}
    return found + [
        _without_claim(comparison)
        for comparison in comparisons
        if comparison.variant in aligned
        and comparison.baseline not in aligned
        and comparison.metrics
        and (comparison.baseline, comparison.variant) not in judged
    ]


@dataclass(frozen=True)
class _Side:
    """A variant that may stand for one row of a claim."""

    variant: Variant
    reasons: tuple[str, ...]
    """Why it cannot be compared with the row."""
    named: bool
    """Whether the manifest names the row for it."""


def _best_pair(
    registry: Registry, claim: Claim, variants: Sequence[Variant], evidence: Mapping[str, Evidence]
) -> tuple[_Side, _Side] | None:
    """The two variants that stand for the rows of a claim: comparable ones first, then named ones, then close ones."""
    row, other = registry.row(claim.with_), registry.row(claim.without)
    aligned = [side for side in _sides(registry, row, variants, evidence) if side.named or not side.reasons]
    # A baseline that is not quite that of the claim is shown with the reason.
    plain = [
        side
        for side in _sides(registry, other, variants, evidence)
        if side.named or not side.reasons or (side.variant.runs[0].align is None and other.align is None)
    ]
    pairs = [(a, b) for a in plain for b in aligned if a.variant is not b.variant]
    if not pairs:
        return None

    def distance(pair: tuple[_Side, _Side]) -> tuple[int, int, int]:
        a, b = pair
        changed = changed_settings(a.variant.runs[0], b.variant.runs[0])
        return bool(a.reasons) + bool(b.reasons), (not a.named) + (not b.named), len(changed)

    return min(pairs, key=distance)


def _sides(registry: Registry, row: Row, variants: Sequence[Variant], evidence: Mapping[str, Evidence]) -> list[_Side]:
    """The variants with the network of a row."""
    return [
        _Side(variant, _reasons(registry, row, variant, evidence), named=variant.runs[0].published == row.id)
        for variant in variants
        if variant.runs[0].samples is None and variant.runs[0].model.name == row.model
    ]


def _reasons(registry: Registry, row: Row, variant: Variant, evidence: Mapping[str, Evidence]) -> tuple[str, ...]:
    """Why a variant cannot be compared with a row; a seed that was not scored is such a reason."""
    found: dict[str, None] = {}
    for run, scored in zip(variant.runs, variant.rows, strict=True):
        if run.variant in evidence:
            blocks = blocking(compare(registry, row, run, evidence[run.variant]))
            found |= dict.fromkeys(f"{variant.name}: {block.text()}" for block in blocks)
        else:
            found |= dict.fromkeys(f"{run.variant}: {reason}" for reason in scored.verdict.reasons)
    return tuple(found)


def _judged(registry: Registry, claim: Claim, plain: _Side, aligned: _Side) -> ClaimVerdict:
    printed = registry.printed_change(claim)
    difference = difference_of(plain.variant, aligned.variant, claim.metric)
    row, other = registry.row(claim.with_), registry.row(claim.without)
    notes = [*([claim.note] if claim.note else []), *_settings_note(plain.variant, aligned.variant)]
    reasons = [*plain.reasons, *aligned.reasons]
    states = {scored.verdict.status for side in (plain, aligned) for scored in side.variant.rows}
    measured_both = all(side.variant.mean(claim.metric) is not None for side in (plain, aligned))
    missing = (
        "no training seed in common, so that nothing is paired" if measured_both else f"{claim.metric}: not measured"
    )
    unmeasured = ClaimVerdict(
        claim=claim.id,
        what=claim.what,
        source=claim.source,
        url=registry.address(row),
        baseline=plain.variant.name,
        variant=aligned.variant.name,
        metric=claim.metric,
        printed=f"{printed:+}",
        status="not finished" if "not finished" in states else "not comparable" if measured_both else "failed",
        reasons=reasons or [missing],
        notes=notes,
        caution=caution_of(row) or caution_of(other),
    )
    if difference is None:
        return unmeasured
    trained = plain.variant.runs[0].train is not None and aligned.variant.runs[0].train is not None
    allowance, noise = _training_noise(registry, claim) if trained and difference.seeds == 1 else (0.0, [])
    rounding = half_unit(row.printed[claim.metric]) + half_unit(other.printed[claim.metric])
    interval, against = _intervals(difference, float(printed), allowance, rounding)
    status = _status(float(printed), interval, against)
    measured = {
        "difference": difference.difference,
        "interval": interval,
        "seeds": difference.seeds,
        "ratio": difference.difference / float(printed) if printed else None,
        "against": difference.difference - float(printed),
        "against_interval": against,
        "status": "not comparable" if reasons else status,
        "reasons": reasons,
        "notes": [*notes, _sampling_note(difference), *noise],
    }
    return unmeasured.model_copy(update=measured)


def _intervals(difference: Difference, printed: float, allowance: float, rounding: float) -> tuple[Interval, Interval]:
    """The 95 % interval of the difference here, and that of the difference here minus the printed one.

    The printed difference is a single draw with the same noise: what is the mean of k of them differs from it by
    sqrt(k + 1) times its own noise.
    """
    value = difference.difference
    low, high = difference.interval or (value, value)
    factor, room = math.sqrt(difference.seeds + 1), allowance + rounding
    own = (low - allowance, high + allowance)
    return own, (value - printed - factor * (value - low) - room, value - printed + factor * (high - value) + room)


def _status(printed: float, interval: Interval, against: Interval) -> ClaimStatus:
    """The verdict: first the sign, then the size."""
    agrees = against[0] <= 0 <= against[1]
    if interval[0] <= 0 <= interval[1]:
        return "undecided" if agrees else "not reproduced"
    if (interval[0] > 0) != (printed > 0):
        return "reversed"
    if agrees:
        return "reproduced"
    smaller = (against[0] > 0) == (printed < 0)
    return "reproduced in sign, smaller" if smaller else "reproduced in sign, larger"


def _training_noise(registry: Registry, claim: Claim) -> tuple[float, list[str]]:
    """Allowance for training noise of a difference of two single trainings, and where it comes from.

    The spread of the same difference in several papers; without that, the spreads of its two rows.
    """
    same = [other for other in registry.claims if _quantity(registry, other) == _quantity(registry, claim)]
    if len(same) > 1:
        changes = [registry.printed_change(other) for other in same]
        deviation = robust_deviation(changes)
        printed = ", ".join(f"{change:+} ({other.source})" for change, other in zip(changes, same, strict=True))
        return deviation, [f"allowance for training noise: {deviation:.2g}, a robust standard deviation of {printed}"]
    total, notes = 0.0, []
    for name in (claim.without, claim.with_):
        spread = spreads_of(registry, registry.row(name), trained=True)
        deviations = [s.deviation for s in spread if s.metric == claim.metric]
        total = math.hypot(total, max(deviations, default=0.0))
        if not deviations:
            notes.append(f"training noise of {name} is not known: it counts as zero; several train.seeds measure it")
    return total, [*([f"allowance for training noise: {total:.2g}, of the rows' trainings"] if total else []), *notes]


def _sampling_note(difference: Difference) -> str:
    if difference.seeds > 1:
        return f"interval: {difference.noise}"
    return "interval: sampling noise of both sides" if difference.interval else difference.noise


def _quantity(registry: Registry, claim: Claim) -> tuple[object, ...]:
    """What a claim is about, whoever printed it."""
    rows = [registry.row(name) for name in (claim.without, claim.with_)]
    facts = ((row.model, str(row.align), registry.steps(row), registry.images(row), row.protocol) for row in rows)
    return (claim.metric, *facts)


def _settings_note(plain: Variant, aligned: Variant) -> list[str]:
    """Settings other than the alignment in which the two variants differ: the difference is theirs, too."""
    changed = changed_settings(plain.runs[0], aligned.runs[0])
    others = [change.field for change in changed if not change.field.startswith(("align", *OF_NO_EFFECT))]
    return [f"{plain.name} and {aligned.name} also differ in {', '.join(others)}"] if others else []


def _without_claim(comparison: Comparison) -> ClaimVerdict:
    """A change that no paper prints for this network and length."""
    difference = comparison.metrics[0]
    return ClaimVerdict(
        what=f"{comparison.variant} against {comparison.baseline}",
        baseline=comparison.baseline,
        variant=comparison.variant,
        metric=difference.metric,
        difference=difference.difference,
        interval=difference.interval,
        seeds=difference.seeds,
        status="no published value",
        notes=[difference.noise],
    )
