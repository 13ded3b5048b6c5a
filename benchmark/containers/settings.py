"""Which image runs what, and how containers are started: shared by all executors and clusters that use images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from benchmark.containers.build import REPOSITORY, installed_version, reference_of
from evaluator.tools import TOOL_MODULES
from sra.common.errors import UserError, expected
from sra.common.validation import IN_HOME, STRICT, matching, validated

NamePart = Annotated[str, IN_HOME, matching(r"[\w./:-]+", "letters, digits and . / : _ -")]
Role = Literal["trainer", "evaluator", "all"]
EVALUATOR_PYTHON = "/opt/evaluator/bin/python"
"""TensorFlow's interpreter in the image `all`, where plain `python` has torch."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The project's images, `REPOSITORY/ROLE:TAG`."""

    __pydantic_config__ = STRICT

    repository: NamePart = REPOSITORY
    """Registry and path."""
    tag: NamePart | None = None
    """Default: the suite's version."""
    one: bool = False
    """Use the image `all` for everything, rather than `trainer` and `evaluator`."""

    def role(self, module: str) -> Role:
        """Image that runs a module."""
        if self.one:
            return "all"
        return "evaluator" if module == TOOL_MODULES["adm"] else "trainer"

    def python(self, module: str) -> str:
        """Interpreter of a module in its image."""
        return EVALUATOR_PYTHON if self.one and module == TOOL_MODULES["adm"] else "python"

    def reference(self, role: Role) -> str:
        """Full name of an image."""
        return reference_of(role, self.tag, self.repository)


@dataclass(frozen=True, kw_only=True)
class ContainerSettings(Images):
    """Containers on this machine."""

    engine: Literal["auto", "docker", "podman", "apptainer"] = "auto"
    """Engine; auto: the first of docker, podman and apptainer that is installed."""
    shared_memory: Annotated[str, matching(r"\d+[kmg]", "a number with k, m or g, such as 8g")] = "8g"
    """Size of /dev/shm, which the processes of a multi-GPU job share (docker and podman)."""
    other_revision: bool = False
    """Accept images made from another revision than this suite's."""

    def file(self, role: Role) -> str:
        """Path of an image of Apptainer."""
        return f"{self.repository}/{role}-{self.tag or installed_version()}.sif"


def parse_settings(items: list[str]) -> ContainerSettings:
    """Parse the settings of `--container KEY=VALUE` options.

    Raises:
        UserError: an item of another form, an unknown key or a bad value.
    """
    for item in items:
        if "=" not in item:
            raise UserError(expected("--container", "key=value", item))
    pairs = dict(item.split("=", 1) for item in items)
    return validated(ContainerSettings, pairs, "--container")
