"""The runner's heartbeat file, which `sra-bench status` reads.

OUT/run.json                  stages, those that are running, the runner's process and the time
OUT/workers/<name>-<key>.json the same for a runner of single stages (on a cluster)

The jobs write their own: see `sra.common.heartbeat`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmark.plan.stages import Stage
from sra.common.files import replacing

HEARTBEAT_SECONDS = 5.0
"""Between two writes."""


class RunnerHeartbeat:
    """Writes what the runner is doing; a disk that refuses the file does not stop the run."""

    def __init__(self, path: Path, stages: Sequence[Stage]) -> None:
        self.path = path
        self.stages = [{"name": s.name, "directory": s.directory.name, "key": s.key} for s in stages]
        self.current: list[str] = []
        self.since = time.time()

    def __enter__(self) -> Self:
        self.write("running")
        return self

    def __exit__(self, cls: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.write("ended")
        else:
            failed = isinstance(error, Exception) and str(error)
            self.write("failed" if failed else "stopped", str(error) or None)

    def start(self, stages: Sequence[Stage]) -> None:
        """Record that these stages are running now."""
        self.current, self.since = [stage.name for stage in stages], time.time()
        self.write("running")

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Write every few seconds, in a thread, for as long as the block takes."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                self.write("running")

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def write(self, state: str, message: str | None = None) -> None:
        """Write at once.

        Args:
            state: `running`, `ended`, `stopped` or `failed`.
            message: why it failed.
        """
        runner = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), "since": self.since}
        document = {"schema": 1, "state": state, "message": message, **runner}
        document |= {"current": self.current, "stages": self.stages}
        with contextlib.suppress(OSError), replacing(self.path, durable=False) as temporary:
            temporary.write_text(json.dumps(document) + "\n", encoding="utf-8")
