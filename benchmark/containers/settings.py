"""Which image runs what, and how containers are started: shared by all backends that use images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from benchmark.containers.build import REPOSITORY, installed_version, reference_of
from benchmark.plan.plan import MODULES
from sra.common.errors import UserError
from sra.common.validation import validated
from sra.config import STRICT

Role = Literal["trainer", "evaluator", "all"]
EVALUATOR_PYTHON = "/opt/evaluator/bin/python"
"""TensorFlow's interpreter in the image `all`, where plain `python` is torch's."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The project's images, `REPOSITORY/ROLE:TAG`."""

    __pydantic_config__ = STRICT

    repository: str = REPOSITORY
    """Registry and path."""
    tag: str | None = None
    """Tag; none: the suite's version."""
    one: bool = False
    """Whether the image `all` runs everything, rather than `trainer` and `evaluator` each its own."""

    def __post_init__(self) -> None:
        for key in ("repository", "tag"):
            if not re.fullmatch(r"[\w./:-]+", value := getattr(self, key) or "-"):
                raise ValueError(f"{key}: found {value!r}; allowed: letters, digits and . / : _ -")

    def role(self, module: str) -> Role:
        """Image that runs a module."""
        if self.one:
            return "all"
        return "evaluator" if module == MODULES["adm"] else "trainer"

    def python(self, module: str) -> str:
        """Interpreter of a module in its image."""
        return EVALUATOR_PYTHON if self.one and module == MODULES["adm"] else "python"

    def reference(self, role: Role) -> str:
        """Name of an image, as an engine or a cluster takes it."""
        return reference_of(role, self.tag, self.repository)


@dataclass(frozen=True, kw_only=True)
class ContainerSettings(Images):
    """Containers on this machine."""

    engine: Literal["auto", "docker", "podman", "apptainer"] = "auto"
    """Engine; auto: the first of docker, podman and apptainer that is installed."""
    shared_memory: str = "8g"
    """Size of /dev/shm, where the processes of a multi-GPU job meet (docker and podman)."""
    other_revision: bool = False
    """Whether images may be made from another revision than this suite's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"\d+[kmg]", self.shared_memory):
            raise ValueError(
                f"shared_memory: found {self.shared_memory!r}; expected a number with k, m or g, such as 8g"
            )

    def file(self, role: Role) -> str:
        """Apptainer's image: a file."""
        return f"{self.repository}/{role}-{self.tag or installed_version()}.sif"


def parsed(items: list[str]) -> ContainerSettings:
    """Settings from `--container KEY=VALUE` options.

    Raises:
        UserError: an item of another form, an unknown key or value.
    """
    pairs = [item.partition("=") for item in items]
    for item, (_, separator, _value) in zip(items, pairs, strict=True):
        if not separator:
            raise UserError(f"--container {item!r}: expected key=value")
    return validated(ContainerSettings, {key: value for key, _, value in pairs}, "--container", "its settings")
