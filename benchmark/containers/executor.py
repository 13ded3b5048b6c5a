"""Jobs in containers of this machine: docker, podman or Apptainer, one container for each batch of stages.

The job sees its inputs read-only and the run directory, both under the paths that they have outside, no network, and
nothing of the image that it could write. The lock of the run is inherited by the engine's client, not by the container,
which could therefore outlive it: each container is named after its run directory, an engine gives a name to one
container only, and `ready` stops a leftover.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.assets.catalogue import folder
from benchmark.containers import preflight
from benchmark.containers.engine import HARDENED, TMPFS, EngineError, find_engine, find_image
from benchmark.containers.settings import ContainerSettings, Role, parse_settings
from benchmark.machine.environment import (
    ASSETS_FOLDER,
    GRACE_SECONDS,
    JOB_ENV,
    REVISION,
    TENSORFLOW_PYTHON,
    further_names,
    job_environment,
    recorded,
)
from benchmark.machine.gpus import visible_gpus
from benchmark.plan.plan import is_hub_id
from benchmark.plan.run_directory import key_of
from benchmark.run.executor import SINGLE_NODE, Command, Executor, Local
from sra.common.errors import UserError
from sra.common.files import home_path

APPTAINER = "apptainer"
PASSED_ON = re.compile(r"CUDA_VISIBLE_DEVICES|(OMP|MKL|OPENBLAS|NCCL|SRA_BENCH)_\w+")
"""Of the variables that jobs get, the ones that mean the same in a container."""
NOT_PASSED_ON = (TENSORFLOW_PYTHON, REVISION, ASSETS_FOLDER)
"""Of these, the ones that the image or this executor sets."""
FIXED_ENV = {"HOME": "/tmp", "HF_HUB_OFFLINE": "1", **JOB_ENV}  # noqa: S108


def choose_executor(name: str, containers: list[str] | None) -> Executor:
    """The executor that the command line names.

    Args:
        name: `local` or `container`.
        containers: KEY=VALUE settings of containers.

    Raises:
        UserError: settings that do not fit, or no engine.
    """
    if name == "container":
        return container(parse_settings(containers or []))
    if containers:
        raise UserError(f"--container {containers[0]}: only with --executor container")
    return Local()


def container(settings: ContainerSettings) -> Container:
    """The executor for settings; `engine: auto` becomes the engine of this machine.

    Raises:
        EngineError: no engine is installed and answers, or not the one that was named.
    """
    engine = settings.engine
    if engine == APPTAINER and shutil.which(APPTAINER) is None:
        raise EngineError("--container engine=apptainer: apptainer is not on PATH")
    if engine != APPTAINER:
        try:
            return Container(settings, find_engine(None if engine == "auto" else engine))
        except EngineError:
            if engine != "auto" or shutil.which(APPTAINER) is None:
                raise
    return Container(settings, APPTAINER)


@dataclass(frozen=True)
class Container:
    """Containers of one engine."""

    settings: ContainerSettings
    engine: str

    def argv(self, command: Command) -> list[str]:
        """The engine's command line with the job's within it."""
        job = Local(SINGLE_NODE, self.settings.python(command.module)).argv(command)
        return [*self.start(command, name_of(command.writes)), *job]

    def ready(self, command: Command) -> None:
        """Stop a leftover container; check image, revision, driver, GPUs, shared memory and write permission.

        Raises:
            UserError: the container could not work.
        """
        reference, gpus = self.image(command), visible_gpus()
        if self.engine == APPTAINER:
            if not Path(reference).is_file():
                raise EngineError(
                    f"{reference}: no such file; `apptainer build` makes it, see containers/apptainer.def"
                )
            scratch_of(command.writes).mkdir(parents=True, exist_ok=True)
        else:
            image = find_image(self.engine, reference)
            if not self.settings.other_revision:
                preflight.check_revision(reference, image)
            preflight.remove_leftover(self.engine, name_of(command.writes))
            if gpus:
                preflight.check_driver(reference, image)
        preflight.check_inside(self.start(command, None), command.writes, gpus, command.processes)

    def facts(self) -> dict[str, Any]:
        """The images with their ids, whose versions are not those of this machine, and the variables passed on."""
        roles: tuple[Role, ...] = ("all",) if self.settings.one else ("trainer", "evaluator")
        return {"images": [self._identity(role) for role in roles], "versions": {}, "variables": recorded(passed_on())}

    def _identity(self, role: Role) -> str:
        if self.engine == APPTAINER:
            return self.settings.file(role)
        reference = self.settings.reference(role)
        with contextlib.suppress(EngineError):
            return f"{reference} {find_image(self.engine, reference).id}"
        return reference

    def image(self, command: Command) -> str:
        """Name, or for Apptainer file, of the image that a job runs in."""
        role = self.settings.role(command.module)
        return self.settings.file(role) if self.engine == APPTAINER else self.settings.reference(role)

    def start(self, command: Command, name: str | None) -> list[str]:
        """The engine's command line up to the image.

        Args:
            command: the job.
            name: of the container; None: the engine's choice, for a check.

        Raises:
            UserError: a place that cannot be mounted.
        """
        options = self._apptainer(command) if self.engine == APPTAINER else self._docker(command, name)
        return [self.engine, *options, self.image(command)]

    def _docker(self, command: Command, name: str | None) -> list[str]:
        options = ["run", "--rm", "--init", "--pull", "never", *(["--name", name] if name else [])]
        # Without a network only this name resolves, and processes that share a job look their own host up.
        options += ["--network", "none", "--hostname", "localhost"]
        options += [*HARDENED, "--tmpfs", TMPFS, "--shm-size", self.settings.shared_memory]
        # The run's log has every line; the engine's copy would fill the root's disk.
        options += ["--log-driver", "none", "--stop-signal", "SIGTERM", "--stop-timeout", f"{GRACE_SECONDS:.0f}"]
        options += self._user()
        if visible_gpus():
            options += ["--gpus", "all"] if self.engine == "docker" else ["--device", "nvidia.com/gpu=all"]
        for place in read_only_mounts(command):
            options += ["--mount", f"type=bind,source={mountable(place)},target={place},readonly"]
        options += ["--mount", f"type=bind,source={mountable(command.writes)},target={command.writes}"]
        for key, value in environment(command).items():
            options += ["--env", f"{key}={value}"]
        return [*options, "--workdir", str(work_directory(command))]

    def _user(self) -> list[str]:
        """Files in the run directory belong to the user who started the run."""
        user = ["--user", f"{os.getuid()}:{os.getgid()}"]
        if self.engine == "docker":
            return user
        # Relabelling a data set for SELinux would rewrite it.
        return [*(["--userns=keep-id"] if os.getuid() else []), *user, "--security-opt", "label=disable"]

    def _apptainer(self, command: Command) -> list[str]:
        # No process namespace of its own: signals and the inherited lock reach the job as they reach a local one.
        options = ["exec", "--cleanenv", "--contain", "--no-home", "--workdir", str(scratch_of(command.writes))]
        options += ["--net", "--network", "none", *(["--nv"] if visible_gpus() else [])]
        for place in read_only_mounts(command):
            options += ["--bind", f"{mountable(place)}:{place}:ro"]
        options += ["--bind", f"{mountable(command.writes)}:{command.writes}:rw"]
        for key, value in environment(command).items():
            # Apptainer sets HOME itself.
            options += ["--env", f"{key}={value}"] if key != "HOME" else []
        return [*options, "--pwd", str(work_directory(command))]


def name_of(directory: Path) -> str:
    """Name of a run's container: one at a time, on one machine."""
    readable = re.sub(r"[^a-zA-Z0-9]+", "-", directory.name).strip("-")[:40]
    return f"sra-bench-{readable or 'run'}-{key_of(str(directory))[:8]}"


def scratch_of(directory: Path) -> Path:
    """Folder for /tmp under Apptainer, whose own holds 64 MB."""
    return directory / "cache" / "scratch"


def read_only_mounts(command: Command) -> list[Path]:
    """Places to mount read-only: inputs outside the run, the assets, the hub's cache; none within another."""
    outside = [Path(os.path.abspath(place)) for place in command.reads if _is_path(place)]  # noqa: PTH100 - as named
    if folder().is_dir():
        outside.append(folder())
    if any(map(is_hub_id, command.reads)):
        outside.append(hub_cache())
    mounts: list[Path] = []
    for place in sorted(set(outside)):
        if not any(place.is_relative_to(parent) for parent in (*mounts, command.writes)):
            mounts.append(place)
    return mounts


def _is_path(place: str) -> bool:
    return not place.startswith(("embedded:", "$")) and not is_hub_id(place)


def hub_cache() -> Path:
    """Folder of this machine with downloaded models of the hub."""
    home = home_path(os.environ.get("HF_HOME") or "~/.cache/huggingface")
    return home_path(os.environ.get("HF_HUB_CACHE") or home / "hub").absolute()


def environment(command: Command) -> dict[str, str]:
    """Environment variables that a job gets in addition to the image's own."""
    hub = {"HF_HUB_CACHE": str(hub_cache())} if any(map(is_hub_id, command.reads)) else {}
    return {**FIXED_ENV, ASSETS_FOLDER: str(folder()), **hub, **passed_on()}


def passed_on() -> dict[str, str]:
    """The variables of this process that jobs in containers get."""
    own, further = {k: v for k, v in sorted(job_environment().items()) if k not in NOT_PASSED_ON}, further_names()
    return {k: v for k, v in own.items() if PASSED_ON.fullmatch(k) or k in further}


def work_directory(command: Command) -> Path:
    """The current folder if an input is named relative to it, else the run directory.

    Raises:
        UserError: the current folder does not exist inside, since no mount lies below it.
    """
    relative = [place for place in command.reads if _is_path(place) and not Path(place).is_absolute()]
    if not relative:
        return command.writes
    here = Path.cwd()
    if not any(place.is_relative_to(here) for place in (*read_only_mounts(command), command.writes)):
        raise UserError(f"{relative[0]}: in a container an input above the working directory needs its absolute path")
    return here


def mountable(place: Path) -> Path:
    """The same path, if its name means nothing special to the engine.

    Raises:
        UserError: it has a comma, colon or quotation mark in it.
    """
    if re.search(r'[,:"]', str(place)):
        raise UserError(f"{place}: a name with a comma, colon or quotation mark cannot be mounted")
    return place
