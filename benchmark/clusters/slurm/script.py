"""A job of a cluster as a batch script for Slurm: what it asks for, how it stops, when it is queued again."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.clusters.jobs import SHARED, Job
from benchmark.clusters.slurm.grace_period import Lead, lead_of
from benchmark.clusters.slurm.site import ENVIRONMENT, Group, SiteError, SlurmSite, seconds_of
from benchmark.containers.executor import read_only_mounts
from benchmark.machine.environment import TENSORFLOW_PYTHON
from benchmark.plan.run_directory import RunDirectory
from benchmark.run.command import command_of
from benchmark.run.runner import STOPPED

PORTS = 1000
"""A job over several nodes takes one of so many ports: two may have their first node in common."""
BARREN = 3
"""Stops in a row at the same place after which a job is not queued again."""
STRAGGLER_SECONDS = 600
"""How long the other nodes may go on when the first of them has ended."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One job of a run, as Slurm gets it."""

    job: Job
    run: str
    """Name of the run."""
    directory: RunDirectory
    site: SlurmSite
    processes: int
    """Of training and sampling, over all nodes."""

    @property
    def group(self) -> Group:
        """What it asks for."""
        return self.site.group(self.job.kind, self.job.tool)

    @property
    def nodes(self) -> int:
        """Machines that it needs."""
        return self.group.nodes if self.job.kind in SHARED else 1

    @property
    def gpus(self) -> int:
        """GPUs on each of them."""
        return self.group.gpus_per_node if self.job.kind in SHARED else min(1, self.group.gpus_per_node)

    @property
    def lead(self) -> Lead:
        """How long before the time limit it is told."""
        return lead_of(self.job.stages, self.site.checkpoint_rate)

    @property
    def label(self) -> str:
        """Its name in the queue."""
        return f"{self.run}-{self.job.name}"

    def file(self, suffix: str) -> Path:
        """One of its files: `sh` the script, `stops` how far it was at each stop, `cancel` not to be queued again."""
        return self.directory.cluster / f"{self.job.name}.{suffix}"


def script(batch: Batch) -> str:
    """The batch script of a job.

    Raises:
        SiteError: a time limit that leaves no time to work.
    """
    lines = ["#!/bin/bash", *(f"#SBATCH {shlex.quote(option)}" for option in options(batch)), HEADER, ""]
    lines += [f"stops={_quoted(batch.file('stops'))}", f"cancelled={_quoted(batch.file('cancel'))}"]
    hearts = " ".join(_quoted(stage.directory / "heartbeat.json") for stage in batch.job.stages) or "/dev/null"
    lines += [f"heartbeats=({hearts})", *batch.site.setup, *(_ADDRESS if batch.nodes > 1 else ())]
    return "\n".join([*lines, _START.format(command=" ".join(_words(batch))), _END])


def options(batch: Batch) -> list[str]:
    """Options of sbatch, all but what the job waits for.

    Raises:
        SiteError: a time limit that leaves no time to work.
    """
    group, lead = batch.group, batch.lead
    if seconds_of(group.time) <= lead.seconds:
        key = f"slurm: {batch.site.place(batch.job.kind, batch.job.tool)}.time"
        raise SiteError(f"{key}: found {group.time!r}; {batch.job.name} is told {lead.seconds} s before: {lead.how}")
    named = {"partition": group.partition, "account": group.account, "qos": group.qos, "constraint": group.constraint}
    asked = {**named, "nodes": batch.nodes, "ntasks-per-node": 1, "cpus-per-task": group.cpus_per_task}
    asked |= {"mem": group.memory, "time": group.time, **_gpus(batch)}
    log = str(batch.directory.cluster / f"{batch.job.name}.log").replace("%", "%%")
    asked |= {"job-name": batch.label, "output": log, "open-mode": "append", "signal": f"B:USR1@{lead.seconds}"}
    asked |= {"export": ",".join(_environment(batch.site))}
    given = [f"--{name}={value}" for name, value in asked.items() if value is not None]
    return [*given, "--requeue", *group.options]


def _environment(site: SlurmSite) -> list[str]:
    """Names of the variables that jobs get; an image knows its own interpreters."""
    names = dict.fromkeys((*ENVIRONMENT, *site.environment))
    if site.container.kind != "none":
        names.pop(TENSORFLOW_PYTHON, None)
    return [name for name in names if name in os.environ]


def _gpus(batch: Batch) -> dict[str, str]:
    if not batch.gpus:
        return {}
    kind = f"{batch.group.gpu_type}:" if batch.group.gpu_type else ""
    if batch.group.gpu_flag == "gres":
        return {"gres": f"gpu:{kind}{batch.gpus}"}
    return {"gpus-per-node": f"{kind}{batch.gpus}"}


def _words(batch: Batch) -> list[str]:
    """The words of the command that the script starts, quoted; variables of the script stand in double quotes."""
    command = ["srun", f"--nodes={batch.nodes}", f"--ntasks={batch.nodes}", "--ntasks-per-node=1"]
    command += [f"--cpus-per-task={batch.group.cpus_per_task}", "--export=ALL"]
    if batch.nodes > 1:
        command.append(f"--wait={STRAGGLER_SECONDS}")
    command += [*_container(batch), "work", str(batch.directory.root), "--grace", str(batch.lead.seconds)]
    command += [part for name in batch.job.directories for part in ("--stage", name)]
    if batch.job.kind in SHARED:
        command += ["--processes", str(batch.processes)]
    words = [shlex.quote(word) for word in command]
    if batch.nodes > 1:
        words += ["--nodes", str(batch.nodes), "--master-addr", '"$head"']
        words += ["--master-port", f"$(({batch.site.port} + SLURM_JOB_ID % {PORTS}))"]
    return words


def _container(batch: Batch) -> list[str]:
    """Options of srun, and the command up to `sra-bench` itself."""
    box = batch.site.container
    if box.kind == "none":
        return [batch.site.command or own_command()]
    assert box.image is not None
    command, mounts = batch.site.command or "sra-bench", ",".join(_mounts(batch))
    if box.kind == "pyxis":
        return [f"--container-image={box.image}", f"--container-mounts={mounts}", command]
    gpus = ["--nv"] if batch.gpus else []
    return ["apptainer", "exec", *gpus, "--bind", mounts, box.image, command]


def _mounts(batch: Batch) -> list[str]:
    """The run directory, what the stages read outside of it, and what the site names."""
    root, stages = batch.directory.root, list(batch.job.stages)
    reads = read_only_mounts(command_of(stages, batch.directory)) if stages else []
    readable = [f"{place}:{place}:ro" for place in reads if place.exists()]
    return [f"{root}:{root}", *readable, *batch.site.container.mounts]


def own_command() -> str:
    """The absolute `sra-bench` of this environment.

    Raises:
        SiteError: it has none.
    """
    found = Path(sys.executable).parent / "sra-bench"
    if not found.is_file():
        raise SiteError(f"slurm: command: missing, and there is no {found}: name the nodes' sra-bench")
    return str(found)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


HEADER = "# Written by sra-bench submit, which writes it again."
_ADDRESS: Sequence[str] = (
    "# The address at which Slurm itself reaches the first node.",
    """head=$(scontrol -o show node "$SLURMD_NODENAME" | sed -n 's/.* NodeAddr=\\([^ ]*\\).*/\\1/p')""",
)
_START = """
set -euo pipefail
step=
asked=0
told=0
pass_on() {{
  asked=1
  again=1
  # A second signal would end the step while it saves.
  if [ -n "$step" ] && [ "$told" -eq 0 ]; then
    told=1
    kill -USR1 "$step" 2>/dev/null || true
  fi
}}
trap pass_on USR1
{command} &
step=$!
[ "$asked" -eq 0 ] || pass_on
while :; do
  again=0
  code=0
  wait "$step" || code=$?
  # A signal ends the wait, not the step.
  [ "$again" -eq 1 ] || break
done
"""
_END = f"""\
if [ "$code" -ne {STOPPED} ] && {{ [ "$asked" -eq 0 ] || [ "$code" -le 128 ]; }}; then
  exit "$code"
fi
if [ -e "$cancelled" ]; then
  echo "stopped by sra-bench cancel; the work is saved"
  exit {STOPPED}
fi
{{ grep -oh '"step": [0-9]*' "${{heartbeats[@]}}" 2>/dev/null || true; }} | tr '\\n' ' ' >>"$stops"
echo >>"$stops"
if [ "$(wc -l <"$stops")" -ge {BARREN} ] && [ "$(tail -n {BARREN} "$stops" | sort -u | wc -l)" -eq 1 ]; then
  echo "error: stopped {BARREN} times in a row at the same place: not queued again; is the time limit too short?" >&2
  exit 2
fi
scontrol requeue "$SLURM_JOB_ID"
"""
