"""What a Slurm cluster's site is like: a section of the site file.

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

from pydantic import BeforeValidator

from benchmark.machine.environment import ASSETS_FOLDER, MASTER_PORT, TENSORFLOW_PYTHON
from sra.common.errors import UserError
from sra.config import STRICT

SITE = "SRA_BENCH_SITE"
"""Environment variable: the site file, where it is not `site.yaml` of the working directory."""

Place = Literal["gpu", "cpu"]
Work = Literal[
    "images",
    "latents",
    "standin",
    "train",
    "sample",
    "score",
    "adm",
    "adm-torch",
    "clean-fid",
    "torch-fidelity",
    "report",
]
"""A kind of stage, a scoring tool, or the report."""
DEFAULT_PLACES: dict[Work, Place] = {
    "images": "cpu",
    "latents": "gpu",
    "standin": "cpu",
    "train": "gpu",
    "sample": "gpu",
    "score": "cpu",
    "report": "cpu",
}
ENVIRONMENT = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER", ASSETS_FOLDER, TENSORFLOW_PYTHON)
"""Variables that every job gets, where they are set; a site adds to them."""


class SiteError(UserError):
    """A site file that cannot be used: which key, what was found, what is allowed."""


def _quoted(value: Any) -> Any:
    """YAML reads 12:00:00 as a number to the base of sixty."""
    if isinstance(value, int):
        raise ValueError(f'found the number {value}; write the time in quotes, such as "12:00:00"')
    return value


@dataclass(frozen=True, kw_only=True)
class Group:
    """What Slurm is asked for by the jobs of one group of stages."""

    __pydantic_config__ = STRICT

    partition: str | None = None
    """Default: the cluster's own."""
    account: str | None = None
    """Project that pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that the nodes must have."""
    nodes: int = 1
    """That train or sample together; all other stages take one."""
    gpus_per_node: int = 0
    """Processes on each node of training and sampling, one a GPU; 0: no GPU, one process."""
    gpu_flag: Literal["gres", "gpus-per-node"] = "gres"
    """How this cluster wants to be asked for GPUs."""
    gpu_type: str | None = None
    """Such as a100, where the cluster distinguishes."""
    cpus_per_task: int = 1
    """CPU cores on each node."""
    memory: str | int | None = None
    """On each node, as --mem takes it, such as 200G; 0: all."""
    time: Annotated[str, BeforeValidator(_quoted)]
    """Time limit as Slurm writes it, in quotes: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, such as --exclusive."""

    def __post_init__(self) -> None:
        if min(self.nodes, self.cpus_per_task) < 1 or self.gpus_per_node < 0:
            raise ValueError("nodes and cpus_per_task are 1 or more, gpus_per_node is 0 or more")
        for option in self.options:
            if not re.fullmatch(r"-[^\n]+", option):
                raise ValueError(f"options: each is one option of sbatch, such as --exclusive, found {option!r}")
        seconds_of(self.time)

    @property
    def processes(self) -> int:
        """Of training and sampling, over all nodes."""
        return self.nodes * max(1, self.gpus_per_node)


@dataclass(frozen=True, kw_only=True)
class Container:
    """What the jobs run in."""

    __pydantic_config__ = STRICT

    kind: Literal["none", "pyxis", "apptainer"] = "none"
    """`none`: the virtual environment that submits, seen by all nodes."""
    image: str | None = None
    """For pyxis an image or a .sqsh file, for Apptainer a .sif file."""
    mounts: tuple[str, ...] = ()
    """Besides the run directory and the plan's inputs: SOURCE:TARGET[:ro]."""

    def __post_init__(self) -> None:
        if (self.image is None) != (self.kind == "none"):
            raise ValueError(f"kind {self.kind!r} {'takes no' if self.kind == 'none' else 'needs an'} image")


@dataclass(frozen=True, kw_only=True)
class SlurmSite:
    """The section `slurm`."""

    __pydantic_config__ = STRICT

    gpu: Group
    """Stages that want a GPU."""
    cpu: Group
    """Stages that do not."""
    stages: dict[Work, Place] = field(default_factory=dict)
    """Where a kind of stage or a scoring tool goes, if not where it goes by default."""
    setup: tuple[str, ...] = ()
    """Lines of bash before each job, such as `module load ...`."""
    environment: tuple[str, ...] = ()
    """Names of variables that jobs get from whoever submits, besides those they always get."""
    container: Container = field(default_factory=Container)
    """What the jobs run in."""
    command: str | None = None
    """`sra-bench` on the nodes; default: the one that submits, or the image's."""
    port: int = MASTER_PORT
    """First of a thousand ports; a job over several nodes takes one by its number."""
    checkpoint_rate: float = 0.1
    """GB/s to the disk of the run directory, for the time of a save until one was measured."""

    def __post_init__(self) -> None:
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ValueError(f"environment: names of variables, found {name!r}")
        if self.checkpoint_rate <= 0:
            raise ValueError(f"checkpoint_rate: more than 0 GB/s, found {self.checkpoint_rate}")

    def place(self, kind: str, tool: str | None = None) -> Place:
        """The group of a kind of stage, of a scoring tool, or of the report."""
        names: list[Any] = [tool, kind]
        return next((self.stages[name] for name in names if name in self.stages), None) or DEFAULT_PLACES[names[1]]

    def group(self, kind: str, tool: str | None = None) -> Group:
        """What the jobs of a kind of stage ask for."""
        return self.gpu if self.place(kind, tool) == "gpu" else self.cpu


def seconds_of(time: str) -> int:
    """Seconds of a time limit as Slurm writes it.

    Raises:
        ValueError: another form.
    """
    match = re.fullmatch(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})", time)
    if match is None:
        raise ValueError(f'time: found {time!r}, allowed in quotes: "MM", "HH:MM:SS", "D-HH:MM:SS"')
    parts = [int(part) for part in match["rest"].split(":")]
    if match["days"] is None and len(parts) < 3:
        parts.insert(0, 0)
    hours, minutes, seconds = (*parts, 0, 0)[:3]
    return ((int(match["days"] or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def site_path(given: Path | None) -> Path:
    """As asked, else $SRA_BENCH_SITE, else ./site.yaml."""
    return given or Path(os.environ.get(SITE) or "site.yaml")
