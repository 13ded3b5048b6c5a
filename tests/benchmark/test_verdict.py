"""Verdicts: every row's path to reproduced, worse and better, the parts of the interval, and what is never said."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from benchmark.manifest.schema import Run, load
from benchmark.published.comparability import Evidence
from benchmark.published.registry import load_registry
from benchmark.published.schema import LOWER_IS_BETTER, METRICS, Registry, RegistryError, Row
from benchmark.published.verdict import RowVerdict, allowance_of, half_unit, judge, judge_metrics
from evaluator.tools.score_record import ImageSetFacts, NamedFile, ScoreRecord

Matching = Callable[[Row], tuple[Run, Evidence]]
SMOKE = Path(__file__).parents[2] / "manifests" / "smoke.yaml"
ROWS = [
    row
    for row in load_registry().rows
    if not row.unsettled
    and not load_registry().protocols[row.protocol].unknown
    and row.align_kind not in (load_registry().unsettled_alignments | load_registry().foreign_alignments)
]


def measured(row: Row, metric: str | None = None, shift: float = 0.0) -> dict[str, float | None]:
    """What the row prints, one metric shifted; something for what it does not print."""
    values: dict[str, float | None] = {name: float(row.printed.get(name, Decimal("0.5"))) for name in METRICS}
    if metric:
        values[metric] = (values[metric] or 0.0) + shift
    return values


def verdict(
    registry: Registry,
    matching: Matching,
    row: Row,
    values: Mapping[str, float | None],
    intervals: dict[str, list[float]] | None = None,
) -> RowVerdict:
    run, evidence = matching(row)
    metrics = {name: value for name, value in values.items() if value is not None}
    record = evidence.record.model_copy(update={"metrics": metrics, "intervals": intervals or {}})
    return judge(registry, run, dataclasses.replace(evidence, record=record))


def room(registry: Registry, row: Row, metric: str, run: Run) -> float:
    """How far a metric may lie off without sampling noise."""
    allowance = allowance_of(registry, row, metric, trained=run.train is not None)
    return half_unit(row.printed[metric]) + (allowance or 0.0)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_reproduced_worse_and_better(registry: Registry, matching: Matching, row: Row) -> None:
    run, _ = matching(row)
    assert verdict(registry, matching, row, measured(row)).status == "reproduced"
    for metric in row.printed:
        reach = room(registry, row, metric, run)
        for sign in (-1, 1):
            inside = verdict(registry, matching, row, measured(row, metric, sign * 0.99 * reach))
            assert inside.status == "reproduced"
            outside = verdict(registry, matching, row, measured(row, metric, sign * 1.01 * reach))
            assert outside.status == ("better" if (sign < 0) == (metric in LOWER_IS_BETTER) else "worse")
            (reason,) = outside.reasons
            assert reason.startswith(f"{metric}: ")
            assert str(row.printed[metric]) in reason


def test_unprinted_metrics_have_no_verdict(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-b2-sra-256-400k")
    found = verdict(registry, matching, row, {**measured(row), "sfid": 1e9})
    statuses = {m.metric: m.status for m in found.metrics}
    assert statuses["sfid"] == "no published value"
    assert found.status == "reproduced"


@pytest.mark.parametrize(
    ("printed", "half"), [("29.10", 0.005), ("14.3", 0.05), ("121.50", 0.005), ("0.563", 0.0005), ("3.94256", 5e-6)]
)
def test_half_a_unit_of_the_printed_digits(printed: str, half: float) -> None:
    assert half_unit(Decimal(printed)) == pytest.approx(half)


def test_sampling_noise_of_both_sides_widens_the_interval(registry: Registry, matching: Matching) -> None:
    """The published number is a draw, too: the run's own interval counts times sqrt(2), each side for itself."""
    row = registry.row("sit-xl2-sra-256-800ep-cfg")
    value = float(row.printed["fid"])
    below, above = 0.02, 0.05
    found = verdict(registry, matching, row, measured(row), {"fid": [value - below, value + above]})
    fid = found.metrics[0]
    half = half_unit(row.printed["fid"])
    assert fid.sampling == pytest.approx((math.sqrt(2) * below, math.sqrt(2) * above))
    assert fid.interval == pytest.approx((-math.sqrt(2) * below - half, math.sqrt(2) * above + half))
    reach = math.sqrt(2) * below + half
    for factor, status in ((0.99, "reproduced"), (1.01, "worse")):
        shifted = value + factor * reach
        intervals = {"fid": [shifted - below, shifted + above]}
        assert verdict(registry, matching, row, {**measured(row), "fid": shifted}, intervals).status == status


def test_two_perfect_reproductions_agree_in_95_of_100(registry: Registry) -> None:
    """Both numbers are draws around one truth: without sqrt(2) only 83 in 100 would be called reproduced."""
    random = np.random.default_rng(0)
    row, truth, sigma, repetitions = registry.row("sit-xl2-sra-256-800ep-cfg"), 100.0, 1.0, 2000
    reproduced = 0
    for published, measured_ in random.normal(truth, sigma, (repetitions, 2)):
        other = row.model_copy(update={"metrics": (Decimal(f"{published:.6f}"), None, None, None, None)})
        interval = {"fid": [measured_ - 1.96 * sigma, measured_ + 1.96 * sigma]}
        fid = judge_metrics(registry, other, {"fid": [measured_]}, [interval], trained=False, comparable=True)[0]
        reproduced += fid.status == "reproduced"
    assert 0.93 < reproduced / repetitions < 0.97


def test_missing_sampling_noise_is_said_and_not_made_up(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-xl2-sra-256-800ep-cfg")
    found = verdict(registry, matching, row, measured(row))
    assert all(m.sampling is None for m in found.metrics)
    assert any("no sampling interval" in note and "fid" in note for note in found.notes)


def test_a_source_without_an_address_is_named(registry: Registry, matching: Matching) -> None:
    without = [row for row in registry.rows if registry.address(row) is None]
    assert [row.papers for row in without] == [("rare",), ("rare",)]
    for row in (*without, registry.row("sit-b2-256-400k")):
        notes = verdict(registry, matching, row, measured(row)).notes
        assert (f"published numbers from {row.source}: no address could be confirmed" in notes) == (row in without)


def test_training_noise_is_allowed_on_trained_rows_and_named(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-b2-256-400k")
    entry = next(s for s in registry.spread if s.what == "training" and (s.model, s.align) == (row.model, None))
    found = verdict(registry, matching, row, measured(row))
    by_metric = {m.metric: m for m in found.metrics}
    assert by_metric["fid"].allowance == entry.deviation
    assert by_metric["fid"].trainings == ("33.02", "35.15", "36.80")
    assert by_metric["is"].allowance is None
    assert any(entry.source in note for note in found.notes)
    assert any("no spread" in note and "sfid, is" in note for note in found.notes)


def test_the_allowance_of_three_trainings_does_not_reach_the_effect_of_sra(registry: Registry) -> None:
    """By hand: 33.02, 35.15, 36.80 lie 2.13, 0 and 1.65 from their median; 1.65 x 1.4826."""
    base, aligned = registry.row("sit-b2-256-400k"), registry.row("sit-b2-sra-256-400k")
    effect = float(base.printed["fid"] - aligned.printed["fid"])
    allowance = allowance_of(registry, base, "fid", trained=True)
    assert allowance == pytest.approx(1.65 * 1.4826)
    values = next(s.values for s in registry.spread if s.model == base.model and s.align is None)
    assert allowance < effect
    assert float(max(values) - min(values)) == pytest.approx(3.78)
    # Of two, 0.74 of their difference.
    assert allowance_of(registry, aligned, "fid", trained=True) == pytest.approx(0.26 / 2 * 1.4826)


@pytest.mark.parametrize("name", ["sit-xl2-256-7m-ode", "sit-s2-256-400k-ode"])
def test_an_admitted_sampler_widens_the_interval_and_says_why(
    registry: Registry, matching: Matching, name: str
) -> None:
    row = registry.row(name)
    found = verdict(registry, matching, row, measured(row))
    by_metric = {m.metric: m for m in found.metrics}
    assert by_metric["fid"].allowance == registry.protocols[row.protocol].allowance["fid"] == 0.1
    assert by_metric["is"].allowance is None
    notes = " ".join(found.notes)
    assert "dopri5 or heun is admitted, with an allowance of 0.1 fid" in notes
    assert "how much dopri5 or heun differ is not known for sfid, is, precision, recall" in notes
    assert "SiT issue 21" in notes


def test_rows_read_in_a_summary_are_compared_with_a_caution(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-b2-256-400k-ode-layersync")
    assert row.kind == "note"
    found = verdict(registry, matching, row, measured(row))
    assert found.status == "reproduced"
    assert found.caution is not None
    assert "summary" in found.caution
    other = registry.row("sit-b2-256-400k-ode")
    assert verdict(registry, matching, other, measured(other)).caution is None


def test_checkpoints_are_allowed_no_training_noise(registry: Registry, matching: Matching) -> None:
    row = registry.row("dit-xl2-256-7m-cfg1.5")
    run, _ = matching(row)
    assert run.train is None
    assert all(m.allowance is None for m in verdict(registry, matching, row, measured(row)).metrics)


def test_a_different_length_has_another_spread(registry: Registry) -> None:
    """The spread of 400K-step rows says nothing about 7M."""
    assert allowance_of(registry, registry.row("sit-xl2-256-7m"), "fid", trained=True) is None
    assert allowance_of(registry, registry.row("dit-xl2-256-400k"), "fid", trained=True) is not None


def test_a_given_file_has_no_sampling_noise_but_other_arithmetic(registry: Registry, matching: Matching) -> None:
    row = registry.row("adm-evaluator-selftest")
    value = float(row.printed["fid"])
    wide = {"fid": [value - 1, value + 1]}
    found = verdict(registry, matching, row, measured(row, "fid", 0.5), wide)
    assert found.status == "worse"
    assert found.metrics[0].sampling == (0.0, 0.0)


def test_mean_of_seeds_narrows_its_own_half_of_the_noise(registry: Registry) -> None:
    row = registry.row("sit-b2-sra-256-400k")
    value, reach = float(row.printed["fid"]), 0.2
    values = {"fid": [value - 0.1, value, value + 0.1]}
    intervals = [{"fid": [v - reach, v + reach]} for v in values["fid"]]
    fid = judge_metrics(registry, row, values, intervals, trained=True, comparable=True)[0]
    assert fid.measured == pytest.approx(value)
    assert fid.sampling == pytest.approx((math.sqrt(1 + 1 / 3) * reach,) * 2)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_printed_metric_that_was_not_measured_fails(
    registry: Registry, matching: Matching, bad: float | None
) -> None:
    row = registry.row("sit-b2-sra-256-400k")
    found = verdict(registry, matching, row, {**measured(row), "is": bad})
    assert found.status == "failed"
    assert found.reasons == ["is: not measured"]


def test_not_comparable_says_why_and_still_shows_the_difference(registry: Registry, matching: Matching) -> None:
    row = registry.row("sit-b2-sra-256-400k")
    run, evidence = matching(row)
    other = dataclasses.replace(run, sample=dataclasses.replace(run.sample, steps=50))
    found = judge(registry, other, evidence)
    assert found.status == "not comparable"
    assert found.reasons == ["sample.steps: published 250, ours 50"]
    assert {m.status for m in found.metrics if m.published} == {"not comparable"}
    assert found.metrics[0].difference == pytest.approx(0.0)


@pytest.fixture(scope="module")
def smoke_run() -> Run:
    return load(SMOKE).runs[1]


@pytest.mark.parametrize("row", load_registry().rows, ids=lambda row: row.id)
def test_digits_are_never_reproduced_whatever_they_claim(registry: Registry, smoke_run: Run, row: Row) -> None:
    """The smoke run under any row's name, with exactly its numbers: not comparable."""
    run = dataclasses.replace(smoke_run, published=row.id)
    record = ScoreRecord(
        tool="adm",
        version="1",
        metrics={name: value for name, value in measured(row).items() if value is not None},
        graph=NamedFile(name="embedded:digits", sha256="0"),
        samples=ImageSetFacts(path="/run/samples.npz", sha256="1", count=2000, shape=(32, 32, 3)),
        reference=ImageSetFacts(path="/run/images", sha256="2", count=1797, shape=(32, 32, 3)),
    )
    evidence = Evidence(record=record, images=1797, classes=10)
    assert judge(registry, run, evidence).status == "not comparable"


def test_without_a_row_there_is_no_published_value(registry: Registry, matching: Matching) -> None:
    run, evidence = matching(registry.row("sit-l2-256-400k"))
    unnamed = dataclasses.replace(run, published=None)
    found = judge(registry, unnamed, evidence)
    assert (found.status, len(found.reasons)) == ("no published value", 1)
    aligned = dataclasses.replace(unnamed, align=matching(registry.row("sit-b2-sra-256-400k"))[0].align)
    assert "curves only" in judge(registry, aligned, evidence).reasons[0]


def test_an_unknown_row_is_refused(registry: Registry, matching: Matching) -> None:
    run, evidence = matching(registry.row("sit-l2-256-400k"))
    with pytest.raises(RegistryError, match="did you mean 'sit-l2-256-400k'"):
        judge(registry, dataclasses.replace(run, published="sit-l2-256-400kk"), evidence)
