"""Which image runs what, and how containers are started: shared by all backends that use images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmark.plan import MODULES
from benchmark.validation import validated
from sra.errors import UserError

Role = Literal["trainer", "evaluator", "all"]
STRICT = {"extra": "forbid"}
EVALUATOR_PYTHON = "/opt/evaluator/bin/python"
"""TensorFlow's interpreter in the image `all`, where plain `python` is torch's."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The project's images, `PREFIX/ROLE:TAG`."""

    __pydantic_config__ = STRICT

    prefix: str = "localhost/sra-bench"
    """Registry and path."""
    tag: str = "latest"
    """Tag."""
    one: bool = False
    """Whether the image `all` runs everything, rather than `trainer` and `evaluator` each its own."""

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
        return f"{self.prefix}/{role}:{self.tag}"


@dataclass(frozen=True, kw_only=True)
class ContainerSettings(Images):
    """Containers on this machine."""

    engine: Literal["auto", "docker", "podman", "apptainer"] = "auto"
    """Engine; auto: the first of docker, podman and apptainer that is installed."""
    shared_memory: str = "2g"
    """Size of /dev/shm, where the processes of a multi-GPU job meet (docker and podman)."""

    def __post_init__(self) -> None:
        size_of(self.shared_memory)

    def file(self, role: Role) -> str:
        """Apptainer's image: a file."""
        return f"{self.prefix}/{role}-{self.tag}.sif"


UNITS = {"k": 2**10, "m": 2**20, "g": 2**30}


def size_of(text: str) -> int:
    """Bytes of a size such as `512m` or `2g`.

    Raises:
        UserError: not a size.
    """
    number, unit = text[:-1], text[-1:].lower()
    if not number.isdigit() or unit not in UNITS:
        raise UserError(f"--container shared_memory: found {text!r}; expected a number with k, m or g, such as 2g")
    return int(number) * UNITS[unit]


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
