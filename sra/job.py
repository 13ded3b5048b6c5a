"""What every long job shares: settings from `stage.json`, progress lines, stopping on request, exit codes."""

from __future__ import annotations

import errno
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sra.config import from_plain
from sra.errors import ConfigError, UserError

T = TypeVar("T")
BAD_INPUT = 2
STOPPED = 75
"""Exit code after SIGTERM or SIGINT with the work saved (EX_TEMPFAIL); the same command continues."""

_requested = False


class Stopped(Exception):  # noqa: N818 - not an error: the job was asked to
    """The job was asked to stop; whoever catches it saves first."""


def check_stop() -> None:
    """Raise `Stopped` once SIGTERM or SIGINT has arrived: called where a job can stop without losing work."""
    if _requested:
        raise Stopped


def stop_requested() -> bool:
    """Whether SIGTERM or SIGINT has arrived."""
    return _requested


def _request(_number: int, _frame: object) -> None:
    global _requested
    _requested = True


def catch_signals() -> None:
    """From now on SIGTERM and SIGINT are requests to stop, for `check_stop` to see."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _request)


def run(main: Callable[[list[str]], None]) -> None:
    """Run a job's main with its arguments; exits 0, 2 (bad input, one line), or 75 (stopped)."""
    catch_signals()
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)
    except Stopped:
        print("stopped; the same command continues", flush=True)
        sys.exit(STOPPED)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"error: no space left on the disk of {error.filename or 'the output'}", file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)


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


class Progress:
    """Lines with count, rate and time left, at most one every `every` seconds."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0, every: float = 2.0) -> None:
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.done = self.initial = done
        self.started = self.shown = time.monotonic()

    def update(self, count: int = 1, **values: float) -> None:
        """Count `count` more; `values` are shown beside the rate."""
        self.done += count
        now = time.monotonic()
        if now - self.shown >= self.every or self.done >= self.total:
            self.shown = now
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
        print(text, flush=True)
