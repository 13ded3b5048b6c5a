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
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmark.plan.stages import Stage
from sra.common.files import replacing
from sra.common.validation import sound_record

HEARTBEAT_SECONDS = 5.0
"""Between two writes."""


@dataclass(frozen=True, kw_only=True)
class RunnerStage:
    """A stage as a runner names it."""

    name: str
    directory: str
    """Name of its directory."""
    key: str


@dataclass(frozen=True, kw_only=True)
class RunnerRecord:
    """The document of the heartbeat file."""

    schema: int = 1
    state: str
    """`running`, `ended`, `stopped` or `failed`."""
    message: str | None = None
    """Why it failed."""
    pid: int | None = None
    host: str | None = None
    time: float = 0.0
    """Of this record, in seconds since 1970."""
    since: float = 0.0
    """Start of the current stages."""
    current: tuple[str, ...] = ()
    """Names of the stages that run now."""
    stages: tuple[RunnerStage, ...] = ()


def read_runner(path: Path) -> RunnerRecord | None:
    """Read a heartbeat file; None if it is absent or damaged."""
    return sound_record(RunnerRecord, path)


class RunnerHeartbeat:
    """Writes what the runner is doing; a disk that refuses the file does not stop the run."""

    def __init__(self, path: Path, stages: Sequence[Stage]) -> None:
        self.path = path
        self.stages = tuple(RunnerStage(name=s.name, directory=s.directory.name, key=s.key) for s in stages)
        self.current: tuple[str, ...] = ()
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
        self.current, self.since = tuple(stage.name for stage in stages), time.time()
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
        record = RunnerRecord(
            state=state,
            message=message,
            pid=os.getpid(),
            host=socket.gethostname(),
            time=time.time(),
            since=self.since,
            current=self.current,
            stages=self.stages,
        )
        with contextlib.suppress(OSError), replacing(self.path, durable=False) as temporary:
            temporary.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
