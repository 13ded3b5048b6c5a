"""The run directory: names, keys, what is done, and the lock that keeps two runners apart.

OUT/manifest.resolved.yaml, provenance.json
OUT/stages/<name>-<key>/   stage.json, log.txt, outputs, done.json (written last)
OUT/report/                report.json, report.md, report.html
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sra.config import UserError
from sra.files import write_json

__all__ = ["RunDirectory", "fingerprint", "key_of", "write_json"]


DYING_SECONDS = 120.0
"""How long a run waits for the jobs of a runner that died: they save their work first."""


class StoreError(UserError):
    """A run directory that cannot be used."""


def key_of(document: Any) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of the canonical JSON form."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(place: str) -> list[Any]:
    """A cheap identity of an input: size and time of a file, the entries of a folder; `absent` if it is not there.

    Reading 1.3 million images to plan a run would take longer than the plan is worth; content hashes are taken
    when a stage reads its input anyway.
    """
    if place.startswith("embedded:"):
        return [place]
    path = Path(place)
    if path.is_file():
        status = path.stat()
        return [str(path.resolve()), status.st_size, status.st_mtime_ns]
    if path.is_dir():
        entries = sorted((e.name, e.stat().st_mtime_ns if e.is_dir() else e.stat().st_size) for e in os.scandir(path))
        return [str(path.resolve()), key_of(entries)]
    return [place, "absent"]


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run, and what they hold."""

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
        """Make the folders.

        Raises:
            StoreError: the place is a file, or cannot be written.
        """
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"--out {self.root}: found a file, a folder is needed")
        try:
            self.stages.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"--out {self.root}: cannot be created: {error.strerror}") from error
        if not os.access(self.root, os.W_OK):
            raise StoreError(f"--out {self.root}: not writable by uid {os.getuid()}")

    @contextmanager
    def locked(self) -> Iterator[IO[str]]:
        """Hold the run directory against a second runner; yields the open lock file.

        The lock belongs to the open file, not to a process: jobs inherit it as their standard input, whatever launches
        them, and the kernel drops it when the last of them has ended. A run whose runner was killed is thus waited for
        while its jobs save, and no two jobs ever write to one directory.

        Raises:
            StoreError: another run holds it.
        """
        with (self.root / ".lock").open("a+") as handle:
            self._lock(handle)
            handle.truncate(0)
            handle.write(f"{os.getpid()} {socket.gethostname()}")
            handle.flush()
            yield handle

    def _lock(self, handle: IO[str]) -> None:
        deadline = time.monotonic() + DYING_SECONDS
        said = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = self._owner(handle)
                if owner is None or is_alive(*owner) or time.monotonic() > deadline:
                    name = f"process {owner[0]} on {owner[1]}" if owner else "unknown process"
                    raise StoreError(f"--out {self.root}: in use by another run ({name})") from None
                if not said:
                    said = True
                    print(f"the run before (process {owner[0]}) has died: waiting for its jobs to end", flush=True)
                time.sleep(0.1)
            else:
                return

    @staticmethod
    def _owner(handle: IO[str]) -> tuple[int, str] | None:
        """Process and host that a lock file names."""
        handle.seek(0)
        number, _, host = handle.read().strip().partition(" ")
        return (int(number), host) if number.isdigit() and host else None


def is_alive(process: int, host: str) -> bool:
    """Whether a process may be there: one of another host cannot be asked."""
    if host != socket.gethostname():
        return True
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def outputs_of(directory: Path, names: tuple[str, ...]) -> dict[str, int]:
    """Sizes in bytes of a stage's declared outputs (files), which must exist."""
    return {name: (directory / name).stat().st_size for name in names}


def is_done(directory: Path, key: str) -> bool:
    """Whether a stage finished with this key and its outputs still have the sizes it left."""
    done = read_json(directory / "done.json")
    if done is None or done.get("key") != key:
        return False
    outputs: dict[str, int] = done.get("outputs", {})
    return all((directory / n).is_file() and (directory / n).stat().st_size == s for n, s in outputs.items())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none or it is damaged."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
