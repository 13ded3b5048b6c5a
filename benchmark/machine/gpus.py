"""Checks of GPU driver and container flags, with the fix for each. Torch-free."""

from __future__ import annotations

import os
from glob import glob
from importlib import metadata
from itertools import takewhile
from pathlib import Path

CONTAINER_FILES = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files that docker and podman put into every container."""
GPU_FILES = ("/proc/driver/nvidia/gpus/*", "/dev/nvidia[0-9]*", "/dev/dxg")
"""One file for each GPU: of the driver, absent in some sandboxes, and of the device; a container may see fewer of one
kind than of the other. The last is that of Windows, under WSL."""
AMD_GPU = Path("/dev/kfd")
"""Device of AMD's GPUs: torch may use them, but they are not counted."""
MIN_DRIVER_OF_CUDA = {11: 450, 12: 525, 13: 580}
"""Oldest major version of NVIDIA's Linux driver for each major version of CUDA (CUDA's release notes)."""
CUDA_PACKAGES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")
MIN_SHARED_MEMORY_BYTES = 2**30
"""Of /dev/shm, as NCCL's guide advises for several GPUs; docker gives 64 MB."""
NO_GPU = "no GPU is visible in this container: docker run --gpus all; podman run --device nvidia.com/gpu=all"


def visible_gpus() -> int:
    """Number of NVIDIA GPUs that a job may use."""
    present = min((len(found) for pattern in GPU_FILES if (found := glob(pattern))), default=0)  # noqa: PTH207 - cheap
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not present:
        return present
    # CUDA ignores the first name that it does not know and all after it; a UUID may be that of a part of a GPU.
    known = takewhile(
        lambda name: name.startswith(("GPU-", "MIG-")) or (name.isdigit() and int(name) < present),
        (part.strip() for part in chosen.split(",")),
    )
    return len(set(known))


def has_gpu() -> bool:
    """Whether a job may find a GPU."""
    return visible_gpus() > 0 or AMD_GPU.exists()


def absent_gpus() -> str | None:
    """One line if `CUDA_VISIBLE_DEVICES` names GPUs of which a job will find none or fewer; None otherwise."""
    named = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip() not in ("", "-1")]
    found = visible_gpus()
    if len(named) <= found or (not found and has_gpu()):
        return None
    return f"CUDA_VISIBLE_DEVICES={','.join(named)}: this machine has {found or 'none'} of these GPUs"


def warnings(gpus: list[str]) -> list[str]:
    """Problems of driver and container, one line each.

    Args:
        gpus: as nvidia-smi lists them: "name, driver version, memory".
    """
    cuda, inside = installed_cuda(), in_container()
    found = [driver_problem(gpus[0], cuda)] if gpus and cuda else []
    if inside and cuda and not gpus:
        found.append(NO_GPU)
    if inside and len(gpus) > 1:
        found.append(_shared_memory_problem())
    return [line for line in found if line]


def in_container() -> bool:
    """Whether this process runs in a container of docker or podman."""
    # With a read-only root podman hides its file, but sets the variable.
    return "container" in os.environ or any(path.exists() for path in CONTAINER_FILES)


def installed_cuda() -> int | None:
    """Major version of the CUDA libraries that torch was installed with; None where there are none."""
    for name in CUDA_PACKAGES:
        try:
            return int(metadata.version(name).partition(".")[0])
        except metadata.PackageNotFoundError:
            continue
    return None


def driver_problem(gpu: str, cuda: int) -> str:
    """One line if the driver of a GPU (as nvidia-smi lists it) is too old for a major version of CUDA, else empty."""
    driver = gpu.split(", ")[1]
    needed = MIN_DRIVER_OF_CUDA.get(cuda, max(MIN_DRIVER_OF_CUDA.values()))
    if int(driver.partition(".")[0]) >= needed:
        return ""
    return (
        f"the driver of this machine is {driver}, CUDA {cuda} needs {needed} or newer: update it, or build an image "
        "for an older CUDA (sra-bench images build --cuda, docs/containers.md)"
    )


def _shared_memory_problem() -> str:
    status = os.statvfs("/dev/shm")  # noqa: S108 - its size is what is asked
    size = status.f_frsize * status.f_blocks
    return "" if size >= MIN_SHARED_MEMORY_BYTES else f"/dev/shm holds {size / 1e6:.0f} MB: run with --shm-size 8g"  # noqa: S108
