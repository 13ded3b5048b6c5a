"""Time to target: interpolated steps, images and hours, intervals, and what is never compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.plan.run_directory import read_json, write_json
from benchmark.report.collect import load_report
from benchmark.report.model import TimeToTarget
from benchmark.report.render import show_report

Finished = Callable[..., tuple[Path, Any]]
ROWS = {"baseline": "sit-b2-256-400k", "sra": "sit-b2-sra-256-400k"}
STEPS = [100_000, 200_000, 300_000, 400_000]
CURVES = {"baseline": [60.0, 44.0, 37.0, 33.0], "sra": [50.0, 37.0, 32.0, 29.0]}


def run_of(
    finished: Finished, curves: dict[str, list[float]] = CURVES, noise: float = 0.0, *overrides: str
) -> tuple[Path, Any]:
    """A run whose checkpoints have these FIDs, at 0.36 s a step."""
    milestones = [f"variants.{name}.train.milestones={STEPS[:-1]}" for name in ROWS]
    root, plan = finished(ROWS, overrides=[*milestones, *overrides])
    for stage in plan.stages:
        if stage.tool == "adm":
            fid = curves[stage.variants[0]][STEPS.index(stage.step)]
            scores = read_json(stage.directory / "scores.json") or {}
            scores["metrics"]["fid"] = fid
            scores["intervals"] = {"fid": [fid - noise, fid + noise]} if noise else {}
            write_json(stage.directory / "scores.json", scores)
        if stage.kind.name == "train":
            lines = [{"step": step, "loss": 1.0, "seconds": step * 0.36} for step in STEPS]
            (stage.directory / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root, plan


def time_of(root: Path, variant: str = "sra") -> TimeToTarget:
    return next(time for time in load_report(root).targets if time.variant == variant)


def test_the_last_fid_of_the_baseline_is_the_target(finished: Finished) -> None:
    """By hand: SRA comes from 37 to 32 between 200K and 300K, so that it reaches 33 at 280K: 400/280."""
    root, _ = run_of(finished)
    time = time_of(root)
    assert (time.target, time.baseline) == (33.0, "baseline")
    assert time.step == pytest.approx(280_000)
    assert time.speedup == pytest.approx(400 / 280)
    assert time.images == pytest.approx(280_000 * 256)
    assert time.device_hours == pytest.approx(28.0)
    own = time_of(root, "baseline")
    assert (own.step, own.speedup, own.at_most) == (400_000, 1.0, False)
    sentence = "sra reaches FID 33.00 (the last of baseline) at step 280K: 1.43x"
    assert sentence in show_report(root, "md")
    assert sentence in show_report(root, "html")


def test_the_interval_has_the_noise_of_curve_and_target(finished: Finished) -> None:
    """By hand: both sides' noise adds up to 5 on either side; the lines fall by 10 in 100K steps."""
    curves = {"baseline": [90.0, 80.0, 70.0, 60.0], "sra": [80.0, 70.0, 60.0, 50.0]}
    time = time_of(run_of(finished, curves, 5 / 2**0.5)[0])
    assert time.step == pytest.approx(300_000)
    assert time.steps_interval == pytest.approx((250_000, 350_000))
    assert time.speedup_interval == pytest.approx((400 / 350, 400 / 250))


def test_a_target_of_the_manifest_has_the_noise_of_both_curves(finished: Finished) -> None:
    """By hand: a noise of 5 on lines that fall by 10 in 100K steps is 50K steps on either side, of both."""
    curves = {"baseline": [90.0, 80.0, 70.0, 60.0], "sra": [80.0, 70.0, 60.0, 50.0]}
    root, _ = run_of(finished, curves, 5.0, "targets=[65.0]")
    time, own = time_of(root), time_of(root, "baseline")
    assert time.steps_interval == pytest.approx((200_000, 300_000))
    assert time.speedup == pytest.approx(350 / 250)
    assert time.speedup_interval == pytest.approx((300 / 300, 400 / 200))
    assert (own.speedup, own.speedup_interval) == (1.0, None)


def test_a_curve_may_rise_again(finished: Finished) -> None:
    """By hand: 33 is first reached between 50 and 30; what follows does not count, for the baseline neither."""
    curves = {"baseline": [60.0, 30.0, 37.0, 33.0], "sra": [50.0, 30.0, 40.0, 35.0]}
    time = time_of(run_of(finished, curves)[0])
    assert time.step == pytest.approx(185_000)
    assert time.speedup == pytest.approx(190 / 185)


@pytest.mark.parametrize(("watts", "kwh"), [([400.0] * 4, 11.2), ([200.0, 400.0, 400.0, 400.0], 9.2), ([None], None)])
def test_energy_where_the_device_reports_its_power(
    watts: list[float | None], kwh: float | None, finished: Finished
) -> None:
    """By hand: 28 hours at 400 W; with 200 W in the first 10 of them, 2 kWh less."""
    root, plan = run_of(finished)
    for stage in plan.stages:
        if stage.kind.name == "train":
            log = zip(STEPS, [*watts, *[400.0] * 3], strict=False)
            lines = [{"step": step, "loss": 1.0, "seconds": step * 0.36, "watts": power} for step, power in log]
            (stage.directory / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert time_of(root).kwh == (None if kwh is None else pytest.approx(kwh))
    row = next(line for line in show_report(root, "md").splitlines() if line.startswith("| sra | 33.00"))
    assert f"| {'not measured' if kwh is None else f'{kwh:g} kWh'} |" in row


def test_a_late_end_beyond_the_curve_is_open(finished: Finished) -> None:
    curves = {"baseline": [90.0, 80.0, 70.0, 60.0], "sra": [90.0, 80.0, 70.0, 59.0]}
    root, _ = run_of(finished, curves, 5.0)
    interval = time_of(root).steps_interval
    assert interval is not None
    assert interval[1] is None
    assert "beyond" in show_report(root, "md")


def test_targets_of_the_manifest(finished: Finished) -> None:
    root, _ = run_of(finished, CURVES, 0.0, "targets=[55.0, 10.0]")
    times = [time for time in load_report(root).targets if time.variant == "sra"]
    assert [(time.target, time.step) for time in times] == [(55.0, 100_000), (10.0, None)]
    assert times[0].at_most
    # 60 to 44 in 100K steps: the baseline reaches 55 at 131,250.
    assert times[0].speedup == pytest.approx(1.3125)
    text = show_report(root, "md")
    assert "at most 100K" in text
    assert "sra does not reach FID 10.00" in text


def test_checkpoints_scored_on_fewer_images_are_left_out(finished: Finished) -> None:
    root, plan = run_of(finished)
    for stage in plan.stages:
        if stage.tool == "adm" and stage.step < 400_000:
            scores = read_json(stage.directory / "scores.json") or {}
            scores["samples"]["count"] = 10_000
            write_json(stage.directory / "scores.json", scores)
    time = time_of(root)
    assert (time.step, time.left_out) == (400_000, 3)
    assert "3 checkpoints scored on another number of images are left out" in show_report(root, "md")


def test_several_seeds_are_one_curve(finished: Finished) -> None:
    seeds = [f"variants.{name}.train.seeds=[0, 1]" for name in ROWS]
    curves = {f"{name}-seed{k}": [fid + 2 * k for fid in curve] for name, curve in CURVES.items() for k in (0, 1)}
    time = time_of(run_of(finished, curves, 0.0, *seeds)[0])
    assert time.seeds == 2
    assert time.step == pytest.approx(280_000)
    assert time.steps_interval is not None


def test_a_run_without_curves_has_none(finished: Finished) -> None:
    root, _ = finished(ROWS)
    assert load_report(root).targets == []
    assert "Time to target" not in show_report(root, "md")
