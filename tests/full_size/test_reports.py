"""The report of every manifest, with made-up scores of 50,000 images and 10 checkpoints a curve, opens at once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from benchmark.manifest.schema import load
from benchmark.plan.plan import make_plan
from benchmark.plan.run_directory import RunDirectory, write_json
from benchmark.plan.saved_plan import record_session, save_plan
from benchmark.report.collect import collect_report
from benchmark.report.render import write_report
from evaluator.tools import score_record
from evaluator.tools.score_record import AdmSettings, FeatureWidths, ImageSetFacts, NamedFile, ScoreRecord
from sra.config import TrainConfig
from tests.full_size import sizes as full

MANIFESTS = sorted((full.ROOT / "manifests").glob("*_*.yaml"))
CURVE = 10
"""Checkpoints of each training."""
MAX_BYTES, OPEN_SECONDS = 15e6, 2.0
METRICS = {"fid": 10.0, "sfid": 5.0, "is": 120.0, "precision": 0.7, "recall": 0.6}
SHA = "0" * 64


def write_scores(directory: Path, tool: str, resolution: int, number: int) -> None:
    shape = (resolution, resolution, 3)
    metrics = {name: value * (1 + number / 100) for name, value in METRICS.items()}
    record = ScoreRecord(
        tool=tool,
        version="1",
        metrics=metrics,
        intervals={name: (value * 0.98, value * 1.02) for name, value in metrics.items()},
        samples=ImageSetFacts(path="samples.npz", sha256=f"{number:064x}", count=50_000, shape=shape),
        reference=ImageSetFacts(path="reference.npz", sha256=SHA, count=10_000, shape=shape),
        graph=NamedFile(name="classify_image_graph_def.pb", sha256=SHA),
        settings=AdmSettings(
            stored_statistics=True,
            trusted_sample_statistics=False,
            widths=FeatureWidths(pool=2048, spatial=2023, classes=1008),
        ),
    )
    score_record.write(record, directory / "scores.json")


def report_of(manifest: Path, out: Path) -> Path:
    """A run directory whose stages have all ended, and its report."""
    lasts = [_last(run.train) for run in load(manifest).runs if run.train]
    milestones = [f"train.milestones={[min(lasts) * place // CURVE for place in range(1, CURVE)]}"] if lasts else []
    loaded = load(manifest, milestones)
    directory = RunDirectory(out)
    directory.create()
    # Between a photograph, which PNG halves, and noise, which it does not shrink.
    picture = out / "grid.png"
    noise = Image.effect_noise((8 * 128, 8 * 128), 90).convert("RGB")
    noise.resize((8 * 256, 8 * 292)).save(picture, compress_level=1)
    plan = make_plan(loaded, directory)
    for number, stage in enumerate(plan.stages):
        stage.directory.mkdir(parents=True, exist_ok=True)
        write_json(stage.directory / "stage.json", stage.record(["python"]))
        if stage.kind.name == "sample":
            write_json(stage.directory / "seconds.json", {"seconds": 10.0, "images": stage.job.sample.images})
            shutil.copyfile(picture, stage.directory / "grid.png")
        if stage.kind.name == "score" and stage.tool in ("adm", "adm-torch"):
            write_scores(stage.directory, stage.tool, 256, number)
        write_json(stage.directory / "done.json", {"key": stage.key, "outputs": {}})
    save_plan(plan, directory, f"sra-bench run {manifest.name}")
    record_session(plan, directory, {})
    write_report(collect_report(plan, directory, "sra-bench run"), out / "report")
    return out / "report" / "report.html"


def _last(train: TrainConfig) -> int:
    """Optimizer steps of a training."""
    return train.steps or int(train.epochs * (full.IMAGES // train.global_batch))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
def test_a_report_opens(manifest: Path, browser, space: Callable[[float], Path]) -> None:
    page_file = report_of(manifest, space(1) / "run")
    page = browser.new_page()
    page.goto(page_file.as_uri(), wait_until="load")
    milliseconds = page.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart")
    size = page_file.stat().st_size
    full.say(manifest.stem, f"{size / 1e6:.2f} MB, opened in {milliseconds / 1000:.2f} s")
    assert size < MAX_BYTES
    assert milliseconds / 1000 < OPEN_SECONDS
