"""Real runs of the smoke manifest at a reduced scale, to be killed, starved and compared."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "train.steps=40",
    "train.milestones=[15]",
    "train.checkpoint_every=5",
    "train.log_every=1",
    "sample.steps=6",
    "sample.images=150",
    "sample.milestone_images=100",
    "sample.shard=25",
    "sample.batch=25",
    "score.tools=[adm, clean-fid]",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(1800))


def command(out: Path, *extra: str) -> list[str]:
    settings = [part for item in SETTINGS for part in ("--set", item)]
    start = [sys.executable, "-m", "benchmark.cli.main", "run", "manifests/smoke.yaml", "--variant", "sra"]
    return [*start, "--out", str(out), "--until", "score", *settings, *extra]


class Attempt:
    """One start of the same command; its output goes to a file, so that nobody has to read it in time."""

    def __init__(self, out: Path, *extra: str, file_limit: int | None = None) -> None:
        self.out = out
        self.log = out.parent / f"{out.name}.output"
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))) if file_limit else None
        with self.log.open("w") as handle:
            self.process = subprocess.Popen(
                command(out, *extra),
                stdout=handle,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                preexec_fn=limit,
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, condition, seconds: float = 300.0) -> bool:
        """Whether the condition came true before the command ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if condition():
                return True
            time.sleep(0.02)
        return False

    def starts(self, kind: str) -> bool:
        """Wait until a stage of a kind begins."""
        return self.wait_for(lambda: re.search(rf"^\[{kind}\S*\] to run", self.text(), re.MULTILINE))

    def refused(self) -> str:
        """The one line of a command that ends with exit code 2."""
        assert self.process.wait(timeout=300) == 2, self.text()
        lines = [line for line in self.text().splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.text()
        return lines[0]

    def succeeds(self) -> None:
        assert self.process.wait(timeout=600) == 0, self.text()


def children(process: int) -> list[int]:
    """Direct children of a process."""
    return [child.pid for child in psutil.Process(process).children()]


def kill(processes: list[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def results(out: Path) -> dict[str, object]:
    """Weights to the bit, pixels, and every score."""
    found: dict[str, object] = {}
    for path in sorted(out.glob("stages/*/weights/*.safetensors")):
        found[str(path.relative_to(out))] = path.read_bytes()
    for path in sorted(out.glob("stages/sample-*/samples.npz")):
        found[str(path.relative_to(out))] = np.load(path)["arr_0"].tobytes()
    for path in sorted(out.glob("stages/score-*/scores.json")):
        record = json.loads(path.read_text())
        found[str(path.relative_to(out))] = (record["metrics"], record["samples"]["sha256"])
    return found


def rows(out: Path) -> list[dict[str, float]]:
    """What the training log holds so far."""
    log = next(iter(out.glob("stages/train-*/log.jsonl")), None)
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")] if log else []


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "run"
    Attempt(out).succeeds()
    return out


@pytest.fixture
def copy(uninterrupted: Path, tmp_path: Path):
    """A finished run without the stages and folders of the given names."""

    def make(*without: str) -> Path:
        out = tmp_path / "run"
        shutil.copytree(uninterrupted, out)
        for name in without:
            for place in out.glob(name):
                shutil.rmtree(place)
        return out

    return make


@pytest.fixture(scope="session")
def suite():
    """The helpers above, for test modules."""
    helpers = (Attempt, children, command, kill, results, rows)
    return type("suite", (), {helper.__name__: staticmethod(helper) for helper in helpers})
