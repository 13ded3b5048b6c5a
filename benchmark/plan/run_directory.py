"""The run directory: paths, stage keys, which stages are done, and the lock against a second runner.

OUT/manifest.resolved.yaml, provenance.json
OUT/stages/<name>-<key>/   stage.json, log.txt, outputs, done.json (written last)
OUT/inputs/                names and sizes of the files of each input, see `benchmark.plan.inputs`
OUT/report/                report.json, report.md, report.html
OUT/workers/               heartbeat files of runners of single stages (on a cluster)
OUT/cluster/               jobs.json, and each job's batch script and log
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from sra.common.files import read_json, without, write_json
from sra.config import UserError

__all__ = ["RunDirectory", "key_of", "read_json", "write_json"]


LOCK_WAIT_SECONDS = 120.0
"""How long a run waits for the jobs of a dead runner, which save their work first."""


PLAN = "plan.json"
IN_RUN = "run:"
"""Before a path relative to the run directory."""


class StoreError(UserError):
    """A run directory that cannot be used."""


def key_of(document: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON form."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def mapped(document: Any, change: Callable[[str], str]) -> Any:
    """The JSON document with every string in it changed."""
    if isinstance(document, dict):
        return {name: mapped(value, change) for name, value in document.items()}
    if isinstance(document, list):
        return [mapped(value, change) for value in document]
    return change(document) if isinstance(document, str) else document


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run, and its lock."""

    root: Path

    @property
    def stages(self) -> Path:
        """Folder of the stage directories."""
        return self.root / "stages"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.root / "report"

    def create(self) -> None:
        """Create the folders.

        Raises:
            StoreError: the place is a file, or cannot be written.
        """
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"--out {self.root}: expected a folder, got a file")
        try:
            self.stages.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"--out {self.root}: cannot be created: {error.strerror}") from error
        if not os.access(self.root, os.W_OK):
            raise StoreError(f"--out {self.root}: not writable by uid {os.getuid()}")

    @property
    def heartbeat(self) -> Path:
        """Heartbeat file of the runner of the whole plan."""
        return self.root / "run.json"

    @property
    def workers(self) -> Path:
        """Folder of the heartbeat files of runners of single stages."""
        return self.root / "workers"

    @property
    def cluster(self) -> Path:
        """Folder of batch scripts and logs of a cluster's jobs."""
        return self.root / "cluster"

    def stored(self, document: Any) -> Any:
        """The JSON document with `run:PLACE` for every absolute path in this directory: it may be moved or copied."""
        own = f"{self.root}/"
        return mapped(document, lambda text: IN_RUN + text[len(own) :] if f"{text}/".startswith(own) else text)

    def located(self, document: Any) -> Any:
        """The document that was `stored`, with the paths of this directory where it is now."""
        return mapped(document, lambda text: self._place(text[len(IN_RUN) :]) if text.startswith(IN_RUN) else text)

    def relocated(self, document: Any, stages: Iterable[str]) -> Any:
        """The document with paths in this directory where it is now, if it was moved since they were written.

        Args:
            document: JSON with absolute paths.
            stages: names of stage directories; a path below one of them says where the run was.
        """
        names = "|".join(map(re.escape, stages))
        found = re.search(rf'"(/[^"]*)/stages/(?:{names})[/"]', json.dumps(document, ensure_ascii=False))
        if not names or found is None:
            return document
        before = f"{found[1]}/"
        return mapped(document, lambda t: self._place(t.removeprefix(before)) if t.startswith(before) else t)

    def _place(self, name: str) -> str:
        return str(self.root / name)

    @contextmanager
    def locked(self, keys: Sequence[str] | None = None, *, patient: bool = False) -> Iterator[IO[str]]:
        """Lock the run directory, or some of its stages, against other runners; yields the open lock file.

        The lock belongs to the open file, not to a process: jobs inherit it as their standard input, and the kernel
        releases it when the last of them has ended. So a new run waits while the jobs of a killed runner save, and two
        jobs never write to one directory. The lock of a stage is one byte of the file, at an offset derived from its
        key, so that stages of one run can run side by side.

        Args:
            keys: of the stages; None: the whole run.
            patient: wait for a living holder, too: a cluster may restart a job while it is still ending elsewhere.

        Raises:
            StoreError: another runner holds it.
        """
        ranges = [(0, 0)] if keys is None else [(int(key[:15], 16), 1) for key in keys]
        with (self.root / ".lock").open("a+") as handle:
            for start, length in sorted(ranges):
                self._lock(handle, start, length, patient)
            if keys is None:
                handle.truncate(0)
                handle.write(f"{os.getpid()} {socket.gethostname()}")
                handle.flush()
            yield handle

    def _lock(self, handle: IO[str], start: int, length: int, patient: bool) -> None:
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        said = False
        while not self._try(handle, start, length):
            owners = self._owners(handle)
            living = next((owner for owner in owners if is_alive(*owner)), None)
            number, host = living or next(iter(owners), (None, None))
            name = "unknown process" if number is None else f"process {number} on {host}"
            given_up = not patient and (living or not owners)
            if given_up or time.monotonic() > deadline:
                raise StoreError(f"--out {self.root}: in use by another run ({name})")
            if not said:
                said = True
                holder = name if living or not owners else f"the run before (process {number}) has died"
                print(f"{holder}: waiting for its jobs to end", flush=True)
            time.sleep(0.1)

    def _try(self, handle: IO[str], start: int, length: int) -> bool:
        """Lock bytes from `start` (`length` 0: to the end) for this open file; False if another process holds them."""
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        try:
            with without("locks: start no second run there", self.root):
                fcntl.fcntl(handle, fcntl.F_OFD_SETLK, request)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def _owners(self, handle: IO[str]) -> list[tuple[int, str]]:
        """Process id and host of each runner that may hold the lock: of the whole run, then of single stages."""
        handle.seek(0)
        number, _, host = handle.read().strip().partition(" ")
        owners = [(int(number), host)] if number.isdigit() and host else []
        signs = [read_json(path) or {} for path in sorted(self.workers.glob("*.json"))]
        return owners + [(sign["pid"], sign["host"]) for sign in signs if sign.get("state") == "running"]


def is_alive(process: int, host: str) -> bool:
    """Whether a process may be running: one of another host cannot be checked."""
    if host != socket.gethostname():
        return True
    try:
        return psutil.Process(process).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's, on a machine that hides them (hidepid=1)
        return True


def outputs_of(directory: Path, names: tuple[str, ...]) -> dict[str, int]:
    """Sizes in bytes of the output files of a stage; raises FileNotFoundError."""
    return {name: (directory / name).stat().st_size for name in names}


def is_done(directory: Path, key: str, outputs: Sequence[str] | None = None) -> bool:
    """Whether a stage finished with this key and its outputs are there, with their recorded sizes.

    Args:
        directory: of the stage.
        key: of the stage.
        outputs: what must be there; None: what it wrote.
    """
    found, recorded = _done(directory)
    names = recorded if outputs is None else outputs
    return (
        found == key
        and all((directory / name).is_file() for name in names)
        and not _damaged(directory, recorded, names)
    )


def damaged_outputs(directory: Path, names: Iterable[str] | None = None) -> list[str]:
    """Outputs of a finished stage, all or some, that are missing or have another size than was recorded."""
    recorded = _done(directory)[1]
    return _damaged(directory, recorded, recorded if names is None else names)


def _done(directory: Path) -> tuple[str | None, dict[str, int]]:
    """Key and sizes of outputs in `done.json`; no key if the stage has not finished or the file is damaged."""
    done = read_json(directory / "done.json") or {}
    outputs = done.get("outputs")
    return (done.get("key"), outputs) if isinstance(outputs, dict) else (None, {})


def _damaged(directory: Path, recorded: dict[str, int], names: Iterable[str]) -> list[str]:
    files = {name: directory / name for name in names if name in recorded}
    return [n for n, file in files.items() if not file.is_file() or file.stat().st_size != recorded[n]]


def is_reported(directory: RunDirectory, stages: Iterable[Path]) -> bool:
    """Whether the report exists and is newer than all finished ones of these stage directories."""
    ends = [end.stat().st_mtime for stage in stages if (end := stage / "done.json").is_file()]
    report = directory.report / "report.json"
    return report.is_file() and report.stat().st_mtime >= max(ends, default=0.0)
