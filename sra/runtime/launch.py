"""`python -m sra.runtime.launch OPTIONS -m MODULE ...`: torchrun with the suite's signals and exit codes.

torchrun's agent kills its workers thirty seconds after a SIGTERM, dies of SIGUSR1, and exits with 1 whatever its
workers' codes were. This launcher passes each stop signal on as SIGTERM, gives the workers the time they need to save,
and exits with their code: 75 stopped, 2 bad input. A worker that was killed is reported in one line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys

import psutil
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from sra.common.errors import BAD_INPUT, STOPPED
from sra.common.processes import usable_cores
from sra.common.program import program
from sra.common.startup import SAID_AT_STOP, STOP_SIGNALS
from sra.runtime.distributed import no_connection
from sra.runtime.job import LAUNCHER_VARIABLE, on_stop

COMPILE_THREADS = "TORCHINDUCTOR_COMPILE_THREADS"
"""Environment variable of torch.compile: number of processes that compile beside each process of a job."""
MAX_COMPILE_THREADS = 32
"""torch's own limit."""

_stop_requested = False


def _forward_stop() -> None:
    """Send SIGTERM to the workers, whose end the agent then sees; without workers there is nothing to save."""
    global _stop_requested
    _stop_requested = True
    # `Process.children` raises an error if /proc hides other users' processes (hidepid=1).
    workers = [process for process in psutil.process_iter(["ppid"]) if process.info["ppid"] == os.getpid()]
    if not workers:
        print(SAID_AT_STOP, file=sys.stderr, flush=True)
        os._exit(STOPPED)
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.terminate()


def exit_code(codes: dict[int, int], *, stop_requested: bool) -> tuple[int, str | None]:
    """Exit code of the launcher, and the line to print or None.

    Args:
        codes: exit codes by rank of the workers that failed; negative: killed by that signal.
        stop_requested: whether the launcher received a stop signal.
    """
    stopped = {STOPPED, *(-number for number in STOP_SIGNALS)}
    if all(code in stopped for code in codes.values()) and (stop_requested or STOPPED in codes.values()):
        return STOPPED, None
    if BAD_INPUT in codes.values():
        return BAD_INPUT, None
    # A killed worker breaks the connections of the others, whose errors are then not the cause.
    killed = {rank: code for rank, code in codes.items() if code < 0}
    rank = next((rank for rank, code in killed.items() if code not in stopped), next(iter(killed), None))
    if rank is not None and (killed[rank] not in stopped or len(killed) == len(codes)):
        name = signal.Signals(-killed[rank]).name
        return BAD_INPUT, f"error: process {rank} was killed by {name}; the same command continues"
    return next((code for code in codes.values() if code > 0), 1), None


def main(arguments: list[str]) -> None:
    """Run torchrun with its own options and exit with the workers' code.

    Raises:
        UserError: the nodes cannot be connected.
    """
    os.environ[LAUNCHER_VARIABLE] = str(os.getpid())
    # The agent must handle some signal; SIGQUIT remains the way to end it at once.
    options: argparse.Namespace = parse_args(["--signals-to-handle", "SIGQUIT", *arguments])  # type: ignore[no-untyped-call]
    # Each process would start as many as there are cores.
    share = usable_cores() // int(options.nproc_per_node)
    os.environ.setdefault(COMPILE_THREADS, str(min(max(1, share), MAX_COMPILE_THREADS)))
    try:
        with on_stop(_forward_stop):
            run(options)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        failures = {rank: failure.exitcode for rank, failure in error.failures.items()}
        code, line = exit_code(failures, stop_requested=_stop_requested)
        if line is not None:
            print(line, file=sys.stderr, flush=True)
        sys.exit(code)
    except DistError as error:
        raise no_connection(error, options.master_addr, options.master_port) from error


if __name__ == "__main__":
    with program():
        main(sys.argv[1:])
