"""What every long job shares: settings from `stage.json`, progress lines, stopping on request, exit codes."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sra.common.errors import ConfigError, UserError, disk_trouble
from sra.common.heartbeat import Heartbeat
from sra.config import from_plain

SHOWN_SECONDS = 2.0
"""Between two lines of progress."""
T = TypeVar("T")
BAD_INPUT = 2
STOPPED = 75
"""Exit code after a signal to stop with the work saved (EX_TEMPFAIL); the same command continues."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Requests to stop: `kill`, Ctrl-C, and what Slurm is told to send before a time limit."""
LAUNCHER = "SRA_LAUNCHER"
"""Environment variable: the process id that a job started by `sra.runtime.launch` must not outlive."""

_requested = False
_outs: list[Path] = []
_heartbeat: Heartbeat | None = None


class Stopped(Exception):  # noqa: N818 - not an error: the job was asked to
    """The job was asked to stop; whoever catches it saves first."""


def check_stop() -> None:
    """Raise `Stopped` once a signal to stop has arrived: called where a job can stop without losing work."""
    if _requested:
        raise Stopped


def stop_requested() -> bool:
    """Whether a signal to stop has arrived."""
    return _requested


def _request(_number: int, _frame: object) -> None:
    global _requested
    _requested = True


def catch_signals() -> None:
    """From now on SIGTERM, SIGINT and SIGUSR1 are requests to stop, for `check_stop` to see."""
    for number in STOP_SIGNALS:
        signal.signal(number, _request)


def say(text: str) -> None:
    """Print a line; once nobody reads any more (the runner died), go on in silence: the work is to be saved."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def follow_launcher() -> None:
    """Linux: a worker of `sra.runtime.launch` gets SIGTERM when the launcher dies, however it dies."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL("libc.so.6").prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(launcher):
        _request(signal.SIGTERM, None)


def run(main: Callable[[list[str]], None]) -> None:
    """Run a job's main with its arguments; exits 0, 2 (bad input, one line), or 75 (stopped)."""
    catch_signals()
    follow_launcher()
    _outs[:] = out_folders(sys.argv[1:])
    try:
        check_stop()
        main(sys.argv[1:])
    except Stopped:
        _last_beat("stopped")
        say("stopped; the same command continues")
        sys.exit(STOPPED)
    except (UserError, OSError) as error:
        place = str(_outs[0]) if _outs else "the output"
        message = str(error) if isinstance(error, UserError) else disk_trouble(error, place)
        _last_beat("failed", message or str(error))
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)
    _last_beat("ended")


def out_folders(arguments: list[str]) -> list[Path]:
    """The folders after `--out`, which every job has: where its heartbeat is to lie."""
    found = []
    if "--out" in arguments:
        for argument in arguments[arguments.index("--out") + 1 :]:
            if argument.startswith("--"):
                break
            found.append(Path(argument))
    return found


def _last_beat(state: str, message: str | None = None) -> None:
    if _heartbeat is not None:
        _heartbeat.write(state, message)


def read_config(path: Path, cls: type[T]) -> T:
    """The job's settings from the key `config` of a `stage.json`.

    Raises:
        ConfigError: no such file, not JSON, or unknown keys.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        plain = document["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a stage's JSON file with a key 'config': {error}") from error
    return from_plain(cls, plain)


def _first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


class Progress:
    """Lines with count, rate and time left, at most one every two seconds, and the job's heartbeat file."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = self.initial = done
        self.started = self.shown = time.monotonic()
        self.heartbeat = self._start_heartbeat()

    def _start_heartbeat(self) -> Heartbeat | None:
        """In the stage directory of this label, or the only one; from the first of many processes."""
        global _heartbeat
        place = next((out for out in _outs if out.name == self.label), _outs[0] if _outs else None)
        if place is None or not (place / "stage.json").is_file() or not _first_process():
            return None
        _last_beat("ended")
        _heartbeat = Heartbeat(place, self.total, self.unit)
        _heartbeat.beat(self.done, None)
        return _heartbeat

    def update(self, count: int = 1, **values: float) -> None:
        """Count `count` more; `values` are shown beside the rate."""
        self.done += count
        now = time.monotonic()
        if self.heartbeat is not None:
            self.heartbeat.beat(self.done, (self.done - self.initial) / max(now - self.started, 1e-9))
        if now - self.shown >= SHOWN_SECONDS or self.done >= self.total:
            self.shown = now
            if _first_process():
                self._show(now - self.started, values)

    def _show(self, elapsed: float, values: dict[str, float]) -> None:
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
        say(text)
