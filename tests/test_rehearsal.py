"""Every manifest's smoke form, through real processes, to a report: so that none can rot."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.commands.rehearsal import merged
from benchmark.manifest.schema import load
from benchmark.manifest.smoke_form import scaled
from benchmark.plan.plan import make_plan
from benchmark.plan.run_directory import RunDirectory
from benchmark.report.model import read_report

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "manifests").glob("*.yaml"))


def test_one_process_for_each_kind_of_stage(tmp_path: Path) -> None:
    plans = [make_plan(scaled(load(path)), RunDirectory(tmp_path)) for path in PATHS]
    stages = merged(plans).stages
    assert len({stage.directory for stage in stages}) == len(stages) < sum(len(plan.stages) for plan in plans)
    for kind in ("train", "standin", "sample"):
        assert len({stage.batch for stage in stages if stage.kind.name == kind}) == 1
    kinds = [stage.kind.name for stage in stages]
    assert kinds == sorted(kinds, key=["images", "latents", "train", "standin", "sample", "score"].index)


@pytest.mark.manifests
@pytest.mark.timeout(1200)
def test_every_manifest_reaches_its_report(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmark.commands.rehearsal", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for path in PATHS:
        report = read_report(tmp_path / "report" / path.stem / "report.json")
        assert report is not None
        assert (tmp_path / "report" / path.stem / "report.html").is_file()
        assert [row.variant for row in report.rows] == [run.variant for run in load(path).runs]
        assert any("smoke run" in note for note in report.notes)
        for row in report.rows:
            assert row.errors == {}
            values = [row.adm[name] for name in ("fid", "sfid", "is", "precision")]
            assert all(value is not None and math.isfinite(value) for value in values)
            assert row.verdict.status not in ("reproduced", "better", "worse")
