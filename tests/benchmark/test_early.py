"""Looks at the first images of a run: what they say, when a run is lost, and that they change no other stage."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.clusters.jobs import jobs_of
from benchmark.commands.plan import plan_report
from benchmark.manifest.schema import ManifestError, Run, load
from benchmark.plan.plan import make_plan
from benchmark.plan.prepare import Prepared
from benchmark.plan.run_directory import RunDirectory
from benchmark.published.comparability import Evidence
from benchmark.published.early import LOST, EarlyVerdict, early_verdict, stops
from benchmark.published.schema import Registry, Row
from benchmark.run.executor import LOCAL
from evaluator.dev.interval_coverage import Case, drawn
from evaluator.metrics import extrapolation
from evaluator.metrics.frechet import frechet_distance, gaussian
from evaluator.tools.score_record import Interval, ScoreRecord
from sra.common.errors import UserError

SMOKE = Path(__file__).parents[2] / "manifests" / "smoke.yaml"
LOOKS = "sample.looks=[200, 500]"


def refusal(*overrides: str) -> str:
    with pytest.raises(ManifestError) as caught:
        load(SMOKE, list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["sample.looks=[500, 2000]"], "increasing numbers below images = 2000"),
        (["sample.looks=[500, 500]"], "increasing numbers below"),
        (["sample.looks=[0, 500]"], "increasing numbers below"),
        (["sample.looks=[100]"], "at least 128 images to predict FID, got 100"),
        (["sample.looks=[1000]", "score.graph=/x/classify_image_graph_def.pb"], "at least 4096 images"),
        (["sample.looks=[500]", "score.tools=[clean-fid]"], "one of adm, adm-torch among score.tools"),
        (["sample.looks=[500]", "sample.seeding=public-code"], "looks: expected none for seeding 'public-code'"),
        (["sample.on_lost=stop"], "on_lost: expected looks beside it"),
        ([LOOKS, "sample.on_lost=end"], "on_lost"),
        ([LOOKS, "sample.on_lost=stop", "train.seeds=[0, 1]"], "expected go-on for several seeds"),
        (["variants.sra.expected_fid=10"], "expected_fid: expected a positive number, sample.looks and no published"),
        ([LOOKS, "variants.sra.expected_fid=-1"], "expected_fid: expected a positive number"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(overrides: list[str], expected: str) -> None:
    assert expected in refusal(*overrides)


def test_looks_change_no_other_stage(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    before, after = (make_plan(load(SMOKE, list(o)), directory) for o in ((), (LOOKS, "sample.on_lost=stop")))
    keys = {stage.name: stage.key for stage in after.stages}
    assert [stage for stage in after.stages if not stage.look] == list(before.stages)
    names = [name for name in keys if "look" in name or name.startswith(("train", "sample"))]
    looks = [f"score-adm-{variant}-look{count}" for count in (200, 500) for variant in ("baseline", "sra")]
    assert names[2:6] == looks
    assert after.until("train") == before.until("train")
    assert set(after.until("sample")) - set(before.until("sample")) == {s for s in after.stages if s.look}
    fewer = make_plan(load(SMOKE, ["sample.looks=[200]"]), directory)
    assert {stage.key for stage in fewer.stages} < set(keys.values())


def test_the_commands_of_a_plan_sample_the_first_images_before_each_look(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    plan = make_plan(load(SMOKE, [LOOKS], ["baseline"]), directory)
    commands = plan_report(Prepared(plan, directory, 1), LOCAL).commands
    assert commands is not None
    part = [c for c in commands if "--until" in c.argv or "--first" in c.argv]
    assert [c.argv[-1] if "--until" in c.argv else c.batch for c in part] == [
        *("200", "score-adm-baseline-look200", "500", "score-adm-baseline-look500")
    ]


def test_a_cluster_refuses_looks(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    plan = make_plan(load(SMOKE, [LOOKS]), directory)
    with pytest.raises(UserError, match=r"sample\.looks: expected none on a cluster.*score-adm-baseline-look200"):
        jobs_of(plan, directory, plan.stages)


# -- verdicts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sit(registry: Registry, matching: Callable[[Row], tuple[Run, Evidence]]) -> tuple[Run, ScoreRecord, float]:
    """A run of a published checkpoint with two looks, a record without metrics, and the printed FID."""
    row = next(row for row in registry.rows if row.checkpoint and not registry.protocols[row.protocol].scores_only)
    run, evidence = matching(row)
    sample = dataclasses.replace(run.sample, looks=(5000, 10_000), on_lost="stop")
    facts = evidence.record.samples.model_copy(update={"count": 5000})
    record = evidence.record.model_copy(update={"metrics": {}, "samples": facts})
    return dataclasses.replace(run, sample=sample), record, float(row.printed["fid"])


def scored(record: ScoreRecord, fid: float, predicted: float, own: float, room: float) -> ScoreRecord:
    intervals: dict[str, Interval] = {"fid": (fid - own, fid + own), "fid@50000": (predicted - room, predicted + room)}
    return record.model_copy(update={"metrics": {"fid": fid, "fid@50000": predicted}, "intervals": intervals})


def test_a_run_is_lost_when_the_low_end_would_be_judged_worse(
    registry: Registry, sit: tuple[Run, ScoreRecord, float]
) -> None:
    run, record, printed = sit

    def look(above: float, room: float = 0.1) -> EarlyVerdict:
        found = early_verdict(registry, run, scored(record, printed + 5, printed + above, 0.1, room))
        assert found is not None
        return found

    # One in 200 on one side for each of two looks: 2.576 standard deviations; sampling noise of both final numbers is
    # sqrt(2) 0.1 sqrt(5,000 / 50,000) = 0.0447; rounding 0.005.
    border = 0.1 * 2.5758 / 1.95996 + 0.0447 + 0.005
    assert look(border - 0.001).status == "still open"
    assert look(border + 0.001).status == LOST
    assert look(border + 0.001, room=0.2).status == "still open"
    assert look(0.001 - border).status == "still open"
    assert look(-0.001 - border).status == "better"
    lost = look(2.0)
    assert lost.interval == pytest.approx((printed + 2 - 0.1314, printed + 2 + 0.1314), abs=1e-4)
    numbers = f"(predicted {printed + 2:.3g} [{printed + 1.8686:.3g}, {printed + 2.1314:.3g}], printed {printed})"
    assert lost.text == f"after 5,000 of 50,000 images: cannot be reproduced any more {numbers}"
    assert stops(run, lost)
    assert not stops(run, look(0.0))
    assert not stops(dataclasses.replace(run, sample=dataclasses.replace(run.sample, on_lost="go-on")), lost)


def test_a_number_of_ones_own_or_none_is_compared(registry: Registry, sit: tuple[Run, ScoreRecord, float]) -> None:
    run, record, printed = sit
    found = scored(record, printed + 5, printed + 2, 0.1, 0.1)
    own = early_verdict(registry, dataclasses.replace(run, published=None, expected_fid=printed + 2), found)
    assert own is not None
    assert (own.status, own.against) == ("still open", f"expected {printed + 2:g}")
    nothing = early_verdict(registry, dataclasses.replace(run, published=None), found)
    assert nothing is not None
    assert nothing.status == "nothing to compare with"
    assert not stops(run, nothing)
    assert early_verdict(registry, run, found.model_copy(update={"intervals": {}})) is None
    assert not stops(run, None)


def share_stopped(case: Case, repetitions: int, run: Run, record: ScoreRecord, registry: Registry) -> tuple[int, int]:
    """Runs that would be judged reproduced or better, and those of them that looks at 1/10 and 1/5 call lost.

    The hardest case: the printed FID is such that half of the runs would be reproduced.
    """
    reference, sets, _ = drawn(case, range(repetitions))
    other, rows = gaussian(reference), []
    images = case.samples
    for features in sets:
        curves = [extrapolation.fit(features[:n], gaussian(features[:n]), other) for n in (images // 10, images // 5)]
        rows.append((frechet_distance(gaussian(features), other), curves))
    reach = 1.96 * np.sqrt(2) * np.std([fid for fid, _ in rows])
    printed = float(np.mean([fid for fid, _ in rows]) - reach)
    good, lost = 0, 0
    sample = dataclasses.replace(run.sample, images=images, looks=(images // 10, images // 5))
    run = dataclasses.replace(run, published=None, expected_fid=printed, sample=sample)
    for fid, curves in rows:
        if fid > printed + reach:
            continue
        good += 1
        found = []
        for curve in curves:
            value, ends = curve.at(images)
            own = 1.96 * curve.deviation
            metrics = {"fid": curve.value, f"fid@{images}": value}
            intervals: dict[str, Interval] = {"fid": (curve.value - own, curve.value + own), f"fid@{images}": ends}
            facts = record.samples.model_copy(update={"count": curve.count})
            update = {"metrics": metrics, "intervals": intervals, "samples": facts}
            found.append(early_verdict(registry, run, record.model_copy(update=update)))
        lost += any(verdict and verdict.status == LOST for verdict in found)
    return good, lost


@pytest.mark.parametrize("kind", ["normal", "heavy"])
def test_good_runs_are_not_stopped(kind: str, registry: Registry, sit: tuple[Run, ScoreRecord, float]) -> None:
    case = Case("apart", 64, 2000, 320, 0.9, 0.05, kind)  # type: ignore[arg-type]
    good, lost = share_stopped(case, 60, *sit[:2], registry)
    assert good > 20
    assert lost == 0
