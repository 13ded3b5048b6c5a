"""Container engines: docker or podman, whichever answers. Only their command lines are used."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Self

from sra.common.errors import UserError, one_of

ENGINES = ("docker", "podman")
VERSION_SECONDS = 30.0
"""Time for an engine to print its version."""
COMMAND_SECONDS = 300.0
"""Time for a short command; the first start of an image may copy it."""
HARDENED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
"""Options of `run`: a container can write only to its mounts, and gains no privileges."""
TMPFS = "/tmp:rw,exec,nosuid,nodev,mode=1777"  # noqa: S108
"""Of a job; torch.compile loads the libraries that it has built there."""
LABEL = "org.opencontainers.image"
CUDA_LABEL = "sra-bench.cuda"


class EngineError(UserError):
    """No engine, an engine that does not answer, or a command that failed."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image as its engine describes it."""

    names: list[str]
    id: str
    bytes: int
    version: str | None
    """Of the suite."""
    revision: str | None
    """Commit that it was built from, with `-dirty` if there were uncommitted changes."""
    cuda: str | None
    """Such as cu130, or none."""
    created: str | None

    @classmethod
    def from_inspect(cls, document: dict[str, Any]) -> Self:
        """Read one entry of `image inspect`."""
        labels = (document.get("Config") or {}).get("Labels") or {}
        return cls(
            names=document.get("RepoTags") or [],
            id=document["Id"],
            bytes=document["Size"],
            version=labels.get(f"{LABEL}.version"),
            revision=labels.get(f"{LABEL}.revision"),
            cuda=labels.get(CUDA_LABEL),
            created=document.get("Created"),
        )


def find_engine(asked: str | None = None) -> str:
    """Name of the engine to use: the one that is asked for, else the first that is installed and answers.

    Raises:
        EngineError: not installed, or no answer.
    """
    if asked is not None and asked not in ENGINES:
        raise EngineError(one_of("--engine", asked, ENGINES))
    candidates = (asked,) if asked else ENGINES
    installed = [name for name in candidates if shutil.which(name)]
    if not installed:
        raise EngineError(
            f"no container engine: {' or '.join(candidates)} is not on PATH; install docker, or podman "
            "(Debian: apt-get install podman buildah runc), or run without images"
        )
    failures = []
    for name in installed:
        try:
            run(name, "version", timeout=VERSION_SECONDS)
        except EngineError as error:
            failures.append(str(error))
        else:
            return name
    raise EngineError("; ".join(failures))


def call(*command: str, timeout: float = COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a short command of an engine, whatever its exit code.

    Raises:
        EngineError: it does not answer.
    """
    try:
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{command[0]} {command[1]}: no answer within {timeout:.0f} s") from error
    except OSError as error:
        raise EngineError(f"{command[0]}: {error.strerror}") from error


def run(*command: str, timeout: float = COMMAND_SECONDS) -> str:
    """Output of a command of an engine.

    Raises:
        EngineError: it failed, or does not answer.
    """
    done = call(*command, timeout=timeout)
    if done.returncode != 0:
        raise EngineError(f"{command[0]} {command[1]}: {reason(done)}")
    return done.stdout


def find_image(engine: str, reference: str) -> Image:
    """Describe one image.

    Raises:
        EngineError: it is absent, or the engine failed.
    """
    done = call(engine, "image", "inspect", reference)
    if done.returncode == 0:
        return Image.from_inspect(json.loads(done.stdout)[0])
    if any(words in done.stderr.lower() for words in ("no such image", "image not known", "failed to find image")):
        name = reference.rpartition("/")[2].partition(":")[0]
        raise EngineError(f"{reference}: {engine} has no such image; `sra-bench images build {name}` makes it")
    raise EngineError(f"{reference}: {engine} image inspect: {reason(done)}")


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """Why a command failed: its first line with the word error (docker ends with advice), or its last line."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or [f"exit code {done.returncode}"])[0]
