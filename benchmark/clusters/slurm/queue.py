"""Slurm's commands: sinfo, sbatch, squeue and scancel, with their errors in one line.

Sites put wrappers around them, which print more, and controllers restart: only lines of the expected form count, and
what only asks is asked again, a few times.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.containers.engine import reason
from sra.common.errors import UserError

TIMEOUT_SECONDS = 120
RETRY_SECONDS = (1.0, 2.0, 4.0)
"""Pauses before a command that failed is asked again."""
VARIABLES = re.compile("(SALLOC|SBATCH|SCANCEL|SINFO|SLURM|SQUEUE)_.*")
"""Options of Slurm's commands, and what an allocation leaves in its shell: they would filter the queue, override the
script, or reach the job."""
CHOICES = ("SLURM_CLUSTERS", "SLURM_CONF", "SLURM_JWT")
"""Of these, the ones by which a user chooses the cluster and the credentials."""
NO_ANSWER = re.compile("timed out|unable to contact|zero bytes|communication|connection", re.IGNORECASE)
"""In an error: the controller may still have done what it was asked."""
JOB_ID = re.compile(r"(?:Submitted batch job )?(\d+)(?:;(\S+)| on cluster (\S+))?")
"""The line of sbatch that tells the job id, with --parsable or without, and the cluster if it is another one."""
JOB_LINE = re.compile(r"(\d+)\|([A-Z_]+)\|([^|]*)\|([^|]*)\|([^|]*)(?:\|(.*))?")
SHOWN_JOB = re.compile(
    r"JobId=(?P<number>\d+) .*?JobName=(?P<name>\S+) UserId=\S*\((?P<user>\d+)\) .*?JobState=(?P<state>\w+) "
    r"Reason=(?P<reason>\S+) .*? NodeList=(?P<nodes>\S*) .*? Command=(?P<script>.*?) WorkDir="
)
"""A line of `scontrol -o show job`."""
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


class UncertainError(SlurmError):
    """A command of Slurm that did not answer: it may have done what it was asked."""


@dataclass(frozen=True, kw_only=True)
class QueuedJob:
    """A line of squeue: a job that waits, runs, or ended some minutes ago."""

    number: int
    name: str
    state: str
    reason: str
    """Why it waits, or why it ended; Slurm writes `None` for no reason."""
    nodes: str
    script: str = ""
    """Path of its batch script, as it was submitted."""

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in FINAL_STATES

    @property
    def waiting(self) -> bool:
        """Whether it has no node yet."""
        return self.active and not self.nodes


class JobId(NamedTuple):
    """What sbatch calls a job."""

    number: int
    cluster: str | None = None
    """If it is not the cluster of this machine."""


def call(*argv: str) -> str:
    """Output of a command of Slurm.

    Raises:
        SlurmError: not installed, no answer, or failed: its line with the error.
    """
    done = _run(argv)
    if done.returncode != 0:
        line = reason(done).removeprefix(f"{argv[0]}: ").removeprefix("error: ")
        raise (UncertainError if NO_ANSWER.search(line) else SlurmError)(f"{argv[0]}: {line}")
    return done.stdout


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k in CHOICES or not VARIABLES.fullmatch(k)}
    settings: dict[str, Any] = {"text": True, "errors": "replace", "env": environment, "check": False}
    try:
        return subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_SECONDS, **settings)
    except FileNotFoundError as error:
        raise SlurmError(f"no {argv[0]} on this machine; a login node of the cluster has it") from error
    except OSError as error:
        raise SlurmError(f"{argv[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UncertainError(f"{argv[0]}: no answer within {TIMEOUT_SECONDS} s") from error


def ask(*argv: str) -> str:
    """Output of a command that changes nothing; when it fails, it is asked again.

    Raises:
        SlurmError: as `call`.
    """
    for pause in RETRY_SECONDS:
        if (done := _run(argv)).returncode == 0:
            return done.stdout
        time.sleep(pause)
    return call(*argv)


def partitions() -> list[str]:
    """Names of the cluster's partitions."""
    return [line.strip() for line in ask("sinfo", "--noheader", "--format=%R").splitlines() if " " not in line.strip()]


def check(script: Path) -> None:
    """Have Slurm check a batch script without submitting it.

    Raises:
        SlurmError: it would be refused.
    """
    call("sbatch", "--test-only", str(script))


def submit(script: Path, after: Sequence[int], condition: str) -> JobId:
    """Submit a batch script; returns the job id.

    Args:
        script: with all options except its dependencies.
        after: ids of the jobs that it depends on.
        condition: `afterok` or `afterany`; a job whose condition can no longer be met is cancelled.

    Raises:
        UncertainError: it may have been accepted.
        SlurmError: it was refused.
    """
    waits = [f"--dependency={condition}:{':'.join(map(str, after))}", "--kill-on-invalid-dep=yes"] if after else []
    output = call("sbatch", "--parsable", *waits, str(script))
    found = [match for line in output.splitlines() if (match := JOB_ID.fullmatch(line.strip()))]
    if not found:
        raise UncertainError(f"sbatch: expected a job id, got {output.strip()[:200]!r}")
    number, *clusters = found[-1].groups()
    return JobId(int(number), next(filter(None, clusters), None))


def list_jobs(clusters: Iterable[str | None] = (), expected: Iterable[str] = ()) -> dict[int, QueuedJob]:
    """This user's jobs by id: waiting, running, or ended some minutes ago.

    Args:
        clusters: other clusters to ask instead.
        expected: names of jobs; if squeue does not list one of them, the controller is asked for it, too.

    Raises:
        SlurmError: squeue or scontrol fails, again and again.
    """
    argv = ["squeue", *_on(clusters), f"--user={os.getuid()}", "--noheader", "--states=all"]
    lines = ask(*argv, "--format=%i|%T|%N|%r|%j|%o").splitlines()
    found = [match for line in lines if (match := JOB_LINE.fullmatch(line.strip()))]
    jobs = [
        QueuedJob(number=int(m[1]), state=m[2], nodes=m[3], reason=m[4], name=m[5], script=m[6] or "") for m in found
    ]
    if not {job.name for job in jobs}.issuperset(expected):
        jobs += _jobs_of_controller(clusters)
    return {job.number: job for job in jobs}


def _jobs_of_controller(clusters: Iterable[str | None]) -> list[QueuedJob]:
    """This user's jobs as scontrol shows them: squeue may be a wrapper that answers from a copy."""
    lines = ask("scontrol", *_on(clusters), "--oneliner", "show", "job").splitlines()
    found = [match for line in lines if (match := SHOWN_JOB.match(line)) and int(match["user"]) == os.getuid()]
    return [
        QueuedJob(
            number=int(m["number"]),
            name=m["name"],
            state=m["state"],
            reason=m["reason"],
            nodes=m["nodes"].replace("(null)", ""),
            script=m["script"],
        )
        for m in found
    ]


def cancel(numbers: Sequence[int], clusters: Iterable[str | None] = ()) -> None:
    """Cancel jobs that wait or run."""
    if numbers:
        _scancel(numbers, clusters)


def request_checkpoint(number: int, cluster: str | None = None) -> None:
    """Send the script of a running job SIGUSR1, as before its time limit."""
    _scancel([number], [cluster], "--batch", "--signal=USR1")


def _scancel(numbers: Sequence[int], clusters: Iterable[str | None], *options: str) -> None:
    """Raises SlurmError, unless the jobs have ended meanwhile."""
    try:
        call("scancel", *_on(clusters), *options, *map(str, numbers))
    except SlurmError:
        queue = list_jobs(clusters)
        if any(queue[number].active for number in numbers if number in queue):
            raise


def _on(clusters: Iterable[str | None]) -> list[str]:
    names = sorted({name for name in clusters if name})
    return [f"--clusters={','.join(names)}"] if names else []
