"""What is checked before a container is trusted with a job: each trouble is one line with its remedy."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.containers.build import CUDA_LABEL, LABEL, SHORT, present
from benchmark.containers.engine import EngineError, labels_of
from benchmark.machine import provenance
from benchmark.machine.gpus import MIN_SHARED_MEMORY_BYTES, driver_problem

PROBE = (
    "import glob, json, os, shutil, sys; "
    "print(json.dumps({'gpus': len(glob.glob('/dev/nvidia[0-9]*') + glob.glob('/dev/dxg')), "
    "'shared_memory': shutil.disk_usage('/dev/shm').total, "
    "'writable': os.access(sys.argv[1], os.W_OK), 'uid': os.getuid()}))"
)
"""Run inside: what the job would find."""
REMEDIES = {
    "docker": "install the NVIDIA Container Toolkit",
    "podman": "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` tells podman of them",
    "apptainer": "--nv found no driver",
}
"""For GPUs that are not there inside."""
START_SECONDS = 300.0
"""For a container that only looks around; the first start of an image may copy it."""


@dataclass(frozen=True)
class Preflight:
    """Questions to one engine about one image."""

    engine: str
    image: str

    def image_is_there(self) -> dict[str, str]:
        """Labels of the image; one that is absent is not pulled.

        Raises:
            EngineError: it is absent, or the engine does not answer.
        """
        if self.engine != "apptainer":
            return labels_of(present(self.engine, self.image))
        if not Path(self.image).is_file():
            raise EngineError(f"{self.image}: no such file; `apptainer build` makes it, see containers/apptainer.def")
        return {}

    def revision_fits(self, labels: dict[str, str]) -> None:
        """Refuse an image made from other source than this suite, where both are known: they would not agree.

        Raises:
            EngineError: they differ.
        """
        found, here = labels.get(f"{LABEL}.revision", "unknown"), revision()
        if "unknown" not in (found, here) and found != here:
            name = self.image.rpartition("/")[2].partition(":")[0]
            raise EngineError(
                f"{self.image}: made from revision {found[:SHORT]}, this suite is {here[:SHORT]}; "
                f"`sra-bench images build {name}` makes it anew, --container other_revision=true takes it as it is"
            )

    def no_leftover(self, name: str, grace: float) -> None:
        """Have the container of a run that died save its work, and remove it.

        Args:
            name: of the container.
            grace: seconds that it may take to save.

        Raises:
            EngineError: it cannot be removed.
        """
        if call([self.engine, "container", "inspect", name]).returncode != 0:
            return
        print(f"container {name} of the run before is still there: stopping it", flush=True)
        call([self.engine, "stop", "-t", f"{grace:.0f}", name], grace + START_SECONDS)
        call([self.engine, "rm", "-f", name])
        # It may have removed itself meanwhile: what counts is that it is gone.
        if call([self.engine, "container", "inspect", name]).returncode == 0:
            raise EngineError(f"container {name} of the run before is still there: `{self.engine} rm -f {name}`")

    def driver_fits(self, labels: dict[str, str]) -> None:
        """Compare this machine's driver with the image's CUDA, where both are known.

        Raises:
            EngineError: the driver is too old.
        """
        cuda = re.fullmatch(r"cu(\d\d)\d*", labels.get(CUDA_LABEL) or "")
        gpus = provenance.hardware()["gpus"]
        if cuda is None or not gpus:
            return
        trouble = driver_problem(gpus[0], int(cuda[1]))
        if trouble:
            raise EngineError(f"{self.image}: {trouble}")

    def inside(self, start: list[str], directory: Path, gpus: int, processes: int) -> None:
        """Start a container like the job's and look around in it.

        Args:
            start: the engine's command line up to the image.
            directory: that must be writable.
            gpus: visible outside.
            processes: of the job.

        Raises:
            EngineError: no start, no GPU inside, too little shared memory, or no right to write.
        """
        found = look(tuple(start), str(directory))
        if not found["writable"]:
            raise EngineError(f"--out {directory}: not writable inside the container by uid {found['uid']}")
        if gpus and not found["gpus"]:
            remedy = REMEDIES[self.engine]
            raise EngineError(f"{self.engine}: {gpus} GPUs on this machine, none inside a container; {remedy}")
        size = found["shared_memory"]
        if gpus and processes > 1 and size < MIN_SHARED_MEMORY_BYTES:
            raise EngineError(
                f"shared memory: {size / 2**20:.0f} MiB inside the container, {processes} GPUs need "
                f"{MIN_SHARED_MEMORY_BYTES / 2**20:.0f}; give --container shared_memory=8g"
            )


def revision() -> str:
    """This suite's, as `images build` writes it into an image."""
    return provenance.revision(Path(__file__).resolve().parents[2])


def call(command: list[str], timeout: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a short command of the engine.

    Raises:
        EngineError: it does not answer.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{command[0]} {command[1]}: no answer within {timeout:.0f} s") from error


@functools.cache
def look(start: tuple[str, ...], directory: str) -> dict[str, Any]:
    """What a container started so finds; asked once.

    Raises:
        EngineError: it does not start.
    """
    done = call([*start, "python", "-c", PROBE, directory])
    if done.returncode != 0:
        raise EngineError(f"{start[0]}: a container of {start[-1]} does not start: {reason(done)}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """Of an engine's words the first line that names an error: docker ends with advice."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or [f"exit code {done.returncode}"])[0]
