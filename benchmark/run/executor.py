"""Executors: make the command line of a job. The protocol, and `Local`, which uses processes of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmark.machine.environment import MASTER_PORT, TENSORFLOW_PYTHON, job_environment, recorded
from benchmark.plan.run_directory import RunDirectory
from benchmark.plan.stages import Stage
from evaluator.tools import TOOL_MODULES


@dataclass(frozen=True, kw_only=True)
class Command:
    """A Python module with its arguments, and what an executor must know of it."""

    module: str
    arguments: tuple[str, ...]
    processes: int
    """That work on it together, over all nodes; 1: it starts by itself."""
    reads: tuple[str, ...]
    """Places that it reads, as the manifest names them; those in the run directory too."""
    writes: Path
    """The run directory."""


def command_of(
    stages: Sequence[Stage], directory: RunDirectory, processes: int = 1, until: int | None = None
) -> Command:
    """The job of one batch of stages; the same in a container and on a cluster.

    Args:
        stages: of one batch.
        directory: of the run.
        processes: of training and sampling, over all nodes.
        until: number of first images to stop sampling after, for a look at them.
    """
    kind = stages[0].kind
    return Command(
        module=kind.module(stages[0].job),
        arguments=(*kind.arguments(stages, directory, processes), *(["--until", str(until)] if until else [])),
        processes=processes if kind.distributed else 1,
        reads=tuple(dict.fromkeys(place for stage in stages for place in stage.places)),
        writes=directory.root,
    )


class Executor(Protocol):
    """A backend that turns a job into a command line of this machine.

    That command runs in the foreground, prints the job's lines, passes SIGTERM to the job, and ends with its exit code.
    """

    def argv(self, command: Command) -> list[str]:
        """The command line that starts the job on this node and waits for it.

        Raises:
            UserError: it cannot be started here.
        """
        ...

    def ready(self, command: Command) -> None:
        """Check what would make the job fail before it is started.

        Raises:
            UserError: it would fail; with the remedy.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """What a run's provenance says of the environment of its jobs, JSON-ready."""
        ...


@dataclass(frozen=True, kw_only=True)
class Node:
    """This machine among those that share a job."""

    count: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    """Of the node of rank 0, as the others reach it."""
    port: int = MASTER_PORT


SINGLE_NODE = Node()


@dataclass(frozen=True)
class Local:
    """Processes of this machine; on several nodes they meet at the address of rank 0."""

    node: Node = SINGLE_NODE
    python: str | None = None
    """Interpreter of the jobs; None: that of this process, or of the environment with TensorFlow."""

    def argv(self, command: Command) -> list[str]:
        """`python -m MODULE ...`, through the launcher if several processes share the job."""
        job = ["-m", command.module, *command.arguments]
        if command.processes == 1:
            return [self.python or interpreter_of(command.module), *job]
        return [self.python or sys.executable, "-m", "sra.runtime.launch", *self._rendezvous(command.processes), *job]

    def ready(self, _command: Command) -> None:
        """Nothing to check: the job reports what it lacks."""

    def facts(self) -> dict[str, Any]:
        """The inherited variables that can matter."""
        return {"variables": recorded(job_environment())}

    def _rendezvous(self, processes: int) -> list[str]:
        if self.node.count == 1:
            return ["--standalone", "--nproc-per-node", str(processes)]
        assert processes % self.node.count == 0, (processes, self.node.count)
        where = ["--nnodes", str(self.node.count), "--node-rank", str(self.node.rank)]
        where += ["--master-addr", self.node.address, "--master-port", str(self.node.port)]
        return [*where, "--nproc-per-node", str(processes // self.node.count)]


LOCAL = Local()


def interpreter_of(module: str) -> str:
    """The Python that runs a module: TensorFlow may have an environment of its own."""
    return (module == TOOL_MODULES["adm"] and os.environ.get(TENSORFLOW_PYTHON)) or sys.executable
