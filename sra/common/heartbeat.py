"""Heartbeat of a job: `heartbeat.json` in its stage directory, read by `sra-bench status`. Torch-free."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from sra.common.files import replacing

NAME = "heartbeat.json"
INTERVAL_SECONDS = 5.0
"""Shortest time between two writes."""


class Heartbeat:
    """Writes progress at most every few seconds; a failed write does not stop the job."""

    def __init__(self, folder: Path, total: int, unit: str) -> None:
        self.path, self.total, self.unit = folder / NAME, total, unit.strip()
        self.written = -INTERVAL_SECONDS
        self.last: dict[str, Any] = {}

    def beat(self, step: int, rate: float | None) -> None:
        """Record the progress, at most every few seconds.

        Args:
            step: units done.
            rate: units per second; None while unknown.
        """
        left = (self.total - step) / rate if rate else None
        self.last = {"step": step, "total": self.total, "unit": self.unit, "rate": rate, "eta_seconds": left}
        if time.monotonic() - self.written >= INTERVAL_SECONDS or step >= self.total:
            self.write("running")

    def write(self, state: str, message: str | None = None) -> None:
        """Write immediately.

        Args:
            state: `running`, `ended`, `stopped` (on request, work saved) or `failed`.
            message: why it failed.
        """
        self.written = time.monotonic()
        source = {"time": time.time(), "pid": os.getpid(), "host": socket.gethostname()}
        document = {"schema": 1, "state": state, **self.last, **source, "message": message}
        with contextlib.suppress(OSError), replacing(self.path, durable=False) as temporary:
            temporary.write_text(json.dumps(document) + "\n", encoding="utf-8")
