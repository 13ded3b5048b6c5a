"""The smoke manifest at a reduced scale, through real processes: the report, reuse, and interruption."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.shut_in import ShutIn

ROOT = Path(__file__).parents[1]
SMALL = [
    "train.steps=12",
    "train.milestones=[6]",
    "train.checkpoint_every=4",
    "train.log_every=1",
    "sample.steps=4",
    "sample.images=150",
    "sample.milestone_images=100",
    "sample.shard=50",
    "sample.batch=50",
]


def words(out: Path, *extra: str) -> list[str]:
    settings = [part for item in SMALL for part in ("--set", item)]
    return ["-m", "benchmark.cli.main", "run", "manifests/smoke.yaml", "--out", str(out), *settings, *extra]


def command(out: Path, *extra: str) -> list[str]:
    return [sys.executable, *words(out, *extra)]


def call(out: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(out, *extra), capture_output=True, text=True, cwd=ROOT, check=False)


def call_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmark.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def outputs(out: Path) -> dict[str, bytes]:
    files = [*out.glob("stages/train-*/weights/*.safetensors"), *out.glob("stages/sample-*/samples.npz")]
    # Zip members carry a time: compare the pixels, not the container.
    contents = {}
    for path in files:
        name = str(path.relative_to(out))
        contents[name] = np.load(path)["arr_0"].tobytes() if path.suffix == ".npz" else path.read_bytes()
    return contents


@pytest.fixture(scope="module")
def shut_in(tmp_path_factory: pytest.TempPathFactory) -> ShutIn:
    return ShutIn(tmp_path_factory.mktemp("shut-in"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shut_in: ShutIn) -> Path:
    """A run without a network."""
    out = tmp_path_factory.mktemp("run") / "smoke"
    done = shut_in(*words(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not comparable" in done.stdout
    return out


@pytest.mark.slow
def test_a_whole_run_reaches_for_nothing(finished: Path, shut_in: ShutIn) -> None:
    assert len(list(finished.glob("stages/score-*/done.json"))) == 8
    assert shut_in.tried == ""
    shut_in.require()


@pytest.mark.slow
def test_the_report_holds_every_tools_numbers(finished: Path) -> None:
    report = json.loads((finished / "report" / "report.json").read_text())
    assert [row["variant"] for row in report["rows"]] == ["baseline", "sra"]
    assert report["headline"].startswith("digits features")
    for row in report["rows"]:
        assert row["errors"] == {}
        assert set(row["metrics"]["adm"]) >= {"fid", "sfid", "is", "precision", "recall"}
        assert row["verdict"]["status"] == "not comparable"
        assert row["metrics"]["clean-fid"]["fid"] == pytest.approx(row["metrics"]["adm"]["fid"], rel=1e-3)
        assert row["metrics"]["torch-fidelity"]["fid"] == pytest.approx(row["metrics"]["adm"]["fid"], rel=1e-3)
        assert [point["step"] for point in row["curve"]] == [6, 12]
        assert len(row["losses"]) == 12
        assert (finished / "report" / row["grid"]).is_file()
        assert row["provenance"]["samples"]["count"] == 150
    assert report["rows"][1]["losses"][0]["alignment"] is not None
    assert report["rows"][0]["losses"][0]["alignment"] is None


@pytest.mark.slow
def test_the_plan_counts_bytes_and_files_of_each_kind(finished: Path) -> None:
    """When there are most of them; what is removed again is added here."""
    done = call_bench("plan", *command(finished)[4:], "--json")
    assert done.returncode == 0, done.stderr
    planned = {"run": [0, json.loads(done.stdout)["cost"]["disk_files"]]}
    found = {"run": [0, 1 + len([*finished.glob("*"), *finished.glob("report/*")]) - len(["cache"])]}
    for stage in json.loads(done.stdout)["stages"]:
        folder, kind = Path(stage["directory"]), stage["kind"]
        paths = [folder, *folder.rglob("*")]
        size, files = sum(path.stat().st_size for path in paths if path.is_file()), len(paths)
        if kind == "images":
            files += 3  # `parts` and two records
        elif kind == "latents":
            files += 1  # the progress
        elif kind == "train":
            files += 3  # one more checkpoint
            size += next(folder.glob("checkpoints/*/state.pt")).stat().st_size
        elif kind == "sample":
            shards = 3 if "step" not in stage["stage"] else 2
            files += 2 + shards  # their folder and clock
        for sums, more in ((planned, (stage["disk_bytes"], stage["disk_files"])), (found, (size, files))):
            sums[kind] = [a + b for a, b in zip(sums.get(kind, [0, 0]), more, strict=True)]
    cached = list((finished / "cache").rglob("*"))
    found["score"][1] += 1 + len(cached)
    for kind in planned:
        assert found[kind][1] == pytest.approx(planned[kind][1], rel=0.1), kind
    for kind in ("latents", "train"):  # small images weigh less than their grid
        assert found[kind][0] == pytest.approx(planned[kind][0], rel=0.1), kind
    assert found["images"][0] < planned["images"][0]


@pytest.mark.slow
def test_html_stands_alone(finished: Path) -> None:
    text = (finished / "report" / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 4
    assert text.count("data:image/svg+xml;base64,") == 4
    assert "http" not in text.split("<body>")[0]
    assert "not comparable" in text


@pytest.mark.slow
def test_the_same_command_again_runs_nothing(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.glob("stages/*/done.json")}
    done = call(finished)
    assert done.returncode == 0
    assert "to run" not in done.stdout
    assert before == {p: p.stat().st_mtime_ns for p in finished.glob("stages/*/done.json")}


@pytest.mark.slow
def test_other_formats(finished: Path) -> None:
    for format, part in (("md", "| baseline |"), ("latex", r"\toprule"), ("json", '"schema": 4'), ("html", "<html")):
        done = call_bench("report", str(finished), "--format", format)
        assert done.returncode == 0, done.stderr
        assert part in done.stdout


@pytest.mark.slow
def test_check_and_bundle_of_a_real_run(finished: Path, tmp_path: Path) -> None:
    """Digits are compared with nothing; the bundle re-derives FID from the statistics of the cached features."""
    done = call_bench("check", str(finished))
    assert done.returncode == 3, done.stdout + done.stderr
    assert call_bench("bundle", str(finished), "--out", str(tmp_path / "b.zip"), "--samples").returncode == 0
    done = call_bench("verify", str(tmp_path / "b.zip"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("from feature statistics") == 4
    assert done.stdout.count("the samples that were scored are in") == 2


@pytest.mark.slow
def test_a_lost_run_stops_at_its_look_and_goes_on_if_asked(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "smoke"
    shutil.copytree(finished, out, ignore=shutil.ignore_patterns("sample-baseline-[!s]*", "score-*"))
    looks = ("--variant", "baseline", "--set", "score.tools=[adm]", "--set", "sample.looks=[130]")
    looks += ("--set", "sample.images=200", "--set", "variants.baseline.expected_fid=20")
    done = call(out, *looks, "--set", "sample.on_lost=stop")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = out.glob("stages/sample-baseline-[!s]*")
    assert len(list(folder.glob("shards/*.npz"))) == 3
    row = json.loads((out / "report" / "report.json").read_text())["rows"][0]
    assert row["verdict"]["status"] == "not finished"
    assert "after 130 of 200 images: cannot be reproduced any more" in row["verdict"]["reasons"][0]
    assert row["metrics"] == {}
    assert row["looks"][0]["images"] == 130
    assert "[sample-baseline] stops here" in done.stdout
    done = call(out, *looks, "--set", "sample.on_lost=go-on")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 50/50 [" in (folder / "log.txt").read_text()
    samples = np.load(folder / "samples.npz")["arr_0"]
    (before,) = finished.glob("stages/sample-baseline-[!s]*/samples.npz")
    assert np.array_equal(samples[:150], np.load(before)["arr_0"])
    assert "| cannot be reproduced any more |" in (out / "report" / "report.md").read_text()
    # The archive proves the scores of all images, not those of the first.
    assert call_bench("bundle", str(out), "--out", str(tmp_path / "b.zip")).returncode == 0
    assert call_bench("verify", str(tmp_path / "b.zip")).returncode == 0


@pytest.mark.slow
def test_a_terminated_run_continues_to_the_same_result(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "smoke"
    process = subprocess.Popen(
        command(out, "--until", "sample"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "train-baseline" in line and "to run" in line:
            break
    log = None
    while log is None or not log.read_text().count("\n") >= 2:
        time.sleep(0.05)
        log = next(iter(out.glob("stages/train-baseline-*/log.jsonl")), None)
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 75, rest
    assert not list(out.glob("stages/train-baseline-*/done.json"))
    done = call(out, "--until", "sample")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outputs(out) == outputs(finished)
