"""Provenance of a result: commit, package versions, hardware. Neither torch nor TensorFlow is imported."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict

from benchmark.machine.environment import REVISION, TENSORFLOW_PYTHON

PACKAGES = (
    "sra-bench",
    "torch",
    "accelerate",
    "diffusers",
    "tensorflow",
    "torch-fidelity",
    "clean-fid",
    "timm",
    "numpy",
    "scipy",
    "pillow",
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Source(_Record):
    """The checkout that ran."""

    commit: str | None = None
    dirty: bool | None = None
    """Whether something was not committed; None: not known."""


class Hardware(_Record):
    """The machine that ran."""

    model_config = ConfigDict(extra="allow")

    cpu: str = ""
    gpus: list[str] = []


class Session(_Record):
    """One invocation: when, from which source, with which packages, where."""

    created: str
    source: Source
    versions: dict[str, str | None] = {}
    hardware: Hardware
    assets: dict[str, str] = {}
    """SHA-256 of the downloaded files that were used, by name."""
    variables: dict[str, str] = {}
    """Environment variables that its jobs inherited and that can matter."""
    images: list[str] = []
    """Container images that its jobs ran in, whose package versions are theirs; empty: none."""


def collect() -> dict[str, Any]:
    """Commit of the suite, package versions and hardware of this machine, JSON-ready."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": source(Path(__file__).resolve().parents[2]),
        "versions": {"python": platform.python_version(), **versions()},
        "hardware": hardware(),
    }


def versions() -> dict[str, str | None]:
    """Installed version of each package that can change a number; None where it is absent."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    interpreter = os.environ.get(TENSORFLOW_PYTHON)
    if name == "tensorflow" and interpreter:
        sites = [str(site) for site in Path(interpreter).parents[1].glob("lib/python*/site-packages")]
        return next((d.version for d in metadata.distributions(name=name, path=sites)), None)
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB and GPUs of this machine."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _lines(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def source(root: Path) -> dict[str, Any]:
    """Commit of a checkout, and whether it has uncommitted changes; in an image, the commit it was built from."""
    if not (root / ".git").exists():
        return {"commit": os.environ.get(REVISION), "dirty": None}
    git = ["git", "-C", str(root)]
    commit = _lines([*git, "rev-parse", "HEAD"])
    if not commit:  # no git, or a checkout of another user, which git refuses
        return {"commit": None, "dirty": None}
    return {"commit": commit[0], "dirty": bool(_lines([*git, "status", "--porcelain"]))}


def revision(root: Path) -> str:
    """Commit of a checkout as images are labelled: `-dirty` is appended if there are uncommitted changes."""
    found = source(root)
    return (found["commit"] or "unknown") + ("-dirty" if found["dirty"] else "")


def _lines(command: list[str]) -> list[str]:
    """Output lines of a command; none if it is absent, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
