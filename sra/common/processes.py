"""Processes that end together with their parent."""

from __future__ import annotations

import ctypes
import signal

PR_SET_PDEATHSIG = 1
"""Option of Linux's `prctl`: the signal that a process gets when its parent dies."""


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, however that happens (Linux)."""
    ctypes.CDLL("libc.so.6").prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
