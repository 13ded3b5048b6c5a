"""`python -m sra.runtime.launch OPTIONS -m MODULE ...`: torchrun with the suite's signals and exit codes.

torchrun's agent answers SIGTERM by giving its workers thirty seconds, dies of a SIGUSR1 that it does not know, and
ends with code 1 whatever its workers said. Here a signal is handed on as SIGTERM, the workers take the time they need
to save, and their code is the launcher's: 75 stopped, 2 bad input. A worker that dies is named in one line.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from sra.runtime.job import BAD_INPUT, LAUNCHER, STOP_SIGNALS, STOPPED

_asked = False


def workers(parent: int) -> list[int]:
    """Process ids of the direct children of a process (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold anything; the state and the parent's id follow it.
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.parent.name))
    return found


def _hand_on(_number: int, _frame: FrameType | None) -> None:
    """The workers' agent then sees them end by themselves; before there are any, there is nothing to save."""
    global _asked
    _asked = True
    children = workers(os.getpid())
    if not children:
        sys.exit(STOPPED)
    for child in children:
        os.kill(child, signal.SIGTERM)


def judge(codes: dict[int, int], *, asked: bool) -> tuple[int, str | None]:
    """Exit code of the whole, and what to say about it.

    Args:
        codes: by rank, of the workers that did not end well; negative: killed by that signal.
        asked: whether the launcher got a signal to stop.
    """
    requests = {STOPPED, *(-number for number in STOP_SIGNALS)}
    if all(code in requests for code in codes.values()) and (asked or STOPPED in codes.values()):
        return STOPPED, None
    if BAD_INPUT in codes.values():
        return BAD_INPUT, None
    # A worker's death breaks its fellows' connections: theirs is not the cause.
    killed = {rank: code for rank, code in codes.items() if code < 0}
    rank = next((rank for rank, code in killed.items() if code not in requests), next(iter(killed), None))
    if rank is not None and (killed[rank] not in requests or len(killed) == len(codes)):
        name = signal.Signals(-killed[rank]).name
        return BAD_INPUT, f"error: process {rank} was killed by {name}; the same command continues"
    return next((code for code in codes.values() if code > 0), 1), None


def main(arguments: list[str]) -> None:
    """Run torchrun with its own options and end with its workers' exit code."""
    for number in STOP_SIGNALS:
        signal.signal(number, _hand_on)
    os.environ[LAUNCHER] = str(os.getpid())
    # The agent insists on handling something; SIGQUIT stays the way to end it at once.
    options: argparse.Namespace = parse_args(["--signals-to-handle", "SIGQUIT", *arguments])  # type: ignore[no-untyped-call]
    try:
        run(options)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code, line = judge({rank: failure.exitcode for rank, failure in error.failures.items()}, asked=_asked)
        if line is not None:
            print(line, file=sys.stderr, flush=True)
        sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
