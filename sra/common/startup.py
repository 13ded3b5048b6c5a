"""Stop signals in the first second of a program: imported before anything else by each package, for its effect.

Imports take a second or more, and an interrupt within them would print a traceback. Until `sra.common.program` takes
over there is nothing to save, so the process ends at once. Nothing happens if it is not a program of the suite.
"""

import os
import signal
import sys

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Requests to stop: `kill`, Ctrl-C, what Slurm sends before a time limit, and a terminal that is closed."""
STOPPED = 75
"""Exit code after a request to stop with the work saved (EX_TEMPFAIL); the same command continues."""
SAID_AT_STOP = "stopped; the same command continues"
PACKAGES = ("benchmark", "evaluator", "sra")
COMMAND = "sra-bench"


def handled() -> list[signal.Signals]:
    """The stop signals that this process heeds: not SIGHUP under `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOP_SIGNALS if not (ignored and number == signal.SIGHUP)]


def _is_program() -> bool:
    """Whether this process runs `sra-bench`, or a module of the suite by `python -m`."""
    first, flags = sys.argv[:1], sys.orig_argv
    if first == ["-m"] and "-m" in flags[:-1]:
        return flags[flags.index("-m") + 1].partition(".")[0] in PACKAGES
    return bool(first) and first[0].rpartition("/")[2] == COMMAND


def _end_at_once(_number: int, _frame: object) -> None:
    try:
        os.write(2, f"{SAID_AT_STOP}\n".encode())
    finally:
        os._exit(STOPPED)


if _is_program():
    for _number in handled():
        signal.signal(_number, _end_at_once)
    # A command that became this one has held them back.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
