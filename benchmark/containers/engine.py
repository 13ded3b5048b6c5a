"""Container engines: docker or podman, whichever is there. Only their command lines are used."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from sra.common.errors import UserError, did_you_mean

ENGINES = ("docker", "podman")
ANSWER_SECONDS = 30.0
"""How long an engine may take to say that it is there."""
HARDENED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
"""Options of `run` under which a container changes nothing but its mounts, and gains no rights."""
SCRATCH = "/tmp:rw,exec,nosuid,nodev,mode=1777"  # noqa: S108
"""Of the job's own; torch.compile loads what it has built there."""
CLOSED = (*HARDENED, "--tmpfs", "/tmp")  # noqa: S108
"""Options of `run` under which the suite's images work: nothing but mounts and /tmp can be written."""


class EngineError(UserError):
    """No engine, an engine that does not answer, or one that refused."""


def find_engine(asked: str | None = None) -> str:
    """Name of the engine to use: the one that is asked for, else the first that is installed and answers.

    Raises:
        EngineError: not an engine, not installed, or no answer.
    """
    if asked is not None and asked not in ENGINES:
        raise EngineError(f"--engine {asked!r}: allowed: {', '.join(ENGINES)}{did_you_mean(asked, ENGINES)}")
    wanted = (asked,) if asked else ENGINES
    installed = [name for name in wanted if shutil.which(name)]
    if not installed:
        raise EngineError(
            f"no container engine: {' or '.join(wanted)} is not on PATH; install docker, or podman "
            "(Debian: apt-get install podman buildah runc), or run without images"
        )
    refusals = []
    for name in installed:
        refusal = _refusal(name)
        if refusal is None:
            return name
        refusals.append(f"{name} does not answer: {refusal}")
    raise EngineError("; ".join(refusals))


def _refusal(name: str) -> str | None:
    """Why an engine cannot be used; None where it can."""
    try:
        done = subprocess.run([name, "version"], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"nothing in {ANSWER_SECONDS:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    return None if done.returncode == 0 else last_line(done.stderr)


def ask(engine: str, *arguments: str) -> str:
    """What an engine prints.

    Raises:
        EngineError: it refused.
    """
    done = subprocess.run([engine, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"{engine} {arguments[0]}: {last_line(done.stderr)}")
    return done.stdout


def inspect(engine: str, reference: str) -> dict[str, Any] | None:
    """An image's description, with its `Config`; None where there is no such image.

    Raises:
        EngineError: the engine refused for another reason.
    """
    command = [engine, "image", "inspect", reference]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout)[0]
        return found
    if any(words in done.stderr.lower() for words in ("no such image", "image not known", "failed to find image")):
        return None
    raise EngineError(f"{reference}: {engine} image inspect: {last_line(done.stderr)}")


def labels_of(inspected: dict[str, Any]) -> dict[str, str]:
    """An image's labels; an image need not have any."""
    return (inspected.get("Config") or {}).get("Labels") or {}


def last_line(text: str) -> str:
    """What an engine said last: its reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
