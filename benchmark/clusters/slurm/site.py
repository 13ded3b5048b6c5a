"""Settings of a Slurm cluster: section `slurm:` of a site file.

slurm:
  gpu: {partition: gpu, nodes: 2, gpus_per_node: 8, cpus_per_task: 64, time: "24:00:00"}
  cpu: {partition: cpu, cpus_per_task: 16, time: "04:00:00"}
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from benchmark.clusters.site_file import Work
from benchmark.machine.environment import ASSETS_FOLDER, MASTER_PORT, TENSORFLOW_PYTHON
from sra.common.errors import expected
from sra.common.files import home_path
from sra.common.validation import IN_HOME, STRICT, matching

SITE = "SRA_BENCH_SITE"
"""Environment variable: the site file; default: `site.yaml` in the current folder."""

GroupName = Literal["gpu", "cpu"]
GPU_WORK = ("latents", "train", "sample")
"""Runs in the group `gpu` by default."""
JOB_ENV = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER", ASSETS_FOLDER, TENSORFLOW_PYTHON)
"""Environment variables that every job gets, if they are set; a site adds to them."""


def _check_time(value: Any) -> Any:
    """Refuse a number, since YAML reads 12:00:00 in base 60, and another form."""
    if isinstance(value, int):
        raise ValueError(f'expected a time in quotes, such as "12:00:00", got the number {value}')
    seconds_of(value)
    return value


@dataclass(frozen=True, kw_only=True)
class Group:
    """Resources of the jobs of one group of stages."""

    __pydantic_config__ = STRICT

    partition: str | None = None
    """Default: the cluster's default."""
    account: str | None = None
    """Project that is charged."""
    qos: str | None = None
    constraint: str | None = None
    """Features that the nodes must have."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Nodes of training and sampling; all other stages use one."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """Also processes on each node of training and sampling, one per GPU; 0: no GPU, one process."""
    gpu_flag: Literal["gres", "gpus-per-node", "gpus-per-task", "none"] = "gres"
    """Option of sbatch that requests GPUs; none: the partition or `options` give them."""
    gpu_type: str | None = None
    """Such as a100, if the cluster has several."""
    cpus_per_task: Annotated[int, Field(ge=1)] = 1
    """CPU cores of each node."""
    memory: str | int | None = None
    """Of each node, as in --mem, such as 200G; 0: all."""
    time: Annotated[str, BeforeValidator(_check_time)]
    """Time limit as Slurm writes it, in quotes: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS."""
    options: tuple[Annotated[str, matching("-[^\\n]+", "an option of sbatch, such as --exclusive")], ...] = ()
    """Further options of sbatch, such as --exclusive."""

    @property
    def processes(self) -> int:
        """Processes of training and sampling, over all nodes."""
        return self.nodes * max(1, self.gpus_per_node)


@dataclass(frozen=True, kw_only=True)
class Container:
    """Container that the jobs run in."""

    __pydantic_config__ = STRICT

    kind: Literal["none", "pyxis", "apptainer", "singularity"] = "none"
    """`none`: the environment that submits, on a file system that all nodes share."""
    image: Annotated[str | None, IN_HOME] = None
    """Image or .sqsh file for pyxis, .sif file for Apptainer and Singularity."""
    mounts: tuple[Annotated[str, IN_HOME], ...] = ()
    """In addition to the run directory and the plan's inputs: SOURCE:TARGET[:ro]."""

    def __post_init__(self) -> None:
        if (self.image is None) != (self.kind == "none"):
            wanted = "none" if self.kind == "none" else "an image"
            raise ValueError(expected("image", f"{wanted} with kind {self.kind!r}", self.image))


@dataclass(frozen=True, kw_only=True)
class SlurmSite:
    """The section `slurm`."""

    __pydantic_config__ = STRICT

    gpu: Group
    """Stages that use a GPU."""
    cpu: Group
    """Stages that do not."""
    stages: dict[Work, GroupName] = field(default_factory=dict)
    """Group of a kind of stage or of a scoring tool, if not the default one."""
    setup: tuple[str, ...] = ()
    """Lines of bash before each job, such as `module load ...`."""
    environment: tuple[Annotated[str, matching(r"[A-Za-z_]\w*", "the name of a variable")], ...] = ()
    """Names of further environment variables that jobs inherit from `submit`."""
    container: Container = field(default_factory=Container)
    command: Annotated[str | None, IN_HOME] = None
    """`sra-bench` on the nodes; default: the one that submits, or the image's."""
    port: int = MASTER_PORT
    """First of 1,000 ports; a job on several nodes uses one of them, by its job id."""
    checkpoint_rate: Annotated[float, Field(gt=0)] = 0.1
    """GB/s to the disk of the run directory, to estimate the time of a checkpoint until one was measured."""

    def group_name(self, kind: str, tool: str | None = None) -> GroupName:
        """Group of a kind of stage, of a scoring tool, or of the report."""
        names: list[Any] = [tool, kind]
        default: GroupName = "gpu" if kind in GPU_WORK else "cpu"
        return next((self.stages[name] for name in names if name in self.stages), default)

    def group(self, kind: str, tool: str | None = None) -> Group:
        """Resources of the jobs of a kind of stage."""
        return self.gpu if self.group_name(kind, tool) == "gpu" else self.cpu


def seconds_of(time: str) -> int:
    """Seconds of a time limit as Slurm writes it.

    Raises:
        ValueError: another form.
    """
    match = re.fullmatch(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})", time)
    if match is None:
        raise ValueError(f'expected "MM", "HH:MM:SS" or "D-HH:MM:SS", got {time!r}')
    parts = [int(part) for part in match["rest"].split(":")]
    if match["days"] is None and len(parts) < 3:
        parts.insert(0, 0)
    hours, minutes, seconds = (*parts, 0, 0)[:3]
    return ((int(match["days"] or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def site_path(given: Path | None) -> Path:
    """The given site file, else $SRA_BENCH_SITE, else ./site.yaml."""
    return given or home_path(os.environ.get(SITE) or "site.yaml")
