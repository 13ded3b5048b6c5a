"""What `sra-bench status` says, from the files that runner and jobs leave."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from benchmark.commands import status
from benchmark.plan.run_directory import write_json
from benchmark.plan.stages import ScoreJob, Stage
from benchmark.run.heartbeat import RunnerHeartbeat
from benchmark.run.runner import StageError
from sra.common.heartbeat import Heartbeat
from sra.config import UserError

STAGES = [("images", "images-1", "k1"), ("train-sra", "train-2", "k2"), ("sample-sra", "sample-3", "k3")]
JOB = ScoreJob(tool="adm", reference="x", graph="x")
TRAIN = Stage(name="train-sra", directory=Path("train-2"), key="k2", job=JOB)


def runner_of(path: Path) -> RunnerHeartbeat:
    return RunnerHeartbeat(path, [Stage(name=n, directory=Path(place), key=key, job=JOB) for n, place, key in STAGES])


@pytest.fixture
def pulse(tmp_path: Path) -> RunnerHeartbeat:
    """A run whose first stage is done and whose second has begun."""
    for _, place, key in STAGES[:2]:
        write_json(tmp_path / "stages" / place / "stage.json", {})
        if key == "k1":
            write_json(tmp_path / "stages" / place / "done.json", {"key": key, "outputs": {}})
    pulse = runner_of(tmp_path / "run.json")
    pulse.start([TRAIN])
    return pulse


def run_of(root: Path) -> dict:
    return json.loads((root / "run.json").read_text())


def change(root: Path, **values: object) -> None:
    write_json(root / "run.json", run_of(root) | values)


def states(root: Path, after: float = 0.0) -> list[str]:
    document = status.examine(root, run_of(root)["time"] + after)
    return [document.state, *(stage.state for stage in document.stages)]


def beat(root: Path, step: int) -> None:
    Heartbeat(root / "stages" / "train-2", 600, " steps").beat(step, 4.0)


def test_no_run(tmp_path: Path) -> None:
    for damaged in (None, "{", "{}"):
        if damaged:
            (tmp_path / "run.json").write_text(damaged)
        with pytest.raises(UserError, match=r"run\.json"):
            status.examine(tmp_path, 0.0)


def test_running_with_progress(pulse: RunnerHeartbeat, tmp_path: Path) -> None:
    assert states(tmp_path) == ["running", "done", "running", "waiting"]
    beat(tmp_path, 320)
    assert states(tmp_path) == ["running", "done", "running", "waiting"]
    text = status.show(tmp_path, as_json=False)
    assert "running, 1 of 3 stages done" in text
    assert "320 of 600 steps, 4 a second, 70 s left" in text
    row = json.loads(status.show(tmp_path, as_json=True))["stages"][1]
    assert (row["step"], row["total"], row["eta_seconds"], row["pid"]) == (320, 600, 70.0, os.getpid())


def test_a_job_without_progress_has_stalled(pulse: RunnerHeartbeat, tmp_path: Path) -> None:
    beat(tmp_path, 320)
    assert states(tmp_path, after=status.STALL_SECONDS + 5) == ["running", "done", "stalled", "waiting"]
    # A heartbeat of the attempt before says nothing about this one, which still imports its libraries.
    pulse.start([TRAIN])
    assert states(tmp_path, after=status.STALL_SECONDS + 5) == ["running", "done", "running", "waiting"]


def test_a_runner_that_was_killed(pulse: RunnerHeartbeat, tmp_path: Path) -> None:
    beat(tmp_path, 320)
    gone = subprocess.Popen(["true"])
    gone.wait()
    change(tmp_path, pid=gone.pid)
    assert states(tmp_path) == ["died", "done", "stopped", "waiting"]


def test_a_silent_runner_elsewhere(pulse: RunnerHeartbeat, tmp_path: Path) -> None:
    change(tmp_path, host="another")
    assert states(tmp_path) == ["running", "done", "running", "waiting"]
    assert states(tmp_path, after=status.SILENT_SECONDS + 1) == ["silent", "done", "stalled", "waiting"]


def test_stopped_failed_and_done(pulse: RunnerHeartbeat, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), pulse:
        raise KeyboardInterrupt
    assert states(tmp_path) == ["stopped", "done", "stopped", "waiting"]
    Heartbeat(tmp_path / "stages" / "train-2", 600, " steps").write("failed", "loss is nan")
    with pytest.raises(StageError), pulse:
        raise StageError("stage train-sra: loss is nan")
    assert states(tmp_path) == ["failed", "done", "failed", "waiting"]
    assert "stage train-sra: loss is nan" in status.show(tmp_path, as_json=False)
    with pulse:
        for _, place, key in STAGES:
            write_json(tmp_path / "stages" / place / "done.json", {"key": key, "outputs": {}})
    assert states(tmp_path) == ["done"] * 4


def test_a_disk_that_refuses_the_sign_of_life_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with runner_of(tmp_path / "file" / "run.json") as pulse:
        pulse.start([])
    Heartbeat(tmp_path / "file", 1, " steps").beat(1, None)


def test_stages_of_one_name_on_a_cluster_have_runners_of_their_own(tmp_path: Path) -> None:
    """Variants with different codecs both have a stage `latents`."""
    stages = [Stage(name="latents", directory=Path(f"latents-{n}"), key=f"k{n}", job=JOB) for n in (1, 2)]
    plan = [{"name": stage.name, "directory": stage.directory.name, "key": stage.key} for stage in stages]
    write_json(tmp_path / "plan.json", {"stages": plan})
    for stage in stages:
        write_json(tmp_path / "stages" / stage.directory / "stage.json", {})
    running, failed = (RunnerHeartbeat(tmp_path / "workers" / f"{s.directory}.json", [s]) for s in stages)
    failed.start(stages[1:])
    failed.write("failed", "stage latents: no disk")
    running.start(stages[:1])
    document = status.examine(tmp_path, running.since)
    assert [stage.state for stage in document.stages] == ["running", "failed"]
    assert (document.state, document.message) == ("failed", "stage latents: no disk")
