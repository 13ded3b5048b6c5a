"""The beginning and the end of every program: stop signals, outputs that nobody reads, errors in one line."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pwd
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from sra.common.errors import BAD_INPUT, STOPPED, Stopped, UserError, system_trouble
from sra.common.files import home_path
from sra.common.startup import SAID_AT_STOP, handled

SAME_REQUEST_SECONDS = 2.0
"""Stop signals within this time are one request: a wrapper forwards what the whole process group already got."""
READER_GONE = (errno.EPIPE, errno.EIO, errno.ECONNRESET, errno.ENXIO)
"""Errors of a write to a pipe without a reader, or to a terminal that was closed."""
NO_HOME = "/no-home-folder"
"""`HOME` of a user who has none: nothing is there, and nothing can be written."""

Handler = Callable[[int, FrameType | None], None]


def set_stop_handler(handler: Handler) -> dict[signal.Signals, Handler | int | None]:
    """Handle the stop signals by a function, and return what handled them before.

    Only the main thread can set handlers: in others nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in handled()}


@contextlib.contextmanager
def stop_handler(handler: Handler) -> Iterator[None]:
    """Handle the stop signals by a function within the block."""
    before = set_stop_handler(handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def program() -> Iterator[None]:
    """Everything that a program of the suite does.

    Stop signals raise `Stopped` within the block, unless it handles them itself. Ends the process with exit code 75
    and one line after `Stopped`, with 2 and one line after bad input or an error of the operating system.
    """
    sys.argv[1:] = expand_home(sys.argv[1:])
    _name_the_user()
    _leave_a_closed_home()
    asked: float | None = None

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        before, asked = asked, time.monotonic()
        if before is None or asked - before >= SAME_REQUEST_SECONDS:
            raise Stopped

    with _standard_streams(), stop_handler(stop):
        try:
            yield
            _check_outputs()
        except (Stopped, KeyboardInterrupt):
            _end_stopped()
        except Exception as error:
            if asked is not None and _is_made_of_a_stop(error):
                _end_stopped()
            line = str(error) if isinstance(error, UserError) else None
            if isinstance(error, OSError):
                line = system_trouble(error)
            if line is None:
                raise
            print(f"error: {line}", file=sys.stderr, flush=True)
            sys.exit(BAD_INPUT)


def _end_stopped() -> NoReturn:
    print(SAID_AT_STOP, file=sys.stderr, flush=True)
    sys.exit(STOPPED)


def _is_made_of_a_stop(error: Exception) -> bool:
    """Whether a library turned `Stopped`, raised in its code, into an error of its own, as pydantic's core does."""
    return isinstance(error.__cause__ or error.__context__, Stopped) or Stopped.__name__ in str(error)


def expand_home(arguments: list[str]) -> list[str]:
    """A command line in which `~/x` and `--option=~/x` name the home folder: the shell expands only the first."""
    expanded = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if argument.startswith("--") and value.startswith("~"):
            expanded.append(f"{option}{equals}{os.path.expanduser(value)}")  # noqa: PTH111 - an unknown user's stays
        else:
            expanded.append(os.path.expanduser(argument))  # noqa: PTH111
    return expanded


def _name_the_user() -> None:
    """Name a user whom the system does not know, as in a container: libraries ask for name and home, and fail."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("USER", f"uid-{os.getuid()}")
        os.environ.setdefault("HOME", NO_HOME)


def _leave_a_closed_home() -> None:
    """Do without a home folder, or a cache in it, that this user may not enter, as another user's after `su` is."""
    home = home_path("~")
    for place in (home, home / ".cache", home / ".cache" / "sra-bench"):
        if os.path.lexists(place) and not os.access(place, os.X_OK):
            print(f"warning: {place}: permission denied; done without a home folder", file=sys.stderr, flush=True)
            os.environ["HOME"] = NO_HOME


class Output(io.FileIO):
    """A standard output that never fails: what cannot be written is dropped, and the program goes on."""

    lost: OSError | None = None
    """Why something was dropped that somebody may have wanted; None: nothing, or the reader has gone."""

    def write(self, content: Any, /) -> int:
        """Write, or drop the content."""
        write: Callable[[Any], int | None] = super().write
        try:
            while (written := write(content)) is None:
                # Another program has made the terminal or pipe non-blocking.
                select.select([], [self], [])
        except OSError as error:
            if error.errno not in READER_GONE:
                self.lost = error
            return memoryview(content).nbytes
        return written


@contextlib.contextmanager
def _standard_streams() -> Iterator[None]:
    """Replace the process's own outputs by ones that neither a reader nor an encoding can make fail."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed by the parent: the next file that is opened would get its number, and the program's output.
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _wrapped(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrapped(2, sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _wrapped(number: int, stream: io.TextIOBase | None) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(Output(number, "w", closefd=False))
    encoding = getattr(stream, "encoding", "utf-8")
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=True)


def _check_outputs() -> None:
    """Raise the error of a standard output that lost something."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Output) and raw.lost is not None:
        raise OSError(raw.lost.errno, raw.lost.strerror, "standard output")
