"""From a finished run's files to the report in every format, the check's exit code, seeds and pairs."""

import base64
import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from PIL import Image

from benchmark.commands.run import execute
from benchmark.plan.request import RunRequest
from benchmark.published.schema import METRICS, Registry
from benchmark.published.verdict import half_unit
from benchmark.report import verify
from benchmark.report.check import check
from benchmark.report.collect import load_report
from benchmark.report.diff import compare_runs
from benchmark.report.model import Report, Row, read_report
from benchmark.report.render import environment, latex_text, render, show_report, write_report
from benchmark.report.tables import all_numbers, around, costs, optional_numbers, terminal_summary
from sra.common.errors import UserError
from sra.common.files import read_json, write_json

Finished = Callable[..., tuple[Path, Any]]
NEVER = "sit-b2-sra2-256-400k"
ROWS = {"baseline": "sit-b2-256-400k", "sra": "sit-b2-sra-256-400k"}


def printed(registry: Registry, row: str, metric: str) -> float:
    return float(registry.row(row).printed[metric])


def test_a_matching_run_is_reproduced_and_its_check_passes(finished: Finished) -> None:
    root, _ = finished(ROWS)
    text, code = check(root)
    assert code == 0
    assert text.splitlines()[:2] == [f"{name}: reproduced ({row})" for name, row in ROWS.items()]


def test_a_worse_metric_breaks_the_check(finished: Finished, registry: Registry) -> None:
    score = printed(registry, ROWS["sra"], "is")
    root, _ = finished(ROWS, metrics={"sra": {"is": score - 1}})
    text, code = check(root)
    assert code == 1
    assert "sra: worse: is: " in text


def test_a_better_metric_passes(finished: Finished, registry: Registry) -> None:
    score = printed(registry, ROWS["sra"], "is")
    root, _ = finished(ROWS, metrics={"sra": {"is": score + 1}})
    assert check(root)[1] == 0


def test_nothing_compared_is_three(finished: Finished) -> None:
    root, _ = finished({"sra2": NEVER})
    text, code = check(root)
    assert code == 3
    assert "not comparable: align of the published row" in text


def test_one_row_not_comparable_beside_one_that_is(finished: Finished) -> None:
    root, _ = finished({"sra2": NEVER, **ROWS})
    assert check(root)[1] == 0


def test_check_of_no_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a run directory with plan\.json or report/report\.json"):
        check(tmp_path)


def test_a_failed_stage_is_a_failed_row_that_says_where(finished: Finished) -> None:
    root, plan = finished(ROWS)
    stage = next(s for s in plan.stages if s.name == "train-sra")
    shutil.rmtree(next(s for s in plan.stages if s.name == "score-adm-sra").directory)
    (stage.directory / "done.json").unlink()
    write_json(stage.directory / "failed.json", {"key": stage.key, "message": "loss nan", "exit_code": 2})
    text, code = check(root)
    assert code == 1
    assert "sra: failed: train-sra: loss nan" in text
    row = load_report(root).rows[1]
    assert row.verdict.status == "failed"
    assert "failed" in show_report(root, "html")


def test_a_tool_that_could_not_run_is_a_failed_row(finished: Finished) -> None:
    root, plan = finished(ROWS)
    scores = next(s for s in plan.stages if s.name == "score-adm-sra").directory / "scores.json"
    write_json(scores, {**(read_json(scores) or {}), "metrics": {}, "error": "no TensorFlow here"})
    assert "sra: failed: score-adm: no TensorFlow here" in check(root)[0]


def test_an_unfinished_run_says_what_is_missing(finished: Finished) -> None:
    root, plan = finished(ROWS)
    for name in ("sample-sra", "score-adm-sra"):
        shutil.rmtree(next(s for s in plan.stages if s.name == name).directory)
    text, code = check(root)
    assert "sra: not finished: sample-sra has not ended" in text
    assert code == 3  # although the other variant is reproduced


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        ([], "; 400,000 steps of 256 images;"),
        (["variants.sra.train.steps=null", "variants.sra.train.epochs=1400"], "; 1,400 epochs in steps of 256 images;"),
    ],
)
def test_the_length_of_training_is_that_of_the_manifest(finished: Finished, overrides: list[str], shown: str) -> None:
    root, _ = finished({"sra": ROWS["sra"]}, overrides=overrides)
    assert shown in load_report(root).rows[0].what


def test_a_run_without_a_record_of_its_machine_is_not_this_machines(finished: Finished) -> None:
    root, _ = finished(ROWS)
    assert load_report(root).machines != ["machine not recorded"]
    (root / "provenance.json").unlink()
    report = load_report(root)
    assert report.machines == ["machine not recorded"]
    assert (report.provenance.source.commit, report.provenance.versions) == (None, {})
    assert "machine not recorded" in show_report(root, "html")


def test_a_failing_job_leaves_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.run import executor, runner

    job = "import sys; print('error: no'); sys.exit(2)"
    monkeypatch.setattr(executor.Local, "argv", lambda *_: ["python", "-c", job])
    manifest = Path(__file__).parents[2] / "manifests" / "smoke.yaml"
    with pytest.raises(runner.StageError):
        execute(RunRequest(manifest=manifest, out=tmp_path / "out"))
    report = read_report(tmp_path / "out" / "report" / "report.json")
    assert report is not None
    assert [row.verdict.status for row in report.rows] == ["failed", "failed"]
    assert report.rows[0].verdict.reasons == ["images: no"]


# -- seeds and pairs ------------------------------------------------------------------------------------------------

SEEDS = ["train.seeds=[0, 1, 2]"]
SHIFTS = (0.15, -0.05, 0.05)


def seeded(finished: Finished, registry: Registry, shifts: tuple[float, ...] = SHIFTS) -> Path:
    base, aligned = (printed(registry, row, "fid") for row in ROWS.values())
    metrics = {}
    for seed, shift in enumerate(shifts):
        metrics[f"baseline-seed{seed}"] = {"fid": base + 2 * shift}
        metrics[f"sra-seed{seed}"] = {"fid": aligned + shift}
    overrides = [f"variants.{name}.train.seeds=[0, 1, 2]" for name in ROWS]
    return finished(ROWS, metrics=metrics, overrides=overrides)[0]


def test_seeds_are_one_group_with_mean_deviation_and_verdict(finished: Finished, registry: Registry) -> None:
    report = load_report(seeded(finished, registry))
    assert len(report.rows) == 6
    group = next(g for g in report.groups if g.variant == "sra")
    assert group.seeds == [0, 1, 2]
    values = [printed(registry, ROWS["sra"], "fid") + shift for shift in SHIFTS]
    assert group.metrics["fid"].mean == pytest.approx(fmean(values))
    assert group.metrics["fid"].sd == pytest.approx(0.1)
    assert group.verdict.status == "reproduced"


@pytest.mark.parametrize("kind", ["train", "sample"])
def test_the_mean_of_two_seeds_has_students_interval(finished: Finished, registry: Registry, kind: str) -> None:
    """By hand: 12.7062 = t(0.975, 1), deviation s, and the published number as one more draw: s sqrt(1 + 1/2)."""
    published = printed(registry, ROWS["sra"], "fid")
    names = ("sra-seed0", "sra-seed1") if kind == "train" else ("sra-sample0", "sra-sample1")
    root, _ = finished(
        {"sra": ROWS["sra"]},
        metrics={name: {"fid": published + shift} for name, shift in zip(names, (0.4, 0.8), strict=True)},
        overrides=[f"variants.sra.{kind}.seeds=[0, 1]"],
    )
    (group,) = load_report(root).groups
    (fid,) = (metric for metric in group.verdict.metrics if metric.metric == "fid")
    half = 12.706204736432095 * 0.4 / math.sqrt(2) * math.sqrt(1.5)
    assert fid.interval is not None
    assert fid.rounding is not None
    assert fid.interval[1] - 0.6 == pytest.approx(half + fid.rounding + (fid.allowance or 0.0))
    assert fid.status == "reproduced"


def test_the_check_counts_the_mean_not_each_seed(finished: Finished, registry: Registry) -> None:
    """One seed lies outside, their mean inside: the variant holds."""
    root = seeded(finished, registry, (0.4, -0.3, 0.0))
    statuses = [row.verdict.status for row in load_report(root).rows]
    assert "worse" in statuses
    text, code = check(root)
    assert code == 0
    assert [line.split(":")[0] for line in text.splitlines()] == ["baseline", "sra", "claim", "claim"]


def test_pairs_over_seeds_have_students_interval(finished: Finished, registry: Registry) -> None:
    """By hand: mean of three paired differences, 4.3027 = t(0.975, 2), standard error s / sqrt(3)."""
    (pair,) = load_report(seeded(finished, registry)).comparisons
    assert (pair.baseline, pair.variant) == ("baseline", "sra")
    fid = next(m for m in pair.metrics if m.metric == "fid")
    gap = printed(registry, ROWS["sra"], "fid") - printed(registry, ROWS["baseline"], "fid")
    differences = [gap - shift for shift in SHIFTS]
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert fid.difference == pytest.approx(fmean(differences))
    assert fid.interval == pytest.approx([fmean(differences) - half, fmean(differences) + half])
    assert fid.seeds == 3


def test_one_seed_has_sampling_noise_only(finished: Finished, registry: Registry) -> None:
    values = {name: printed(registry, row, "fid") for name, row in ROWS.items()}
    intervals = {name: {"fid": [value - 0.3, value + 0.4]} for name, value in values.items()}
    root, _ = finished(ROWS, intervals=intervals)
    (pair,) = load_report(root).comparisons
    fid = next(m for m in pair.metrics if m.metric == "fid")
    gap = values["sra"] - values["baseline"]
    reach = math.hypot(0.3, 0.4)
    assert fid.interval == pytest.approx([gap - reach, gap + reach])
    assert "sampling noise alone" in fid.noise
    assert next(m for m in pair.metrics if m.metric == "is").interval is None


def test_sets_of_samples_are_one_group_whose_mean_is_less_noisy(finished: Finished, registry: Registry) -> None:
    """By hand: reaches 0.3 and 0.4 of each set, halved by the root of four sets of one training."""
    values = {name: printed(registry, row, "fid") for name, row in ROWS.items()}
    names = {f"{name}-sample{k}": value + 0.1 * k for name, value in values.items() for k in range(4)}
    overrides = [f"variants.{name}.sample.seeds=[0, 1, 2, 3]" for name in ROWS]
    metrics = {name: {"fid": value} for name, value in names.items()}
    intervals = {name: {"fid": [value - 0.3, value + 0.4]} for name, value in names.items()}
    root, _ = finished(ROWS, metrics=metrics, intervals=intervals, overrides=overrides)
    report = load_report(root)
    group = next(g for g in report.groups if g.variant == "sra")
    assert (group.seeds, group.sample_seeds) == ([0], [0, 1, 2, 3])
    assert group.metrics["fid"].mean == pytest.approx(values["sra"] + 0.15)
    (pair,) = report.comparisons
    fid = next(m for m in pair.metrics if m.metric == "fid")
    gap, reach = values["sra"] - values["baseline"], math.hypot(0.3, 0.4) / 2
    assert fid.interval == pytest.approx([gap - reach, gap + reach])
    assert fid.seeds == 1
    assert "mean of 4 sample seeds" in show_report(root, "md")


def test_pairs_name_every_setting_that_differs(finished: Finished) -> None:
    root, _ = finished({"a": "sit-b2-sra-256-400k", "b": "sit-b2-sra-weight0.4", "c": "sit-b2-sra-nohead"})
    pairs = load_report(root).comparisons
    assert [(p.baseline, p.variant, [s.field for s in p.settings]) for p in pairs] == [
        ("a", "b", ["align.weight"]),
        ("a", "c", ["align.head"]),
    ]


def test_networks_of_different_sizes_are_no_pair(finished: Finished) -> None:
    root, _ = finished({**ROWS, "xl": "sit-xl2-sra-256-800ep-cfg", "vanilla": "sit-xl2-256-7m"})
    pairs = load_report(root).comparisons
    assert [(p.baseline, p.variant) for p in pairs] == [("baseline", "sra"), ("xl", "vanilla")]


def test_cost_ratio_and_the_published_one(finished: Finished, registry: Registry) -> None:
    root, plan = finished(ROWS)
    log = next(s for s in plan.stages if s.name == "train-sra").directory / "log.jsonl"
    rows = [{"step": s, "loss": 1.0, "seconds": s / 8, "memory_bytes": 3 * 2**30} for s in (100, 200, 300)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = load_report(root)
    (pair,) = report.comparisons
    ratio = pair.cost["seconds_per_step"]
    assert ratio is not None
    assert ratio.ratio == pytest.approx(10 / 8)
    assert pair.cost["memory_gib"] is None
    assert report.rows[1].cost.memory_gib == 3
    assert ("GPU memory, GiB", "3") in costs(report.rows[1])
    hours, memory, hours_sra, memory_sra = registry.cost["SiT-B"]
    assert pair.published_cost is not None
    assert pair.published_cost.hours == hours_sra / hours
    assert pair.published_cost.memory == memory_sra / memory


def test_device_hours_count_every_process(finished: Finished) -> None:
    root, plan = finished(ROWS)
    stage = next(s for s in plan.stages if s.name == "train-sra").directory / "stage.json"
    # Two nodes of four.
    argv = ["python", "-m", "sra.runtime.launch", "--nproc-per-node", "4"]
    argv += ["-m", "sra.training.train", "--processes", "8"]
    write_json(stage, {**(read_json(stage) or {}), "argv": argv})
    baseline, sra = (row.cost for row in load_report(root).rows)
    assert (baseline.processes, sra.processes) == (1, 8)
    assert sra.device_hours == 8 * (sra.training_hours or 0)


def test_curves_over_steps_and_measured_hours(finished: Finished) -> None:
    root, plan = finished({"sra": ROWS["sra"]}, overrides=["variants.sra.train.milestones=[150, 250]"])
    log = next(s for s in plan.stages if s.name == "train-sra").directory / "log.jsonl"
    log.write_text(
        "".join(json.dumps({"step": s, "loss": 1.0, "seconds": s * 36.0}) + "\n" for s in (100, 200, 400_000))
    )
    (row,) = load_report(root).rows
    assert [p.step for p in row.curve] == [150, 250, 400_000]
    assert [p.hours for p in row.curve] == pytest.approx([1.5, 2.5, 4000])


def test_linear_probes_are_drawn_where_they_are(finished: Finished) -> None:
    root, _ = finished(ROWS)
    rows = [{"t": 0.5, "block": block, "accuracy": block / 20, "train_accuracy": 1.0} for block in (1, 4, 8)]
    write_json(root / "probe" / "sra" / "probe.json", {"settings": {}, "rows": rows})
    report = load_report(root)
    assert report.rows[0].probe == ()
    assert [p.accuracy for p in report.rows[1].probe] == [0.05, 0.2, 0.4]
    assert "Linear probes of sra" in show_report(root, "html")


def test_the_resolved_manifest_shows_what_will_be_allowed(finished: Finished, registry: Registry) -> None:
    root, _ = finished({**ROWS, "ckpt": "sit-xl2-sra-256-800ep-cfg"})
    allowances = yaml.safe_load(load_report(root).manifest)["allowances"]
    assert set(allowances) == set(ROWS)
    assert allowances["sra"]["fid"]["allowed"] == next(s.deviation for s in registry.spread if s.align == "sra")


# -- formats --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(finished: Finished, registry: Registry) -> Path:
    root, _ = finished({**ROWS, "sra2": NEVER}, overrides=["variants.sra.train.milestones=[150]"])
    return root


def test_html_is_one_file_without_the_network(shown: Path, registry: Registry) -> None:
    text = show_report(shown, "html")
    assert not re.search(r"<(script|link|iframe|object)\b", text)
    assert not re.search(r"(src|srcset|@import|url\()\s*=?\s*[\"'(]?https?:", text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    for row in ROWS.values():
        assert str(registry.row(row).printed["fid"]) in text
        assert registry.papers[registry.row(row).papers[0]].url in text  # type: ignore[operator]


def test_the_page_leads_to_each_part_and_gives_its_numbers(shown: Path) -> None:
    text, report = show_report(shown, "html"), load_report(shown)
    nav = text[text.index("<nav>") : text.index("</nav>")]
    assert re.findall(r'href="#([^"]+)"', nav) == re.findall(r'<h2 id="([^"]+)"', text)
    (address,) = re.findall(r'href="data:text/csv;charset=utf-8,([^"]+)"', text)
    rows = list(csv.DictReader(io.StringIO(unquote(address), newline="")))
    blank = {None: ""}
    assert rows == [{key: str(blank.get(value, value)) for key, value in n.items()} for n in report.numbers()]


def test_the_first_table_has_cost_and_interval(finished: Finished) -> None:
    # Of this row no sFID is printed.
    root, plan = finished(
        {"own": "sit-b2-256-400k-ode-layersync"}, {"own": {"sfid": 15.0}}, {"own": {"sfid": [10.0, 20.0]}}
    )
    first = show_report(root, "html").partition("<h2")[0]
    assert "[10, 20]" in first
    assert '<span class="measured">20 s</span>' in first
    (next(s for s in plan.stages if s.kind.name == "train").directory / "log.jsonl").unlink()
    assert "training</th>" in first
    assert "training</th>" not in show_report(root, "html")


def test_a_row_read_in_a_summary_carries_its_caution_in_every_format(finished: Finished) -> None:
    root, _ = finished({"baseline": "sit-b2-256-400k-ode-layersync"})
    for format in ("md", "html", "json"):
        assert "read in a summary of the paper" in show_report(root, format)
    assert "reproduced (!)" in show_report(root, "md")
    assert "reproduced (!)" in show_report(root, "latex")
    assert "reproduced (!)" in terminal_summary(load_report(root))
    assert "caution: " in check(root)[0]


def test_known_trainings_stand_beside_the_verdict(finished: Finished) -> None:
    """Of the same row; not beside a row that was sampled in another way."""
    root, _ = finished({**ROWS, "ode": "sit-b2-256-400k-ode"})
    for format in ("md", "html"):
        assert show_report(root, format).count("trainings 33.02, 35.15, 36.80") == 1


def test_html_escapes_what_people_write(shown: Path) -> None:
    report = write_report(load_report(shown), shown / "report")
    report = report.model_copy(update={"notes": ["<script>alert(1)</script>"]})
    assert "<script>" not in render(report, "html", shown / "report")


def test_markdown_and_latex_print_what_papers_print(shown: Path, registry: Registry) -> None:
    markdown, latex = show_report(shown, "md"), show_report(shown, "latex")
    fid = str(registry.row(ROWS["sra"]).printed["fid"])
    assert f"published {fid}" in markdown
    assert "@article{sra," in markdown
    assert r"\toprule" in latex
    assert r"\cite{sra}" in latex
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {6}
    assert any(fid in line for line in rows if "published" in line)


def test_named_metrics_are_in_a_table_of_their_own(finished: Finished) -> None:
    more = {"coverage": 0.91234, "fid@50000": 1.2345}
    root, _ = finished(ROWS, metrics={"sra": more}, intervals={"sra": {"fid@50000": [1.1, 1.4]}})
    for form in ("md", "html"):
        text = re.sub('href="data:text/csv[^"]*"', "", show_report(root, form))
        before, _, after = text.rpartition("More metrics")
        assert not [name for name in more if name in before]
        for part in ("0.91234", "fid@50000 (predicted)", "1.2345 [1.10, 1.40]"):
            assert part in after
    report, findings = load_report(root), verify.Findings()
    assert not {metric.metric for row in report.rows for metric in row.verdict.metrics} & set(more)
    verify._check_scores(root, report, findings)
    assert any("coverage, fid@50000, intervals: as the score records say" in line for line in findings.unknown)


def test_json_keeps_the_keys_of_the_contract(shown: Path) -> None:
    report = json.loads(show_report(shown, "json"))
    assert report["schema"] == 4
    for row in report["rows"]:
        assert {"variant", "metrics", "verdict", "cost", "provenance", "intervals", "errors", "curve"} <= set(row)
        assert {"status", "reasons"} <= set(row["verdict"])
        assert set(row["metrics"]["adm"]) <= set(METRICS)
        assert row["commands"]


def test_a_report_moves_to_another_machine(shown: Path, tmp_path: Path) -> None:
    """Stages and all, under another path; and the report's folder alone."""
    before = load_report(shown)
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(shown, moved)
    shutil.rmtree(shown)
    after = load_report(moved)
    assert [r.verdict for r in after.rows] == [r.verdict for r in before.rows]
    show_report(moved, "json")
    alone = tmp_path / "alone"
    shutil.copytree(moved / "report", alone / "report")
    assert [r.verdict.status for r in load_report(alone).rows] == [
        "reproduced",
        "reproduced",
        "not comparable",
    ]
    assert show_report(alone, "html") == (moved / "report" / "report.html").read_text()


def test_a_report_of_another_schema_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "report" / "report.json", {"schema": 1, "rows": []})
    with pytest.raises(UserError, match=r"report\.json: schema: expected 2 or 3 or 4, got 1"):
        load_report(tmp_path)


def test_the_interval_of_the_report_is_the_verdicts(shown: Path, registry: Registry) -> None:
    fid = load_report(shown).rows[0].verdict.metrics[0]
    assert fid.rounding == half_unit(registry.row(ROWS["baseline"]).printed["fid"])
    markdown = show_report(shown, "md")
    assert "±2.45" in markdown
    assert "33.02, 35.15, 36.80" in markdown


@pytest.mark.parametrize(
    ("difference", "interval", "expected"),
    [
        (-0.082, (-2.41, 2.28), ("−0.1", "[−2.4, +2.3]")),
        (0.011, (-0.005, 0.03), ("+0.011", "[−0.005, +0.030]")),
        (0.0, (-6.66, 6.66), ("0", "[−7, +7]")),
        (-0.0004, (-0.03, 0.03), ("0.000", "[−0.030, +0.030]")),
    ],
)
def test_differences_are_printed_as_exactly_as_they_are_known(
    difference: float, interval: tuple[float, float], expected: tuple[str, str]
) -> None:
    assert around(difference, interval) == expected


# -- diff -----------------------------------------------------------------------------------------------------------


def test_diff_names_settings_and_numbers(finished: Finished, registry: Registry) -> None:
    score = printed(registry, ROWS["sra"], "is")
    first, _ = finished(ROWS, name="first")
    changes = ["variants.sra.sample.steps=50"]
    second, _ = finished(ROWS, metrics={"sra": {"is": score + 1}}, overrides=changes, name="second")
    text = compare_runs(first, second, as_json=False)
    assert "sample.steps: 250 -> 50" in text
    assert "(+1)" in text
    assert "status: reproduced -> not comparable" in text
    assert "baseline" not in text
    document = json.loads(compare_runs(first, second, as_json=True))
    assert document["variants"]["baseline"] == {"settings": [], "inputs": [], "numbers": [], "verdict": []}


def test_diff_of_a_run_with_itself_is_empty(finished: Finished) -> None:
    root, _ = finished(ROWS)
    assert compare_runs(root, root, as_json=False) == "no difference"


def test_large_pictures_are_small_inside_a_page(tmp_path: Path) -> None:
    for name, edge in (("small.png", 64), ("large.png", 1500)):
        Image.effect_noise((edge, edge), 90).convert("RGB").save(tmp_path / name)
    embed = environment().filters["data_uri"]
    assert embed("small.png", tmp_path).startswith("data:image/png;base64,")
    large = embed("large.png", tmp_path)
    assert large.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(large.split(",")[1]))).size == (1280, 1280)


def test_no_sign_of_latex_survives_unescaped() -> None:
    assert latex_text(r"x\y_z & {q} ± 5%") == r"x\textbackslash{}y\_z \& \{q\} $\pm$ 5\%"


def test_features_of_other_networks_stand_apart() -> None:
    metrics = {"adm": {"fid": 1.0, "kid": 0.1}, "dinov2": {"fd": 2.0, "precision": 0.5}}
    report = Report.model_construct(rows=(Row.model_construct(variant="a", metrics=metrics, intervals={}),))
    assert [line[:2] for line in all_numbers(report).rows] == [["adm", "fid"]]
    assert [line[:2] for line in optional_numbers(report).rows] == [
        ["adm", "kid"],
        ["dinov2", "fd"],
        ["dinov2", "precision"],
    ]
