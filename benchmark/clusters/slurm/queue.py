"""Slurm's commands: sinfo, sbatch, squeue and scancel, with their errors in one line."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sra.common.errors import UserError

TIMEOUT_SECONDS = 120
FINAL_STATES = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)
"""States that a job does not leave by itself."""


class SlurmError(UserError):
    """A command of Slurm that failed or is not installed."""


@dataclass(frozen=True, kw_only=True)
class QueuedJob:
    """A line of squeue: a job that waits, runs, or ended some minutes ago."""

    number: int
    name: str
    state: str
    reason: str
    """Why it waits, or why it ended; Slurm writes `None` for no reason."""
    nodes: str

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in FINAL_STATES

    @property
    def waiting(self) -> bool:
        """Whether it has no node yet."""
        return self.active and not self.nodes


def call(*argv: str) -> str:
    """Output of a command of Slurm.

    Raises:
        SlurmError: not installed, no answer, or failed: its first line on standard error.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise SlurmError(f"no {argv[0]} on this machine; a login node of the cluster has it") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{argv[0]}: no answer within {TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        first = lines[0] if lines else f"exit code {done.returncode}"
        raise SlurmError(f"{argv[0]}: {first.removeprefix(f'{argv[0]}: ').removeprefix('error: ')}")
    return done.stdout


def partitions() -> list[str]:
    """Names of the cluster's partitions."""
    return call("sinfo", "--noheader", "--format=%R").split()


def check(script: Path) -> None:
    """Have Slurm check a batch script without submitting it.

    Raises:
        SlurmError: it would be refused.
    """
    call("sbatch", "--test-only", str(script))


def submit(script: Path, after: Sequence[int], condition: str) -> int:
    """Submit a batch script; returns the job id.

    Args:
        script: with all options except its dependencies.
        after: ids of the jobs that it depends on.
        condition: `afterok` or `afterany`; a job whose condition can no longer be met is cancelled.
    """
    waits = [f"--dependency={condition}:{':'.join(map(str, after))}", "--kill-on-invalid-dep=yes"] if after else []
    return int(call("sbatch", "--parsable", *waits, str(script)).strip().partition(";")[0])


def list_jobs() -> dict[int, QueuedJob]:
    """This user's jobs by id: waiting, running, or ended some minutes ago."""
    found = {}
    for line in call("squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%N|%r|%j").splitlines():
        number, state, nodes, reason, name = line.strip().split("|", 4)
        if number.isdigit():
            found[int(number)] = QueuedJob(number=int(number), name=name, state=state, reason=reason, nodes=nodes)
    return found


def cancel(numbers: Sequence[int]) -> None:
    """Cancel jobs that wait or run."""
    if numbers:
        call("scancel", *map(str, numbers))


def request_checkpoint(number: int) -> None:
    """Send the script of a running job SIGUSR1, as before its time limit."""
    call("scancel", "--batch", "--signal=USR1", str(number))
