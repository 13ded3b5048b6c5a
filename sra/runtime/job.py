"""Shared by all long jobs: settings from `stage.json`, progress lines, stopping on request, exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sra.common.errors import STOPPED, ConfigError, Stopped, system_trouble
from sra.common.files import load_json, naming
from sra.common.heartbeat import Heartbeat
from sra.common.processes import die_with_parent
from sra.common.program import program, set_stop_handler, stop_handler
from sra.common.startup import SAID_AT_STOP, STOP_SIGNALS
from sra.config import from_plain

PROGRESS_SECONDS = 2.0
"""Least time between two progress lines."""
T = TypeVar("T")
LAUNCHER_VARIABLE = "SRA_LAUNCHER"
"""Environment variable: process id of `sra.runtime.launch`, whose workers end when it does."""

_stop_requested = False
_out_folders: list[Path] = []
_heartbeat: Heartbeat | None = None


def check_stop() -> None:
    """Raise `Stopped` after a stop signal; called where stopping loses no work."""
    if _stop_requested:
        raise Stopped


def stop_requested() -> bool:
    """Whether a stop signal has arrived."""
    return _stop_requested


def _request_stop(_number: int, _frame: object) -> None:
    global _stop_requested
    _stop_requested = True


def catch_signals() -> None:
    """Turn stop signals into requests for `check_stop`, for the rest of this process."""
    set_stop_handler(_request_stop)


@contextlib.contextmanager
def on_stop(action: Callable[[], None]) -> Iterator[None]:
    """Call a function, in a thread, for each stop signal that arrives within the block.

    Python's handlers run in the main thread, and there only between its own instructions: not while it waits in C++
    for processes that may never come. The block must start no process by `fork` alone, whose signals would count too.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        while number := os.read(reader, 1):
            if number[0] in STOP_SIGNALS:
                action()

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    with stop_handler(_request_stop):
        before = signal.set_wakeup_fd(writer)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writer)
            thread.join()
            os.close(reader)


def leave_at_once() -> None:
    """End the process after a stop signal, where it has nothing to save."""
    _end_heartbeat("stopped")
    print(SAID_AT_STOP, file=sys.stderr, flush=True)
    os._exit(STOPPED)


def follow_launcher() -> None:
    """Have the kernel send SIGTERM to this worker when its `sra.runtime.launch` dies, however it dies (Linux)."""
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is None:
        return
    die_with_parent()
    if os.getppid() != int(launcher):
        _request_stop(signal.SIGTERM, None)


def run(main: Callable[[list[str]], None]) -> None:
    """Run a job's main function; exit with 0, 2 (bad input, reported in one line) or 75 (stopped)."""
    with program(), stop_handler(_request_stop):
        follow_launcher()
        _out_folders[:] = out_folders(sys.argv[1:])
        try:
            check_stop()
            with naming(_out_folders[0]) if _out_folders else contextlib.nullcontext():
                main(sys.argv[1:])
        except Stopped:
            _end_heartbeat("stopped")
            raise
        except Exception as error:
            system = system_trouble(error) if isinstance(error, OSError) else None
            _end_heartbeat("failed", system or str(error))
            raise
        _end_heartbeat("ended")


def out_folders(arguments: list[str]) -> list[Path]:
    """Folders after `--out`, an option of every job; heartbeat files are written there."""
    found = []
    if "--out" in arguments:
        for argument in arguments[arguments.index("--out") + 1 :]:
            if argument.startswith("--"):
                break
            found.append(Path(argument))
    return found


def _end_heartbeat(state: str, message: str | None = None) -> None:
    if _heartbeat is not None:
        _heartbeat.write(state, message)


def read_config(path: Path, cls: type[T]) -> T:
    """Read a job's settings from the key `config` of a `stage.json`.

    Raises:
        UserError: no such file, not JSON, or unknown keys.
    """
    plain = (load_json(path) or {}).get("config")
    if plain is None:
        raise ConfigError(f"{path}: expected the JSON file of a stage with a key 'config', got none")
    return from_plain(cls, plain)


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


class Progress:
    """Progress lines with count, rate and time left, and the job's heartbeat file."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self.initial = done
        self.started = self.printed = time.monotonic()
        self.heartbeat = self._start_heartbeat()

    def _start_heartbeat(self) -> Heartbeat | None:
        """Heartbeat in the stage folder of this label, or in the only one; None in all but the first process."""
        global _heartbeat
        only = _out_folders[0] if _out_folders else None
        place = next((out for out in _out_folders if out.name == self.label), only)
        if place is None or not (place / "stage.json").is_file() or not _is_first_process():
            return None
        _end_heartbeat("ended")
        _heartbeat = Heartbeat(place, self.total, self.unit)
        _heartbeat.beat(self.done, None)
        return _heartbeat

    def update(self, count: int = 1, **values: float) -> None:
        """Add `count` units; `values` are printed beside the rate."""
        self.done += count
        now = time.monotonic()
        if self.heartbeat is not None:
            self.heartbeat.beat(self.done, (self.done - self.initial) / max(now - self.started, 1e-9))
        if now - self.printed >= PROGRESS_SECONDS or self.done >= self.total:
            self.printed = now
            if _is_first_process():
                self._print(now - self.started, values)

    def _print(self, elapsed: float, values: dict[str, float]) -> None:
        from tqdm import tqdm  # a second of imports that short jobs need not pay

        text = tqdm.format_meter(
            self.done,
            self.total,
            elapsed,
            initial=self.initial,
            unit=self.unit,
            prefix=self.label,
            ncols=0,
            postfix=", ".join(f"{name} {value:.4g}" for name, value in values.items()) or None,
        )
        print(text, flush=True)
