"""Resumable checkpoints: complete, atomic, verified when read, written in the background.

FOLDER/step-<00000000>/state.pt, sha256    state after a step, and the checksum of its file
FOLDER.json                                duration of the last save, for the choice of a grace period
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from sra.common.errors import DataError
from sra.common.files import named_in_utf8, sha256_file, sync, write_bytes, write_json
from sra.common.processes import free_memory

FORMAT = 1
"""Raised when older checkpoints can no longer be read."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Which checkpoints are kept."""

    keep: int
    """Number of newest ones."""
    keep_every: int = 0
    """Also those of steps divisible by this; 0: none."""

    def removable(self, steps: list[int]) -> list[int]:
        """The steps whose checkpoints may be removed."""
        older = sorted(steps)[: -self.keep]
        return [step for step in older if not (self.keep_every and step % self.keep_every == 0)]


class Writer:
    """Saves a run's checkpoints, one at a time: copies the state to the host at once and writes it in a thread.

    A host without memory for the copy gets none: the state itself is written before `save` returns.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], policy: Policy) -> None:
        """Remove what a killed process left unfinished; no other process may write to the folder.

        Args:
            folder: of all checkpoints of a run.
            settings: what the state depends on; a run with other settings refuses it.
            policy: which checkpoints are kept.
        """
        self.folder, self.settings, self.policy = folder, settings, policy
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        for unfinished in folder.glob(".step-*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there."""
        return [_step(path) for path in _paths(self.folder)]

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Start writing the state of a step, which may change as soon as this returns.

        Args:
            step: optimizer steps done.
            state: nested dicts and lists of tensors and numbers.

        Raises:
            OSError: the previous write failed, or this one without a copy.
        """
        self.join()
        started = time.monotonic()
        content = {"format": FORMAT, "settings": self.settings, **state}
        size, free = sum(tensor.nbytes for tensor in _tensors(state)), free_memory()
        if size > free:
            need = f"expected {size / 1e9:.1f} GB of free memory for a copy, got {free / 1e9:.1f}"
            print(f"step {step}: {need}: training waits while the checkpoint is written", flush=True)
            self._write(step, content, started)
            self.check()
            return
        content = to_host(content)
        self._thread = threading.Thread(target=self._write, args=(step, content, started), name="checkpoint")
        self._thread.start()

    def join(self) -> None:
        """Wait for the current write.

        Raises:
            OSError: it failed.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise the error of a write in the background, if any, without waiting."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, step: int, content: dict[str, Any], started: float) -> None:
        try:
            write(self.folder, step, content)
            size = (_path(self.folder, step) / "state.pt").stat().st_size
            took = {"step": step, "bytes": size, "seconds": round(time.monotonic() - started, 3)}
            write_json(self.folder.with_suffix(".json"), {"schema": 1, **took})
            # Later ones are those of a longer run, whose earlier weights are made again.
            for old in self.policy.removable([number for number in self.steps() if number <= step]):
                shutil.rmtree(_path(self.folder, old))
        except BaseException as error:  # raised again by the thread that trains
            self._error = error


def write(folder: Path, step: int, content: dict[str, Any]) -> None:
    """Write one checkpoint atomically."""
    path = _path(folder, step)
    if is_whole(path):
        return
    temporary = folder / f".step-{step:08d}.{os.getpid()}"
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        digest = write_state(temporary / "state.pt", content)
        write_bytes(temporary / "sha256", digest.encode())
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
        sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class HashingFile:
    """File that is hashed while it is written, and remembers the operating system's error."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle, self.digest = handle, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write all of the content; a network disk may accept less per call."""
        rest = memoryview(content).cast("B")
        try:
            while rest:
                rest = rest[self.handle.write(rest) :]
        except OSError as error:
            self.error = error
            raise
        self.digest.update(content)
        return len(content)

    def flush(self) -> None:
        """Flush the file."""
        self.handle.flush()


def write_state(path: Path, content: dict[str, Any]) -> str:
    """`torch.save`, which names the file and the system's reason if it fails; returns the SHA-256 of the file."""
    with path.open("wb", buffering=0) as handle:
        file = HashingFile(handle)
        try:
            torch.save(content, cast(IO[bytes], file))
        except (RuntimeError, OSError):
            # torch's writer reports a full disk as a wrong position in the file.
            if file.error is None:
                raise
            raise OSError(file.error.errno, file.error.strerror, str(path)) from file.error
    sync(path)
    return file.digest.hexdigest()


def load_newest(
    folder: Path, settings: dict[str, Any] | None = None, limit: int | None = None
) -> dict[str, Any] | None:
    """Load the newest undamaged checkpoint to the host, with a warning for each damaged one; None if there is none.

    The tensors are the pages of the file, shared by the processes of a machine: copy what is kept.

    Args:
        folder: of all checkpoints of a run.
        settings: of this run; None: accept those of any run.
        limit: last step to consider; None: any.

    Raises:
        DataError: all checkpoints are damaged, or they belong to another run.
    """
    paths = [path for path in _paths(folder) if limit is None or _step(path) <= limit]
    for path in reversed(paths):
        if is_whole(path):
            with named_in_utf8(path / "state.pt") as name:
                state: dict[str, Any] = torch.load(name, map_location="cpu", weights_only=True, mmap=True)
            _check(path, state, settings)
            return state
        print(f"warning: {path}: checkpoint is damaged (checksum differs); trying the one before", flush=True)
    if paths:
        raise DataError(f"{folder}: every checkpoint is damaged; remove the folder to start again")
    return None


def _check(path: Path, state: dict[str, Any], settings: dict[str, Any] | None) -> None:
    if state.get("format") != FORMAT:
        raise DataError(f"{path}: expected checkpoint format {FORMAT}, got {state.get('format')}")
    if settings is None:
        return
    saved, settings = _without_place(state["settings"]), _without_place(settings)
    names = [n for n in sorted(saved.keys() | settings.keys()) if saved.get(n) != settings.get(n)]
    if names:
        changed = ", ".join(f"{n} {settings.get(n)!r}, got {saved.get(n)!r}" for n in names[:3])
        raise DataError(f"{path}: expected a checkpoint with {changed}; remove the folder to start again")


def _without_place(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the place of the codec's files: what the codec made is in the latents."""
    codec = {name: value for name, value in settings.get("codec", {}).items() if name != "path"}
    return {**settings, "codec": codec}


def is_whole(path: Path) -> bool:
    """Whether the state of a checkpoint matches its checksum."""
    try:
        return (path / "sha256").read_text() == sha256_file(path / "state.pt")
    except OSError:
        return False


def to_host(value: Any) -> Any:
    """Copy nested dicts, lists and tuples of tensors and numbers to host memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: to_host(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_host(part) for part in value)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-????????"))
