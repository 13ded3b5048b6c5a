"""Processes that end together with their parent, and how many of them have a core to run on."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Option of Linux's `prctl`: the signal that a process gets when its parent dies."""


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, however that happens (Linux)."""
    ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def usable_cores() -> int:
    """Cores that this process may use: of its affinity, and no more than the quota of its control groups (Linux)."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *map(math.ceil, _quotas(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))]))


def _quotas(mount: Path, membership: Path) -> Iterator[float]:
    """Quotas in cores of a process's control groups and all above them, versions 1 and 2.

    Args:
        mount: where the groups are mounted.
        membership: the kernel's file with lines `hierarchy:controllers:path`.
    """
    lines = []
    with contextlib.suppress(OSError):
        lines = membership.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container, the path may be the host's: then only the mount itself is there.
        group = Path(path.strip("/"))
        for place in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):
                if controllers:
                    folder = mount / "cpu" / place
                    quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                else:
                    quota, period = (mount / place / "cpu.max").read_text().split()
                if float(quota) > 0:
                    yield float(quota) / float(period)
