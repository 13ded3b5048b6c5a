"""Checks before a job is started in a container: each problem is one line with its fix."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from benchmark.containers.build import SHORT_REVISION
from benchmark.containers.engine import COMMAND_SECONDS, EngineError, Image, call, reason
from benchmark.machine import provenance
from benchmark.machine.environment import GRACE_SECONDS
from benchmark.machine.gpus import MIN_SHARED_MEMORY_BYTES, driver_problem

PROBE = (
    "import glob, json, os, shutil, sys; "
    "print(json.dumps({'gpus': len(glob.glob('/dev/nvidia[0-9]*') + glob.glob('/dev/dxg')), "
    "'shared_memory': shutil.disk_usage('/dev/shm').total, "
    "'writable': os.access(sys.argv[1], os.W_OK), 'uid': os.getuid()}))"
)
"""Python code that prints, inside a container, what `Probe` records."""
GPU_FIXES = {
    "docker": "install the NVIDIA Container Toolkit",
    "podman": "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` tells podman of them",
    "apptainer": "--nv found no driver",
}


@dataclass(frozen=True)
class Probe:
    """What a job would find inside a container."""

    gpus: int
    shared_memory: int
    """Bytes."""
    writable: bool
    """Whether the run directory is."""
    uid: int


def check_revision(reference: str, image: Image) -> None:
    """Refuse an image made from other source than this suite, if both revisions are known.

    Raises:
        EngineError: they differ.
    """
    found, here = image.revision or "unknown", suite_revision()
    if "unknown" not in (found, here) and found != here:
        name = reference.rpartition("/")[2].partition(":")[0]
        raise EngineError(
            f"{reference}: made from revision {found[:SHORT_REVISION]}, this suite is {here[:SHORT_REVISION]}; "
            f"`sra-bench images build {name}` makes it anew, --container other_revision=true accepts it"
        )


def suite_revision() -> str:
    """Revision of this suite, as `images build` writes it into an image."""
    return provenance.revision(Path(__file__).resolve().parents[2])


def remove_leftover(engine: str, name: str) -> None:
    """Stop the container of a run that died, so that it saves its work, and remove it.

    Raises:
        EngineError: it cannot be removed.
    """
    if call(engine, "container", "inspect", name).returncode != 0:
        return
    print(f"container {name} of the run before is still there: stopping it", flush=True)
    call(engine, "stop", "-t", f"{GRACE_SECONDS:.0f}", name, timeout=GRACE_SECONDS + COMMAND_SECONDS)
    call(engine, "rm", "-f", name)
    # It may have removed itself meanwhile: what counts is that it is gone.
    if call(engine, "container", "inspect", name).returncode == 0:
        raise EngineError(f"container {name} of the run before is still there: `{engine} rm -f {name}`")


def check_driver(reference: str, image: Image) -> None:
    """Compare this machine's driver with the image's CUDA, if both are known.

    Raises:
        EngineError: the driver is too old.
    """
    cuda = re.fullmatch(r"cu(\d\d)\d*", image.cuda or "")
    gpus = provenance.hardware()["gpus"]
    if cuda and gpus and (problem := driver_problem(gpus[0], int(cuda[1]))):
        raise EngineError(f"{reference}: {problem}")


def check_inside(start: list[str], directory: Path, gpus: int, processes: int) -> None:
    """Start a container like the job's and look at what the job would find.

    Args:
        start: the engine's command line up to the image.
        directory: the run directory, which must be writable.
        gpus: visible outside.
        processes: of the job.

    Raises:
        EngineError: it does not start, no GPU inside, too little shared memory, or no permission to write.
    """
    engine, found = start[0], probe(tuple(start), str(directory))
    if not found.writable:
        raise EngineError(f"--out {directory}: not writable inside the container by uid {found.uid}")
    if gpus and not found.gpus:
        raise EngineError(f"{engine}: {gpus} GPUs on this machine, none inside a container; {GPU_FIXES[engine]}")
    if gpus and processes > 1 and found.shared_memory < MIN_SHARED_MEMORY_BYTES:
        raise EngineError(
            f"shared memory: {found.shared_memory / 2**20:.0f} MiB inside the container, {processes} GPUs need "
            f"{MIN_SHARED_MEMORY_BYTES / 2**20:.0f}; give --container shared_memory=8g"
        )


@functools.cache
def probe(start: tuple[str, ...], directory: str) -> Probe:
    """Run the probe in a container started so; each is asked once.

    Raises:
        EngineError: it does not start.
    """
    done = call(*start, "python", "-c", PROBE, directory)
    if done.returncode != 0:
        raise EngineError(f"{start[0]}: a container of {start[-1]} does not start: {reason(done)}")
    return Probe(**json.loads(done.stdout.strip().splitlines()[-1]))
