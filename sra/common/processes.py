"""Processes that end together with their parent; cores and memory that this one may use."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
"""Option of Linux's `prctl`: the signal that a process gets when its parent dies."""
GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where the control groups are mounted, and the file that names this process's."""


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, however that happens (Linux)."""
    ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def usable_cores() -> int:
    """Cores that this process may use: of its affinity, and no more than the quota of its control groups (Linux)."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *map(math.ceil, _quotas(*GROUPS))]))


def free_memory() -> int:
    """Bytes that this process may still use: free on this machine, and within its control groups' limits (Linux)."""
    free: int = psutil.virtual_memory().available
    return min([free, *_room(*GROUPS)])


def _quotas(mount: Path, membership: Path) -> Iterator[float]:
    """Quotas in cores of a process's control groups; arguments as of `_groups`."""
    for folder, first_version in _groups(mount, membership, "cpu"):
        with contextlib.suppress(OSError, ValueError):
            if first_version:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            else:
                quota, period = (folder / "cpu.max").read_text().split()
            if float(quota) > 0:
                yield float(quota) / float(period)


def _room(mount: Path, membership: Path) -> Iterator[int]:
    """Bytes up to the limits of a process's control groups; arguments as of `_groups`."""
    for folder, first_version in _groups(mount, membership, "memory"):
        limit, used = ("limit_in_bytes", "usage_in_bytes") if first_version else ("max", "current")
        prefix = "total_" if first_version else ""
        with contextlib.suppress(OSError, ValueError):
            room = int((folder / f"memory.{limit}").read_text()) - int((folder / f"memory.{used}").read_text())
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            # Pages of files count as used, but the kernel drops them first.
            yield room + sum(int(counts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))


def _groups(mount: Path, membership: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Folders of a process's control groups and all above them, and whether they are of version 1.

    Args:
        mount: where the groups are mounted.
        membership: the kernel's file with lines `hierarchy:controllers:path`.
        controller: what the groups limit.
    """
    lines = []
    with contextlib.suppress(OSError):
        lines = membership.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # In a container, the path may be the host's: then only the mount itself is there.
        group = Path(path.strip("/"))
        for place in (group, *group.parents):
            yield (mount / controller / place if controllers else mount / place), bool(controllers)
