"""`run --executor container` with podman: each stage in its image, nothing left of a run that was killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = ["train.steps=40", "train.milestones=[]", "train.checkpoint_every=20", "sample.steps=6", "sample.images=60"]
SETTINGS += ["sample.batch=30", "sample.shard=30"]
RUN = ["run", "manifests/smoke.yaml", "--variant", "sra", *(part for item in SETTINGS for part in ("--set", item))]
CONTAINERS = ["--executor", "container", "--container", "engine=podman", "--container", "tag=ci"]


def names(engine) -> list[str]:
    return engine.podman("ps", "--all", "--format", "{{.Names}}").stdout.split()


def test_each_stage_runs_in_its_image(built, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # Two processes find each other without a network, too.
    done = built.bench(*RUN, "--out", str(out), *CONTAINERS, "--processes", "2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    records = {
        path.parent.name.rpartition("-")[0]: json.loads(path.read_text()) for path in out.glob("stages/*/stage.json")
    }
    images = {name: next(word for word in record["argv"] if word.endswith(":ci")) for name, record in records.items()}
    assert images.pop("score-adm-sra") == "localhost/sra-bench/evaluator:ci"
    assert set(images.values()) == {"localhost/sra-bench/trainer:ci"}
    assert len(list(out.glob("stages/*/done.json"))) == len(records)
    assert (out / "report" / "report.html").is_file()
    assert names(built) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_stopped_and_a_killed_run_continue(built, tmp_path: Path, number: signal.Signals) -> None:
    """The runner's end reaches the container either way: its client is told to stop when the runner dies."""
    out = tmp_path / "run"
    words = [sys.executable, "-m", "benchmark.cli.main", *RUN, "--set", "train.steps=200", "--until", "train"]
    words += ["--out", str(out), *CONTAINERS]
    process = subprocess.Popen(words, env=built.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[train-sra] speed"):
            break
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    done = subprocess.run(words, env=built.environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "continues at step" in done.stdout
    deadline = time.monotonic() + 30
    while names(built) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert names(built) == []
