"""Walk a plan: skip what is done, run the rest in as few processes as it takes, finish each stage atomically."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from benchmark.assets.catalogue import remedy
from benchmark.commands.status import Pulse
from benchmark.machine.environment import GRACE_SECONDS
from benchmark.machine.gpus import visible_gpus
from benchmark.plan.plan import Plan, state_of
from benchmark.plan.run_directory import RunDirectory, is_done, outputs_of, write_json
from benchmark.plan.stages import STEPS, Stage, label_of
from benchmark.run.command import command_of
from benchmark.run.executor import Executor
from benchmark.run.local import Local
from sra.common.files import sweep
from sra.config import UserError

STOPPED = 75
"""Exit code of a job that was asked to stop and saved its work (EX_TEMPFAIL); the same command continues."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, `kill`, and what Slurm is told to send before a time limit."""
SPOKEN = {"PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
"""Jobs print at once; TensorFlow keeps to itself what it takes for errors, such as a machine without a GPU. What it
cannot do, it raises."""
HINTS = {
    signal.SIGKILL: " (out of memory?)",
    signal.SIGBUS: " (the disk or /dev/shm is full, or a file was cut short while it was read)",
}


HERE = Local()


class StageError(UserError):
    """A stage that refused its input, or died."""


class StoppedError(Exception):
    """The run was asked to stop (Ctrl-C, SIGTERM, SIGUSR1); everything finished is kept."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """How one invocation runs jobs."""

    directory: RunDirectory
    executor: Executor = HERE
    processes: int = 1
    """Of training and sampling, over all nodes."""
    lock: IO[str] | None = None
    """The open lock file, which the jobs inherit."""
    pulse: Pulse | None = None
    grace: float = GRACE_SECONDS
    """Seconds that a job may take to save when it is asked to stop."""


def run_plan(plan: Plan, session: Session, until: str = "report", pulse: Path | None = None) -> None:
    """Run every stage up to and including the kind `until`.

    Args:
        plan: all stages.
        session: where and how.
        until: last kind of stage.
        pulse: the runner's sign of life; default: that of the whole run.

    Raises:
        UserError: a missing input, too little disk, a stage that refused its input or died.
        StoppedError: on SIGINT, SIGTERM or SIGUSR1.
    """
    check_inputs(plan)
    directory = session.directory
    _check_disk(plan, directory)
    wanted = [s for s in plan.stages if STEPS.index(s.kind.name) <= STEPS.index(until)]
    names = [(s.name, s.directory.name, s.key) for s in wanted]
    with Pulse(pulse or directory.pulse, names) as living:
        for _, group in itertools.groupby(wanted, key=lambda stage: stage.batch):
            pending = []
            for stage in group:
                state, why = state_of(stage, directory)
                print(f"[{stage.name}] {state}: {why}", flush=True)
                if state != "done":
                    pending.append(stage)
            if pending:
                living.now([stage.name for stage in pending])
                _run_batch(pending, dataclasses.replace(session, pulse=living))


def check_inputs(plan: Plan) -> None:
    """Refuse a plan whose inputs are not all there.

    Raises:
        StageError: which, and where they come from.
    """
    if plan.absent:
        absent = [place + (f" ({how})" if (how := remedy(place)) else "") for place in plan.absent]
        raise StageError(f"{plan.loaded.path}: input not found: {', '.join(absent)}")


def _clear(stage: Stage) -> None:
    """Leave in a stage's directory what its job can continue from, and nothing else."""
    stage.directory.mkdir(parents=True, exist_ok=True)
    sweep(stage.directory)
    (stage.directory / "failed.json").unlink(missing_ok=True)
    done = stage.directory / "done.json"
    if done.is_file():
        # It had finished, so an output has gone or changed its size since: the job must not take it for whole.
        for name in stage.outputs:
            (stage.directory / name).unlink(missing_ok=True)
        done.unlink()


def _run_batch(stages: list[Stage], session: Session) -> None:
    job = command_of(stages, session.directory, session.processes)
    session.executor.ready(job)
    command = session.executor.argv(job)
    for stage in stages:
        _clear(stage)
        write_json(stage.directory / "stage.json", stage.record(command))
    started = time.monotonic()
    logs = [stage.directory / "log.txt" for stage in stages]
    code, last_error = stream(command, logs, label_of(stages), session.lock, session.pulse, session.grace)
    seconds = time.monotonic() - started
    if code == STOPPED:
        raise StoppedError
    if code != 0:
        message = last_error or _ending(code, stages[0].directory / "log.txt")
        for stage in stages:
            with contextlib.suppress(OSError):
                write_json(stage.directory / "failed.json", {"key": stage.key, "message": message, "exit_code": code})
        raise StageError(f"stage {label_of(stages)}: {message}")
    for stage in stages:
        _finish(stage, seconds / len(stages))


def _ending(code: int, log: Path) -> str:
    """How a job ended that said nothing about it."""
    # An engine, like a shell, reports a signal as 128 and its number.
    killed = -code if code < 0 else code - 128
    if killed in set(signal.Signals):
        number = signal.Signals(killed)
        return f"was killed by {number.name}{HINTS.get(number, '')}; the same command continues; see {log}"
    return f"ended with exit code {code}; see {log}"


def _finish(stage: Stage, seconds: float) -> None:
    """Write done.json, unless a tool could not run: that is shown in the table and tried again next time."""
    if stage.error:
        return
    try:
        outputs = outputs_of(stage.directory, stage.outputs)
    except FileNotFoundError as error:
        raise StageError(f"stage {stage.name}: ended without its output {error.filename}") from error
    write_json(stage.directory / "done.json", {"key": stage.key, "outputs": outputs, "seconds": round(seconds, 3)})
    assert is_done(stage.directory, stage.key)


def _check_disk(plan: Plan, directory: RunDirectory) -> None:
    sizes = [stage.disk for stage in plan.stages if not is_done(stage.directory, stage.key)]
    needed = sum(size.bytes or 0 for size in sizes if not size.is_upper_bound)
    free = shutil.disk_usage(directory.root).free
    if free < needed:
        raise StageError(f"--out {directory.root}: {free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed")


def job_environment() -> dict[str, str]:
    """The environment of a job."""
    return {**os.environ, **SPOKEN}


def evaluator_job(module: str, *arguments: str) -> str:
    """What a short job of the evaluator prints.

    Raises:
        UserError: it refused its input.
    """
    argv = [sys.executable, "-m", f"evaluator.features.{module}", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, env=job_environment(), check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with exit code {done.returncode}"]
        raise UserError(lines[-1].removeprefix("error: "))
    return done.stdout


def _die_with_parent() -> None:
    """Linux: the job gets SIGTERM when its runner dies, however that dies."""
    pr_set_pdeathsig = 1
    ctypes.CDLL("libc.so.6").prctl(pr_set_pdeathsig, signal.SIGTERM)


def stream(
    command: list[str],
    logs: list[Path],
    label: str,
    lock: IO[str] | None = None,
    pulse: Pulse | None = None,
    grace: float = GRACE_SECONDS,
) -> tuple[int, str | None]:
    """Run a job; copy its lines to the terminal and the logs. Returns (exit code, its last `error:` line)."""
    last_error = None
    with contextlib.ExitStack() as stack:
        handles = [stack.enter_context(log.open("a", encoding="utf-8")) for log in logs]
        process = subprocess.Popen(
            command,
            stdin=lock or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=job_environment(),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        stack.callback(_end, process)
        stop = stack.enter_context(_forwarding(process, grace))
        if pulse is not None:
            stack.enter_context(pulse.beating())
        assert process.stdout is not None
        for line in process.stdout:
            _show(line, label, handles)
            if line.startswith("error: "):
                last_error = line.removeprefix("error: ").strip()
        code = process.wait()
    if stop():
        raise StoppedError
    return code, last_error


def _show(line: str, label: str, handles: Sequence[IO[str]]) -> None:
    for handle in handles:
        handle.write(line)
        handle.flush()
    print(f"[{label}] {line.rstrip()}", flush=True)


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[str], grace: float) -> Iterator[Callable[[], bool]]:
    """Pass a signal to stop on to the job as SIGTERM, once; a second one kills it, and so does too long a wait."""
    received = 0

    def forward(_number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        print("stopping: the job saves its work (again: kill it)", file=sys.stderr, flush=True)
        if received > 1:
            kill_tree(process.pid)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, grace)

    def expire(_number: int, _frame: FrameType | None) -> None:
        kill_tree(process.pid)

    handlers = {**dict.fromkeys(STOP_SIGNALS, forward), signal.SIGALRM: expire}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield lambda: received > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen[str]) -> None:
    """Leave no job behind, whatever happened to the loop that read it."""
    if process.poll() is None:
        kill_tree(process.pid)
        process.wait()


def kill_tree(process: int) -> None:
    """SIGKILL a process and all that descend from it: torchrun gives its workers sessions of their own."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    family = [process]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    for member in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def processes_for(asked: int | None) -> int:
    """Processes of training and sampling: as asked, or one a GPU.

    Raises:
        StageError: more than there are GPUs, or less than one.
    """
    gpus = visible_gpus()
    if asked is None:
        return max(1, gpus)
    if asked < 1 or (gpus and asked > gpus):
        raise StageError(f"--processes {asked}: allowed: {f'1 to {gpus}, one a GPU' if gpus else '1 or more'}")
    return asked
