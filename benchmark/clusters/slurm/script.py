"""A job of a run as a batch script of Slurm: resources, signal before the time limit, requeue."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmark.clusters.jobs import Job
from benchmark.clusters.slurm.grace_period import GracePeriod, grace_period
from benchmark.clusters.slurm.site import JOB_ENV, Group, SlurmSite, seconds_of
from benchmark.containers.executor import mountable, read_only_mounts
from benchmark.machine.environment import FURTHER, TENSORFLOW_PYTHON, further_names
from benchmark.plan.run_directory import RunDirectory
from benchmark.run.executor import command_of
from sra.common.errors import STOPPED, UserError, expected

PORTS = 1000
"""A job on several nodes uses one of so many ports: the first node of two jobs may be the same."""
MAX_STALLED_REQUEUES = 3
"""Number of stops in a row at the same step after which a job is not requeued."""
REQUEUE_PAUSES_SECONDS = "1 5 15 0"
"""After each attempt to queue a job again, while the controller does not answer."""
CHOSEN_BY_USERS = ("partition", "account", "qos", "constraint", "reservation")
"""Options that are taken from sbatch's variables (SBATCH_ACCOUNT, ...) where the site file has no value."""
STRAGGLER_SECONDS = 600
"""Time for the other nodes to end after the first one has ended."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where the jobs of a run are submitted."""

    site: SlurmSite
    path: Path
    """Of the site file."""
    processes: int
    """Of training and sampling, over all nodes."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One job of a run, as Slurm gets it."""

    job: Job
    run: str
    """Name of the run."""
    directory: RunDirectory
    cluster: Cluster

    @property
    def group(self) -> Group:
        """Its resources."""
        return self.cluster.site.group(self.job.kind, self.job.tool)

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.group.nodes if self.job.distributed else 1

    @property
    def gpus(self) -> int:
        """GPUs of each node."""
        return self.group.gpus_per_node if self.job.distributed else min(1, self.group.gpus_per_node)

    @property
    def grace(self) -> GracePeriod:
        """When it is signalled before the time limit."""
        return grace_period(self.job.stages, self.cluster.site.checkpoint_rate)

    @property
    def label(self) -> str:
        """Its name in the queue."""
        return f"{self.run}-{self.job.name}"

    def file(self, suffix: str) -> Path:
        """One of its files: `sh` the script, `stops` the step at each stop, `cancel` forbids to queue it again."""
        return self.directory.cluster / f"{self.job.name}.{suffix}"

    def where(self, key: str) -> str:
        """Key of its group in the site file, for errors."""
        return f"{self.cluster.path}: slurm: {self.cluster.site.group_name(self.job.kind, self.job.tool)}.{key}"


def script(batch: Batch) -> str:
    """Batch script of a job.

    Raises:
        UserError: a time limit that leaves no time to work.
    """
    lines = ["#!/bin/bash", *(f"#SBATCH {shlex.quote(option)}" for option in options(batch)), HEADER, ""]
    lines += [f"stops={_quoted(batch.file('stops'))}", f"cancelled={_quoted(batch.file('cancel'))}"]
    hearts = " ".join(_quoted(stage.directory / "heartbeat.json") for stage in batch.job.stages) or "/dev/null"
    if names := _further(batch.cluster.site):
        lines.append(f"export {FURTHER}={','.join(names)}")
    lines += [f"heartbeats=({hearts})", *batch.cluster.site.setup, *(_ADDRESS if batch.nodes > 1 else ())]
    return "\n".join([*lines, _START.format(command=" ".join(_words(batch))), _END])


def options(batch: Batch) -> list[str]:
    """Options of sbatch, except the dependencies.

    Raises:
        UserError: a time limit that leaves no time to work.
    """
    group, grace = batch.group, batch.grace
    if seconds_of(group.time) <= grace.seconds:
        limit = f"more than {grace.seconds} s, the grace period of {batch.job.name} ({grace.how})"
        raise UserError(expected(batch.where("time"), limit, group.time))
    log = str(batch.directory.cluster / f"{batch.job.name}.log").replace("%", "%%")
    values = {
        **{key: getattr(group, key, None) or os.environ.get(f"SBATCH_{key.upper()}") for key in CHOSEN_BY_USERS},
        "nodes": batch.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": group.cpus_per_task,
        "mem": group.memory,
        "time": group.time,
        **_gpus(batch),
        "job-name": batch.label,
        "output": log,
        "open-mode": "append",
        "signal": f"B:USR1@{grace.seconds}",
        "export": ",".join(_environment(batch.cluster.site)),
    }
    return [*(f"--{k}={v}" for k, v in values.items() if v is not None), "--requeue", *group.options]


def _environment(site: SlurmSite) -> list[str]:
    """Names of the variables that jobs inherit; an image knows its own interpreters."""
    names = dict.fromkeys((*JOB_ENV, *_further(site)))
    if site.container.kind != "none":
        names.pop(TENSORFLOW_PYTHON, None)
    return [name for name in names if name in os.environ]


def _further(site: SlurmSite) -> list[str]:
    """Names of the variables that jobs get because a site or the user says so."""
    return sorted({*site.environment, *further_names()})


def _gpus(batch: Batch) -> dict[str, str]:
    if not batch.gpus or batch.group.gpu_flag == "none":
        return {}
    kind = f"{batch.group.gpu_type}:" if batch.group.gpu_type else ""
    name = "gpu:" if batch.group.gpu_flag == "gres" else ""
    return {batch.group.gpu_flag: f"{name}{kind}{batch.gpus}"}


def _words(batch: Batch) -> list[str]:
    """Quoted words of the command that the script starts; variables of the script are in double quotes."""
    command = ["srun", f"--nodes={batch.nodes}", f"--ntasks={batch.nodes}", "--ntasks-per-node=1"]
    command += [f"--cpus-per-task={batch.group.cpus_per_task}", "--export=ALL"]
    if batch.nodes > 1:
        command.append(f"--wait={STRAGGLER_SECONDS}")
    command += [*_launcher(batch), "work", str(batch.directory.root), "--grace", str(batch.grace.seconds)]
    command += [part for name in batch.job.directories for part in ("--stage", name)]
    if batch.job.distributed:
        command += ["--processes", str(batch.cluster.processes)]
    words = [shlex.quote(word) for word in command]
    if batch.nodes > 1:
        words += ["--nodes", str(batch.nodes), "--master-addr", '"$head"']
        words += ["--master-port", f"$(({batch.cluster.site.port} + SLURM_JOB_ID % {PORTS}))"]
    return words


def _launcher(batch: Batch) -> list[str]:
    """`sra-bench` on the nodes, after the words that start its container."""
    site, container = batch.cluster.site, batch.cluster.site.container
    if container.kind == "none":
        return [site.command or _own_command(batch)]
    assert container.image is not None
    root, stages = batch.directory.root, list(batch.job.stages)
    reads = read_only_mounts(command_of(stages, batch.directory)) if stages else []
    inputs = [f"{mountable(place)}:{place}:ro" for place in reads if place.exists()]
    mounts = ",".join([f"{mountable(root)}:{root}", *inputs, *container.mounts])
    command = site.command or "sra-bench"
    if container.kind == "pyxis":
        return [f"--container-image={container.image}", f"--container-mounts={mounts}", command]
    gpus = ["--nv"] if batch.gpus else []
    return [container.kind, "exec", *gpus, "--bind", mounts, container.image, command]


def _own_command(batch: Batch) -> str:
    """Absolute path of this environment's `sra-bench`.

    Raises:
        UserError: it has none.
    """
    found = Path(sys.executable).parent / "sra-bench"
    if not found.is_file():
        raise UserError(f"{batch.cluster.path}: slurm: command: missing, and there is no {found}")
    return str(found)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


HEADER = "# Written by sra-bench submit, which overwrites it."
_ADDRESS = (
    "# The address at which Slurm itself reaches the first node.",
    """head=$(scontrol -o show node "$SLURMD_NODENAME" | sed -n 's/.* NodeAddr=\\([^ ]*\\).*/\\1/p')""",
    """head=${head:-$SLURMD_NODENAME}""",
)
_START = """
set -euo pipefail
step=
stopping=0
forwarded=0
forward() {{
  stopping=1
  again=1
  # A second signal would end the step while it saves.
  if [ -n "$step" ] && [ "$forwarded" -eq 0 ]; then
    forwarded=1
    kill -USR1 "$step" 2>/dev/null || true
  fi
}}
trap forward USR1
{command} &
step=$!
[ "$stopping" -eq 0 ] || forward
while :; do
  again=0
  code=0
  wait "$step" || code=$?
  # A signal ends the wait, not the step.
  [ "$again" -eq 1 ] || break
done
"""
_END = f"""\
if [ "$code" -ne {STOPPED} ] && {{ [ "$stopping" -eq 0 ] || [ "$code" -le 128 ]; }}; then
  exit "$code"
fi
if [ -e "$cancelled" ]; then
  echo "stopped by sra-bench cancel; the work is saved"
  exit {STOPPED}
fi
{{ grep -oh '"step": [0-9]*' "${{heartbeats[@]}}" 2>/dev/null || true; }} | tr '\\n' ' ' >>"$stops"
echo >>"$stops"
limit={MAX_STALLED_REQUEUES}
if [ "$(wc -l <"$stops")" -ge "$limit" ] && [ "$(tail -n "$limit" "$stops" | sort -u | wc -l)" -eq 1 ]; then
  echo "error: stopped $limit times in a row at the same step: not queued again; is the time limit too short?" >&2
  exit 2
fi
for pause in {REQUEUE_PAUSES_SECONDS}; do
  scontrol requeue "$SLURM_JOB_ID" && exit 0
  sleep "$pause"
done
echo "error: the work is saved, but the job could not be queued again; submit it again" >&2
exit {STOPPED}
"""
