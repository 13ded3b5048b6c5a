"""What a container or driver withholds from the jobs, and the option that gives it."""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files by which docker and podman mark their containers."""
DRIVERS = {11: 450, 12: 525, 13: 580}
"""Oldest major version of NVIDIA's Linux driver that runs a generation of CUDA (CUDA's release notes)."""
RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")
SHARED_MEMORY = 2**30
"""Bytes of /dev/shm that NCCL's guide advises for several GPUs; docker gives 64 MB."""
NO_GPU = "no GPU is visible in this container: docker run --gpus all; podman run --device nvidia.com/gpu=all"

FRAMEWORKS = {"torch": "trainer", "tensorflow": "evaluator"}
"""And the image that has it, beside `all`."""
ABSENT = re.compile(r"^ModuleNotFoundError: No module named '(\w+)", re.MULTILINE)


def absent_framework(errors: str) -> str | None:
    """One line for a job that ended for want of torch or TensorFlow; None where it did not.

    Args:
        errors: what the job printed as it ended.
    """
    found = next((name for name in ABSENT.findall(errors) if name in FRAMEWORKS), None)
    return found and f"no {found} in this environment; the images {FRAMEWORKS[found]} and all have it"


def warnings(gpus: list[str]) -> list[str]:
    """What is lacking, in one line each.

    Args:
        gpus: what the driver lists: name, version of the driver, memory.
    """
    cuda, inside = cuda_generation(), contained()
    found = [driver_trouble(gpus[0], cuda)] if gpus and cuda else []
    if inside and cuda and not gpus:
        found.append(NO_GPU)
    if inside and len(gpus) > 1:
        found.append(_shared_memory())
    return [line for line in found if line]


def contained() -> bool:
    """Whether this runs in a container of docker or podman."""
    # With a read-only root podman hides its file, but says so in the environment.
    return "container" in os.environ or any(mark.exists() for mark in MARKS)


def cuda_generation() -> int | None:
    """Major version of the CUDA libraries that torch was installed with; None where there are none."""
    for name in RUNTIMES:
        try:
            return int(metadata.version(name).partition(".")[0])
        except metadata.PackageNotFoundError:
            continue
    return None


def driver_trouble(gpu: str, cuda: int) -> str:
    """One line where the driver of a GPU, as it lists it, is too old for a generation of CUDA; empty where not."""
    driver = gpu.split(", ")[1]
    needed = DRIVERS.get(cuda, max(DRIVERS.values()))
    if int(driver.partition(".")[0]) >= needed:
        return ""
    return (
        f"the driver of this machine is {driver}, CUDA {cuda} needs {needed} or newer: update it, or build an image "
        "for an older generation (sra-bench images build --cuda, docs/containers.md)"
    )


def _shared_memory() -> str:
    status = os.statvfs("/dev/shm")  # noqa: S108 - its size is what is asked
    size = status.f_frsize * status.f_blocks
    return "" if size >= SHARED_MEMORY else f"/dev/shm holds {size / 1e6:.0f} MB: run with --shm-size 8g"  # noqa: S108
