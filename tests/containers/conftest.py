"""The images, built and run by podman on a stand-in for the base image that is made from Debian's packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.containers.build import reference_of

ROOT = Path(__file__).parents[2]
NEEDED = ("podman", "buildah", "runc", "mmdebstrap", "catatonit")
CLOSED = [
    *("--network", "none", "--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "all", "--security-opt", "no-new-privileges"),
]
# Arithmetic that a machine chooses must be chosen inside, too.
ARITHMETIC = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.containers)
            item.add_marker(pytest.mark.timeout(1800))


class Engine:
    """podman with a store of its own, and the suite's images in it."""

    def __init__(self, environment: dict[str, str], base: str) -> None:
        self.base = base
        self.environment = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}

    def bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The suite's command line on this machine."""
        command = [sys.executable, "-m", "benchmark.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False, cwd=ROOT)

    def podman(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["podman", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=self.environment, check=False, input=stdin, cwd=ROOT
        )

    def run(self, name: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """A command in an image, as on a closed machine."""
        passed = [part for key in ARITHMETIC if key in os.environ for part in ("--env", key)]
        return self.podman("run", "--rm", *CLOSED, *passed, *options, image(name), *command)


def image(name: str) -> str:
    return reference_of(name, "ci")


@pytest.fixture(scope="session")
def engine() -> Engine:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (Debian: apt-get install {' '.join(NEEDED)})")
    if os.getuid() != 0:
        pytest.skip("the stand-in for the base image is made as root")
    done = subprocess.run([sys.executable, "containers/ci/standin.py"], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 0, "the stand-in for the base image could not be made"
    environment = dict(line.split("=", 1) for line in done.stdout.splitlines())
    return Engine(environment, environment.pop("BASE"))


@pytest.fixture(scope="session")
def built(engine: Engine) -> Engine:
    """The three images, of this checkout."""
    options = ["--base", engine.base, "--option=--network=host", "--option=--pull=never"]
    done = engine.bench("images", "build", "--engine", "podman", "--tag", "ci", *options)
    # What an earlier build left: the store keeps one set of images.
    engine.podman("image", "prune", "--force")
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return engine


@pytest.fixture
def mounted(tmp_path: Path):
    """A folder that a container's user owns, and the option that mounts it where runs go."""

    def make(uid: int = 1000) -> tuple[Path, tuple[str, ...]]:
        place = tmp_path / "mounted"
        place.mkdir()
        os.chown(place, uid, uid)
        # pytest's own folders are closed to others.
        for parent in (tmp_path, *tmp_path.parents[:3]):
            if parent.stat().st_mode & 0o5 != 0o5:
                parent.chmod(0o755)
        return place, ("--volume", f"{place}:/sra-bench/runs")

    return make
