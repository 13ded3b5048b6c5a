"""The executor that the command line names."""

from __future__ import annotations

from benchmark.executors import Executor
from benchmark.executors.container import container
from benchmark.executors.local import Local
from benchmark.executors.settings import parsed
from sra.errors import UserError


def choose(name: str, containers: list[str] | None) -> Executor:
    """Local processes or containers.

    Args:
        name: `local` or `container`.
        containers: KEY=VALUE settings of containers.

    Raises:
        UserError: settings that do not fit, or no engine.
    """
    if name == "container":
        return container(parsed(containers or []))
    if containers:
        raise UserError(f"--container {containers[0]}: only with --executor container")
    return Local()
