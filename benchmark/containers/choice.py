"""The executor that the command line names."""

from __future__ import annotations

from benchmark.containers.executor import container
from benchmark.containers.settings import parsed
from benchmark.run.executor import Executor
from benchmark.run.local import Local
from sra.common.errors import UserError


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
