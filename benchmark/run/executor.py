"""Where a job is started: one file a backend behind one Protocol."""

from __future__ import annotations

from typing import Protocol

from benchmark.run.command import Command

__all__ = ["Executor"]


class Executor(Protocol):
    """A backend that turns a job into a command line of this machine.

    That command runs in the foreground, prints the job's lines, hands SIGTERM to the job, and ends with its exit code.
    """

    def argv(self, command: Command) -> list[str]:
        """The command line that starts the job on this node and waits for it.

        Raises:
            UserError: it cannot be started here.
        """
        ...

    def ready(self, command: Command) -> None:
        """Check, before the job is started, what would make it fail.

        Raises:
            UserError: it would fail; with the remedy.
        """
        ...
