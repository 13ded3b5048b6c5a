"""Run directories and bundles made by version 0.1.0 (plan and bundle schema 1, report schema 2) are still read."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from benchmark.report.check import check
from benchmark.report.collect import load_report
from benchmark.report.diff import compare_runs
from benchmark.report.model import Report, read_report
from benchmark.report.render import show_report
from benchmark.report.verify import verify_bundle

FIXTURES = Path(__file__).parents[1] / "fixtures"
VARIANTS = ["baseline-seed0", "baseline-seed1", "sra-seed0", "sra-seed1"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run of the smoke manifest with two seeds, without weights, images and caches."""
    with zipfile.ZipFile(FIXTURES / "run-schema1.zip") as archive:
        archive.extractall(tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def alone(old: Path, tmp_path: Path) -> Path:
    """Its report folder alone, as somebody copies it."""
    shutil.copytree(old / "report", tmp_path / "alone" / "report")
    return tmp_path / "alone"


def old_report(run: Path) -> Report:
    report = read_report(run / "report" / "report.json")
    assert report is not None
    assert report.schema_ == 2
    return report


def test_what_is_collected_is_what_was_written(old: Path) -> None:
    before, now = old_report(old), load_report(old)
    assert [row.variant for row in now.rows] == [row.variant for row in before.rows] == VARIANTS
    for row, other in zip(now.rows, before.rows, strict=True):
        assert row.metrics == other.metrics
        assert row.intervals == other.intervals
        assert (row.cost, row.curve, row.losses) == (other.cost, other.curve, other.losses)
        assert row.verdict.status == other.verdict.status
        assert row.provenance.settings == other.provenance.settings
        assert row.provenance.samples is not None
        assert other.provenance.samples is not None
        assert row.provenance.samples.path.startswith(f"{old}/stages/")  # where the run is now
        assert row.provenance.samples.model_copy(update={"path": ""}) == other.provenance.samples.model_copy(
            update={"path": ""}
        )
        assert all(str(old) in command for command in row.commands)
    assert [group.metrics for group in now.groups] == [group.metrics for group in before.groups]
    (comparison,), (other_comparison,) = now.comparisons, before.comparisons
    assert comparison.model_copy(update={"metrics": []}) == other_comparison.model_copy(update={"metrics": []})
    for metric, other_metric in zip(comparison.metrics, other_comparison.metrics, strict=True):
        assert metric.model_copy(update={"noise": ""}) == other_metric.model_copy(update={"noise": ""})


@pytest.mark.parametrize("format", ["md", "html", "latex", "json"])
def test_every_format_of_an_old_run_and_of_its_report_alone(old: Path, alone: Path, format: str) -> None:
    for run in (alone, old):
        text = show_report(run, format)
        assert all(name in text for name in ("sra-seed1", "not comparable"))
    assert json.loads(show_report(old, "json"))["schema"] == 4


def test_a_reason_that_rows_share_is_told_once(old: Path) -> None:
    verdicts = show_report(old, "md").partition("## Verdicts")[2].partition("## ")[0]
    lines = [line for line in verdicts.splitlines() if line.startswith("- ")]
    assert [line.partition(": ")[0] for line in lines] == ["- baseline-seed0, baseline-seed1, sra-seed0, sra-seed1"]


def test_check_and_diff_of_an_old_run(old: Path, alone: Path) -> None:
    assert check(old)[1] == check(alone)[1] == 3
    assert compare_runs(old, old, as_json=False) == "no difference"
    changes = json.loads(compare_runs(alone, old, as_json=True))["variants"]
    assert [name for name in changes if any(changes[name].values())] == []


@pytest.mark.parametrize("name", ["bundle-schema1.zip", "bundle-features-schema1.zip"])
def test_old_bundles_verify(name: str) -> None:
    """One of the smoke run, and one of a synthetic run with feature statistics, features and published rows."""
    text, code = verify_bundle(FIXTURES / name)
    assert code == (0 if "features" in name else 3), text  # the other has no statistics
    assert ("ok: sra: recall_exact " in text) == ("features" in name)


def test_an_old_bundle_with_another_score_is_found_out(tmp_path: Path) -> None:
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(FIXTURES / "bundle-features-schema1.zip") as archive, zipfile.ZipFile(changed, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("report.json"):
                content = content.replace(b'"status": "worse"', b'"status": "reproduced"')
            copy.writestr(name, content)
    text, code = verify_bundle(changed)
    assert code == 1
    assert "WRONG: sra: verdict" in text
