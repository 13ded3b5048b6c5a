"""Jobs as processes of this machine, alone or as one of several nodes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from benchmark.machine.environment import MASTER_PORT, TENSORFLOW_PYTHON
from benchmark.run.command import Command
from evaluator.tools import TOOL_MODULES


@dataclass(frozen=True, kw_only=True)
class Node:
    """This machine's place among those that share a job."""

    count: int = 1
    rank: int = 0
    address: str = "127.0.0.1"
    """Of the node of rank 0, as the others reach it."""
    port: int = MASTER_PORT


ALONE = Node()


@dataclass(frozen=True)
class Local:
    """Processes of this machine; on several nodes they meet at the address of the first."""

    node: Node = ALONE
    python: str | None = None
    """Interpreter of the jobs; None: this process's, and TensorFlow's own where it has one."""

    def argv(self, command: Command) -> list[str]:
        """`python -m MODULE ...`, through the launcher where several processes share the job."""
        job = ["-m", command.module, *command.arguments]
        if command.processes == 1:
            return [self.python or interpreter_of(command.module), *job]
        return [self.python or sys.executable, "-m", "sra.runtime.launch", *self._rendezvous(command.processes), *job]

    def ready(self, _command: Command) -> None:
        """Nothing to check: the job says what it lacks."""

    def _rendezvous(self, processes: int) -> list[str]:
        if self.node.count == 1:
            return ["--standalone", "--nproc-per-node", str(processes)]
        assert processes % self.node.count == 0, (processes, self.node.count)
        where = ["--nnodes", str(self.node.count), "--node-rank", str(self.node.rank)]
        where += ["--master-addr", self.node.address, "--master-port", str(self.node.port)]
        return [*where, "--nproc-per-node", str(processes // self.node.count)]


def interpreter_of(module: str) -> str:
    """The Python that runs a module: TensorFlow may have an environment of its own."""
    return (module == TOOL_MODULES["adm"] and os.environ.get(TENSORFLOW_PYTHON)) or sys.executable
