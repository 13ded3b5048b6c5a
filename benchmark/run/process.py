"""Start, watch and kill the processes of jobs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

from benchmark.machine.environment import GRACE_SECONDS, job_environment
from benchmark.machine.extras import require
from benchmark.run.heartbeat import RunnerHeartbeat
from sra.common.errors import BAD_INPUT, STOPPED, Stopped, UserError
from sra.common.files import naming
from sra.common.processes import die_with_parent
from sra.common.program import SAME_REQUEST_SECONDS, stop_handler

HINTS = {
    signal.SIGKILL: " (out of memory?)",
    signal.SIGBUS: " (the disk or /dev/shm is full, or a file was cut short while it was read)",
}
ERROR_PREFIX = "error: "


def run_job(name: str, argv: Sequence[str], *, capture: bool = False) -> str:
    """Run a short job without a stage.

    Args:
        name: for messages.
        argv: its command line.
        capture: return what it prints; else that goes to the terminal.

    Raises:
        UserError: it refused its input, died, or needs a package that is not installed.
        Stopped: it was asked to stop, or this process was.
    """
    outputs = {"stdout": subprocess.PIPE if capture else None, "stderr": subprocess.PIPE}
    with _running(argv, GRACE_SECONDS, errors="backslashreplace", **outputs) as (process, stop_requested):
        printed, problems = process.communicate()
    if stop_requested() or process.returncode == STOPPED:
        raise Stopped
    errors = [line for line in problems.splitlines() if line.startswith(ERROR_PREFIX)]
    if process.returncode == BAD_INPUT and errors:
        raise UserError(errors[-1].removeprefix(ERROR_PREFIX))
    if process.returncode != 0:
        sys.stderr.write(problems)
        raise UserError(f"{name}: {how_it_ended(process.returncode)}")
    return printed or ""


def evaluator_job(module: str, *arguments: str) -> str:
    """What a short job of `evaluator.features` prints.

    Raises:
        UserError: it refused its input, or died.
    """
    return run_job(module, [sys.executable, "-m", f"evaluator.features.{module}", *arguments], capture=True)


def how_it_ended(code: int) -> str:
    """Exit code or signal of a job, in words; engines and shells report a signal as 128 and its number."""
    killed = -code if code < 0 else code - 128
    if killed in set(signal.Signals):
        number = signal.Signals(killed)
        return f"was killed by {number.name}{HINTS.get(number, '')}; the same command continues"
    return f"ended with exit code {code}"


def stream(
    argv: Sequence[str],
    logs: Sequence[Path],
    label: str,
    lock: IO[str] | None = None,
    heartbeat: RunnerHeartbeat | None = None,
    grace: float = GRACE_SECONDS,
) -> tuple[int, str | None]:
    """Run a job; copy its lines to the terminal and the logs.

    Args:
        argv: its command line.
        logs: files that get every line.
        label: before each line on the terminal.
        lock: open lock file that the job inherits.
        heartbeat: written while the job runs.
        grace: seconds that it may take to save when it is asked to stop.

    Returns:
        Exit code, and its last `error:` line.

    Raises:
        Stopped: this process was asked to stop.
    """
    last_error = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(naming(logs[0]))
        handles = [stack.enter_context(log.open("a", encoding="utf-8")) for log in logs]
        inherited = {"stdin": lock or subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process, stop_requested = stack.enter_context(_running(argv, grace, errors="replace", **inherited))
        if heartbeat is not None:
            # After the fork: `preexec_fn` is not safe beside a thread.
            stack.enter_context(heartbeat.beating())
        assert process.stdout is not None
        for line in process.stdout:
            for handle in handles:
                handle.write(line)
                handle.flush()
            print(f"[{label}] {line.rstrip()}", flush=True)
            if line.startswith(ERROR_PREFIX):
                last_error = line.removeprefix(ERROR_PREFIX).strip()
        code = process.wait()
    if stop_requested():
        raise Stopped
    return code, last_error


@contextlib.contextmanager
def _running(
    argv: Sequence[str], grace: float, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], bool]]]:
    """Start a job with stop signals passed on to it, and leave none behind.

    Args:
        argv: its command line.
        grace: seconds that it may take to save.
        options: of `Popen`.

    Yields:
        The process, and whether a stop was requested.

    Raises:
        UserError: it needs a package that is not installed.
    """
    if argv[0] == sys.executable and argv[1] == "-m":
        require(argv[2])
    process: subprocess.Popen[str] = subprocess.Popen(
        argv,
        text=True,
        env=job_environment(),
        cwd=_folder(),
        start_new_session=True,
        preexec_fn=die_with_parent,
        **options,
    )
    try:
        with _forward_stop(process, grace) as stop_requested:
            yield process, stop_requested
    finally:
        _end(process, grace)


def _folder() -> str | None:
    """Where a job starts: here, or at the root if this folder has been removed, as libraries fail without one."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return "/"
    return None


@contextlib.contextmanager
def _forward_stop(process: subprocess.Popen[str], grace: float) -> Iterator[Callable[[], bool]]:
    """Pass a stop signal on to the job as SIGTERM, once; a later one kills it, and so does too long a wait."""
    requested: float | None = None

    def forward(_number: int, _frame: FrameType | None) -> None:
        nonlocal requested
        now = time.monotonic()
        if requested is None:
            requested = now
            print("stopping: the job saves its work (a later signal kills it)", file=sys.stderr, flush=True)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, grace)
        elif now - requested >= SAME_REQUEST_SECONDS:
            kill("a second signal")

    def kill(why: str) -> None:
        print(f"{why}: the job is killed; work since its last save is lost", file=sys.stderr, flush=True)
        kill_tree(process.pid)

    def expire(_number: int, _frame: FrameType | None) -> None:
        kill(f"the job did not stop within {grace:.0f} s")

    before = signal.signal(signal.SIGALRM, expire)
    with stop_handler(forward):
        try:
            yield lambda: requested is not None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _end(process: subprocess.Popen[str], grace: float) -> None:
    """Leave no job behind, whatever happened to what reads its output: have it save, and kill it if it does not."""
    if process.poll() is not None:
        return
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()  # or it would wait for a reader
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    if process.poll() is None:
        kill_tree(process.pid)
        process.wait()


def kill_tree(pid: int) -> None:
    """SIGKILL a process and its descendants: torchrun gives its workers sessions of their own."""
    # `Process.children` raises an error if /proc hides other users' processes (hidepid=1).
    processes = list(psutil.process_iter(["ppid"]))
    tree = [process for process in processes if process.pid == pid]
    for member in tree:
        tree += [process for process in processes if process.info["ppid"] == member.pid]
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
