"""What is checked before a container is trusted with a job: each trouble is one line with its remedy."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sra.errors import UserError

CUDA_LABEL = "org.sra-bench.cuda"
"""Label of an image: generation of its CUDA, such as cu130; images without one need no driver."""
DRIVERS = {13: "580.65.06", 12: "525.60.13", 11: "450.80.02"}
"""Oldest driver on Linux by major version of CUDA. Source: NVIDIA, CUDA Compatibility, minor version compatibility."""
SHARED_MEMORY_EACH = 64 * 2**20
"""Bytes of /dev/shm that each of several processes is allowed for its buffers; an allowance, not a measurement."""
PROBE = (
    "import glob, json, os, shutil, sys; "
    "print(json.dumps({'gpus': len(glob.glob('/dev/nvidia[0-9]*') + glob.glob('/dev/dxg')), "
    "'shared_memory': shutil.disk_usage('/dev/shm').total, "
    "'writable': os.access(sys.argv[1], os.W_OK), 'uid': os.getuid()}))"
)
"""Run inside: what the job would find."""
ABSENT = re.compile(r"no such (image|object|container)|not known|not found|does not exist", re.IGNORECASE)


@dataclass(frozen=True)
class Preflight:
    """Questions to one engine about one image."""

    engine: str
    image: str
    role: str

    def image_is_there(self) -> None:
        """Refuse an image that would have to be pulled.

        Raises:
            UserError: it is absent, or the engine does not answer.
        """
        if self.engine == "apptainer":
            if not Path(self.image).is_file():
                raise UserError(f"image {self.image}: no such file; {self._remedy()}")
            return
        done = ask([self.engine, "image", "inspect", self.image])
        if done.returncode != 0:
            if ABSENT.search(done.stderr):
                raise UserError(f"image {self.image}: {self.engine} does not have it; {self._remedy()}")
            raise UserError(f"{self.engine}: {said(done)}")

    def _remedy(self) -> str:
        if self.engine == "apptainer":
            return f"`apptainer build {self.image} containers/apptainer.def` builds it"
        return f"`sra-bench images build {self.role}` builds it"

    def no_leftover(self, name: str, grace: float) -> None:
        """Have the container of a run that died save its work, and remove it.

        Args:
            name: of the container.
            grace: seconds that it may take to save.

        Raises:
            UserError: it cannot be removed.
        """
        if ask([self.engine, "container", "inspect", name]).returncode != 0:
            return
        print(f"container {name} of the run before is still there: stopping it", flush=True)
        ask([self.engine, "stop", "-t", f"{grace:.0f}", name], timeout=grace + 60)
        done = ask([self.engine, "rm", "-f", name])
        if done.returncode != 0 and not ABSENT.search(done.stderr):
            raise UserError(f"{self.engine}: container {name} cannot be removed: {said(done)}")

    def driver_fits(self) -> None:
        """Compare this machine's driver with the image's CUDA, where both are known.

        Raises:
            UserError: the driver is too old.
        """
        cuda = re.fullmatch(r"cu(\d{2})\d*", self._labels().get(CUDA_LABEL) or "")
        oldest = DRIVERS.get(int(cuda[1])) if cuda else None
        driver = driver_version()
        if oldest and driver and numbers(driver) < numbers(oldest):
            assert cuda is not None
            raise UserError(
                f"image {self.image}: CUDA {cuda[1]} needs driver {oldest} or newer, this machine has {driver}; "
                "take an image of an older CUDA, see docs/containers.md"
            )

    def _labels(self) -> dict[str, str]:
        if self.engine == "apptainer":
            return {}
        document = json.loads(ask([self.engine, "image", "inspect", self.image]).stdout or "[]")
        config = document[0].get("Config") or {} if document else {}
        labels: dict[str, str] = config.get("Labels") or {}
        return labels

    def inside(self, start: list[str], directory: Path, gpus: int, processes: int) -> None:
        """Start a container like the job's and look around in it.

        Args:
            start: the engine's command line up to the image.
            directory: that must be writable.
            gpus: visible outside.
            processes: of the job.

        Raises:
            UserError: no start, no GPU inside, too little shared memory, or no right to write.
        """
        found = look(tuple(start), str(directory))
        if not found["writable"]:
            raise UserError(f"--out {directory}: not writable inside the container by uid {found['uid']}")
        if gpus and not found["gpus"]:
            raise UserError(
                f"{self.engine}: {gpus} GPUs on this machine, none inside a container; {self._gpu_remedy()}"
            )
        needed = SHARED_MEMORY_EACH * processes
        if processes > 1 and found["shared_memory"] < needed:
            raise UserError(
                f"shared memory: {found['shared_memory'] / 2**20:.0f} MiB inside the container, {processes} processes "
                f"need {needed / 2**20:.0f}; give --container shared_memory=SIZE"
            )

    def _gpu_remedy(self) -> str:
        if self.engine == "podman":
            return "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` tells podman of them"
        return (
            "install the NVIDIA Container Toolkit" if self.engine == "docker" else "`--nv` needs the host's libraries"
        )


def ask(command: list[str], timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a short command of the engine.

    Raises:
        UserError: it does not answer.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{command[0]} {command[1]}: no answer within {timeout:.0f} s") from error


@functools.cache
def look(start: tuple[str, ...], directory: str) -> dict[str, Any]:
    """What a container started so finds; once an image.

    Raises:
        UserError: it does not start.
    """
    done = ask([*start, "python", "-c", PROBE, directory])
    if done.returncode != 0:
        raise UserError(f"{start[0]}: a container of {start[-1]} does not start: {said(done)}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The line of an engine's words that says most: the first that names an error, else the last."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "cannot" in line.lower()]
    return (errors or lines[-1:] or [f"exit code {done.returncode}"])[0]


def driver_version() -> str | None:
    """Of the NVIDIA driver; None where nobody tells."""
    try:
        done = ask(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    except FileNotFoundError:
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def numbers(version: str) -> tuple[int, ...]:
    """A version to compare."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
