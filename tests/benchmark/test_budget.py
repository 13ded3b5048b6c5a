"""`plan --budget`: what fits, what does not, and what is not known."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.cli.main import app
from benchmark.commands.budget import gpu_hours_of
from benchmark.plan.inputs import examine
from sra.common.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def published_costs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SRA_BENCH_PERF", str(tmp_path / "perf.json"))
    monkeypatch.setenv("SRA_BENCH_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # Beside the checkout's manifests, not in it: what was run there is done, and costs nothing.
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    monkeypatch.chdir(tmp_path)


def rows_of(*arguments: str) -> dict[tuple[str, str], dict[str, object]]:
    done = CliRunner().invoke(app, ["plan", "--json", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert not document["refused"]
    return {(Path(row["manifest"]).stem, row["variant"]): row for row in document["rows"]}


def test_a_budget_over_all_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: SiT-B takes 0.096 and 0.115 hours of eight GPUs for an epoch of 5004 steps."""
    seen: list[str] = []
    monkeypatch.setattr("benchmark.commands.budget.examine", lambda place: seen.append(place) or examine(place))
    rows = rows_of("--budget", "70gpuh")
    assert {path.stem for path in (ROOT / "manifests").glob("*.yaml")} == {name for name, _ in rows}
    baseline, sra = rows["sit_b_256_400k", "baseline"], rows["sit_b_256_400k", "sra"]
    assert (baseline["fits"], sra["fits"]) == (True, False)
    assert baseline["gpu_hours"] > 0.096 * 8 * 400_000 / 5004  # type: ignore[operator]
    assert rows["smoke", "sra"]["fits"] is None
    checkpoint = rows["sit_xl_256", "sra-checkpoint"]
    assert (checkpoint["fits"], checkpoint["published"]) == (True, "sit-xl2-sra-256-800ep-cfg")
    assert checkpoint["stages_of_unknown_hours"] == ["score"]
    assert len(seen) == len(set(seen)) > 0, "each input is looked at once for all manifests"


def test_a_budget_of_one_manifest_cheapest_first() -> None:
    manifest = str(ROOT / "manifests" / "sit_b_256_400k.yaml")
    done = CliRunner().invoke(app, ["plan", manifest, "--budget", "70gpuh"], catch_exceptions=False)
    lines = done.stdout.splitlines()
    assert lines[1].split()[:4] == ["yes", "63.9", "sit_b_256_400k.yaml", "baseline"]
    assert "2 of 7 rows fit in 70.0 hours of one A100-80G each" in done.stdout
    rows = rows_of(manifest, "--budget", "24h", "--variant", "sra")
    assert [row["fits"] for row in rows.values()] == [False]


def test_hours_count_every_gpu() -> None:
    assert gpu_hours_of("24h", 8) == 192
    assert gpu_hours_of(" 1.5 GPUh", 8) == 1.5


@pytest.mark.parametrize("text", ["", "24", "h", "-3h", "0h", "2 days"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--budget: expected hours such as 24h, or GPU hours such as 100gpuh"):
        gpu_hours_of(text, 1)


def test_no_manifest_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty" / "manifests").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "empty")
    done = CliRunner().invoke(app, ["plan", "--budget", "24h"])
    assert "--budget: expected a manifest, or a folder manifests here" in str(done.exception)


def test_elsewhere_the_manifests_of_the_suite_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (row,) = rows_of("manifests/smoke.yaml", "--budget", "70gpuh", "--variant", "sra").values()
    assert row["fits"] is None
    assert len(rows_of("--budget", "70gpuh")) > 50
