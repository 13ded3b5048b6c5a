"""Slurm's commands: what is asked of them, and what they say, in one line."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sra.common.errors import UserError

TIMEOUT_SECONDS = 120
FINISHED = (
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
    """What Slurm refused, or that it is not there."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A job in the queue; for some minutes after its end, too."""

    number: int
    name: str
    state: str
    reason: str
    """Why it waits, or why it ended; `None` is Slurm's for no reason."""
    nodes: str

    @property
    def living(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in FINISHED

    @property
    def waiting(self) -> bool:
        """Whether it is not on any node yet."""
        return self.living and not self.nodes


def call(*argv: str) -> str:
    """What a command of Slurm prints.

    Raises:
        SlurmError: it is not there, did not answer, or refused: its first line of complaint.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise SlurmError(f"no {argv[0]} on this machine; a login node of the cluster has it") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{argv[0]}: no answer within {TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = (
            lines[0].removeprefix(f"{argv[0]}: ").removeprefix("error: ") if lines else f"exit code {done.returncode}"
        )
        raise SlurmError(f"{argv[0]}: {said}")
    return done.stdout


def partitions() -> list[str]:
    """Names of the cluster's partitions."""
    return call("sinfo", "--noheader", "--format=%R").split()


def check(script: Path) -> None:
    """Have a batch script checked without submitting it.

    Raises:
        SlurmError: it would be refused.
    """
    call("sbatch", "--test-only", str(script))


def submit(script: Path, after: Sequence[int], condition: str) -> int:
    """Submit a batch script; returns the job's number.

    Args:
        script: with all options but what it waits for.
        after: numbers of other jobs.
        condition: on their end, `afterok` or `afterany`; a job whose condition can no longer be met is cancelled.
    """
    waits = [f"--dependency={condition}:{':'.join(map(str, after))}", "--kill-on-invalid-dep=yes"] if after else []
    return int(call("sbatch", "--parsable", *waits, str(script)).strip().partition(";")[0])


def entries() -> dict[int, Entry]:
    """This user's jobs by number: waiting, running, and those that ended a while ago."""
    found = {}
    for line in call("squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%N|%r|%j").splitlines():
        number, state, nodes, reason, name = line.strip().split("|", 4)
        if number.isdigit():
            found[int(number)] = Entry(number=int(number), name=name, state=state, reason=reason, nodes=nodes)
    return found


def cancel(numbers: Sequence[int]) -> None:
    """Take jobs out of the queue, or end them."""
    if numbers:
        call("scancel", *map(str, numbers))


def ask_to_save(number: int) -> None:
    """Send a running job's script what it gets before a time limit."""
    call("scancel", "--batch", "--signal=USR1", str(number))
