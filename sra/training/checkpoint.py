"""Checkpoints: complete, atomic, verified when read, written in the background, deleted by a policy.

FOLDER/step-<00000000>/state.pt, sha256    a step's state and the checksum of its file
FOLDER.json                                how long the last save took, for the grace period before a time limit
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from sra.common.errors import DataError
from sra.common.files import sha256_file, sync_folder, write_bytes, write_json
from sra.runtime.job import say

FORMAT = 1
"""Raised when older checkpoints can no longer be read."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Which checkpoints stay."""

    keep: int
    """The newest ones."""
    keep_every: int = 0
    """Besides, those of steps divisible by this, for good; 0: none."""

    def removable(self, steps: list[int]) -> list[int]:
        """The steps, of those there are, whose checkpoints may go."""
        older = sorted(steps)[: -self.keep]
        return [step for step in older if not (self.keep_every and step % self.keep_every == 0)]


class Writer:
    """Saves a run's checkpoints: copied to the host at once, written by a thread, one at a time."""

    def __init__(self, folder: Path, settings: dict[str, Any], policy: Policy) -> None:
        """Take over a folder that no other process writes to; what a killed one left unfinished is removed.

        Args:
            folder: of all checkpoints of a run.
            settings: what the state depends on; a run with other settings refuses it.
            policy: which checkpoints stay.
        """
        self.folder, self.settings, self.policy = folder, settings, policy
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        for unfinished in folder.glob(".step-*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Start to write the state of a step; the state may change as soon as this returns.

        Args:
            step: optimizer steps done.
            state: nested dicts and lists of tensors and numbers.

        Raises:
            OSError: the write before this one failed.
        """
        self.join()
        started = time.monotonic()
        content = to_host({"format": FORMAT, "settings": self.settings, **state})
        self._thread = threading.Thread(target=self._write, args=(step, content, started), name="checkpoint")
        self._thread.start()

    def join(self) -> None:
        """Wait for the write that is under way.

        Raises:
            OSError: it failed.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the background, if anything did; does not wait."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, step: int, content: dict[str, Any], started: float) -> None:
        try:
            write(self.folder, step, content)
            size = (_place(self.folder, step) / "state.pt").stat().st_size
            took = {"step": step, "bytes": size, "seconds": round(time.monotonic() - started, 3)}
            write_json(self.folder.with_suffix(".json"), {"schema": 1, **took})
            for old in self.policy.removable([_step(place) for place in _all(self.folder)]):
                shutil.rmtree(_place(self.folder, old))
        except BaseException as error:  # raised again where the run waits for this thread
            self._error = error


def write(folder: Path, step: int, content: dict[str, Any]) -> None:
    """Write one checkpoint: it is there whole, or not at all."""
    place = _place(folder, step)
    if is_whole(place):
        return
    temporary = folder / f".step-{step:08d}.{os.getpid()}"
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        digest = _write_state(temporary / "state.pt", content)
        write_bytes(temporary / "sha256", digest.encode())
        shutil.rmtree(place, ignore_errors=True)
        temporary.replace(place)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Hashing:
    """A file that is hashed while it is written, and remembers what the system refused."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle, self.digest = handle, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        rest = memoryview(content).cast("B")
        try:
            # A network disk may take a part only.
            while rest:
                rest = rest[self.handle.write(rest) :]
        except OSError as error:
            self.error = error
            raise
        self.digest.update(content)
        return len(content)

    def flush(self) -> None:
        self.handle.flush()


def _write_state(path: Path, content: dict[str, Any]) -> str:
    with path.open("wb", buffering=0) as handle:
        hashing = _Hashing(handle)
        try:
            torch.save(content, cast(IO[bytes], hashing))
        except (RuntimeError, OSError):
            # torch's writer reports a full disk as a failed position.
            if hashing.error is None:
                raise
            raise OSError(hashing.error.errno, hashing.error.strerror, str(path)) from hashing.error
        os.fsync(handle.fileno())
    return hashing.digest.hexdigest()


def load_newest(
    folder: Path, settings: dict[str, Any] | None = None, limit: int | None = None
) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, on the host; says when it has to pass over a damaged one. None: start anew.

    Args:
        folder: of all checkpoints of a run.
        settings: of this run; None: whose it is does not matter.
        limit: the last step that may be returned; None: any.

    Raises:
        DataError: there are checkpoints, and every one is damaged; or they belong to another run.
    """
    places = [place for place in _all(folder) if limit is None or _step(place) <= limit]
    for place in reversed(places):
        if is_whole(place):
            # Mapped: the processes of a machine share its pages, where each would hold a copy of its own. On a CPU the
            # optimizer would go on in the mapped file, which may be removed.
            mapped = torch.cuda.is_available()
            state: dict[str, Any] = torch.load(place / "state.pt", map_location="cpu", weights_only=True, mmap=mapped)
            _check(place, state, settings)
            return state
        say(f"warning: {place}: checkpoint is damaged (checksum differs); trying the one before")
    if places:
        raise DataError(f"{folder}: every checkpoint is damaged; remove the folder to start anew")
    return None


def _check(place: Path, state: dict[str, Any], settings: dict[str, Any] | None) -> None:
    if state.get("format") != FORMAT:
        raise DataError(f"{place}: checkpoint format {state.get('format')}, this version reads {FORMAT}")
    if settings is None:
        return
    theirs = state["settings"]
    names = [n for n in sorted(theirs.keys() | settings.keys()) if theirs.get(n) != settings.get(n)]
    if names:
        shown = ", ".join(f"{n} {theirs.get(n)!r}, here {settings.get(n)!r}" for n in names[:3])
        raise DataError(f"{place}: checkpoint of another run: {shown}; remove the folder to start anew")


def is_whole(place: Path) -> bool:
    """Whether a checkpoint's content has the checksum written with it."""
    try:
        return (place / "sha256").read_text() == sha256_file(place / "state.pt")
    except OSError:
        return False


def to_host(value: Any) -> Any:
    """A copy in host memory of nested dicts, lists and tuples of tensors and numbers."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: to_host(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_host(part) for part in value)
    return value


def _place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _step(place: Path) -> int:
    return int(place.name.removeprefix("step-"))


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-????????"))
