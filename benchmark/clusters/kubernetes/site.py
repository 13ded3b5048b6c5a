"""Section `kubernetes:` of a site file: where images, volumes and GPUs of a cluster are."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from benchmark.containers.settings import Images
from benchmark.machine.environment import PATIENCE_SECONDS
from sra.config import STRICT

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""An RFC 1123 label."""
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def _name(key: str, value: str) -> None:
    if not NAME.fullmatch(value):
        raise ValueError(f"{key}: found {value!r}; allowed: at most 63 small letters, digits and hyphens")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A PersistentVolumeClaim and where it is mounted."""

    __pydantic_config__ = STRICT

    claim: str
    """Its name; it must exist in the namespace."""
    mount: str
    """Absolute path in the containers: the one that the manifest and `--out` use."""
    sub_path: str | None = None
    """Folder of the volume that is mounted rather than its root."""

    def __post_init__(self) -> None:
        _name("claim", self.claim)
        if not self.mount.startswith("/") or self.mount == "/":
            raise ValueError(f"mount: found {self.mount!r}; expected an absolute path below /")

    def covers(self, place: str) -> bool:
        """Whether a path lies in it."""
        return PurePosixPath(place).is_relative_to(self.mount)


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint of nodes that jobs with GPUs tolerate."""

    __pydantic_config__ = STRICT

    key: str | None = None
    """Of the taint; none: all."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """How `value` is compared."""
    value: str | None = None
    """Of the taint, for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Of the taint; none: every one."""

    def __post_init__(self) -> None:
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError("operator Equal needs a value, Exists has none")
        if self.key is None and self.operator == "Equal":
            raise ValueError("operator Equal needs a key")


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """Settings of a cluster."""

    __pydantic_config__ = STRICT

    runs: Claim
    """Volume of the run directories, writable from every node at once (ReadWriteMany), with file locks."""
    data: tuple[Claim, ...] = ()
    """Volumes that are only read: data sets, assets."""
    namespace: str = "default"
    """Of everything."""
    images: Images = field(default_factory=Images)
    """The project's images, where the nodes can pull them."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When nodes pull."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets with the registry's credentials."""
    nodes: int = 1
    """Pods that share training, and sampling."""
    gpus: int = 1
    """Of each such pod, one process each; 0: everything on CPUs."""
    score_gpus: int = 1
    """Of each scoring job."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the extended resource."""
    cpus: int | str = 8
    """Of each pod."""
    memory: str = "64Gi"
    """Of each pod, with what lies in /dev/shm."""
    shared_memory: str = "16Gi"
    """Most that /dev/shm may hold."""
    scratch: str = "32Gi"
    """Most that /tmp may hold, on the node's disk."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels of nodes for jobs with GPUs."""
    tolerations: tuple[Toleration, ...] = ()
    """Of jobs with GPUs."""
    priority_class: str | None = None
    """PriorityClass of the pods."""
    queue: str | None = None
    """Kueue's LocalQueue: jobs are created suspended, and Kueue starts them."""
    user: int = 1000
    """Uid of the jobs; files in the run directory are its own."""
    group: int = 1000
    """Gid of the jobs, and of the volumes."""
    retries: int = 6
    """Failures of a job for each of its nodes; pre-emptions and stops on request are not counted."""
    patience: int = PATIENCE_SECONDS
    """Seconds that a job waits for its inputs."""
    deadline: int | None = None
    """Seconds after which a job is ended for good."""
    env: dict[str, str] = field(default_factory=dict)
    """More environment variables, such as NCCL_SOCKET_IFNAME."""

    @property
    def processes(self) -> int:
        """Of training and sampling, over all pods."""
        return self.nodes * max(1, self.gpus)

    def __post_init__(self) -> None:
        for key in ("namespace", "priority_class", "queue"):
            if (value := getattr(self, key)) is not None:
                _name(key, value)
        for secret in self.pull_secrets:
            _name("pull_secrets", secret)
        least = {"nodes": 1, "gpus": 0, "score_gpus": 0, "user": 1, "group": 1, "retries": 0, "patience": 1}
        for key, low in least.items():
            if getattr(self, key) < low:
                raise ValueError(f"{key}: found {getattr(self, key)}; allowed: {low} or more")
        for key in ("cpus", "memory", "shared_memory", "scratch"):
            if not QUANTITY.fullmatch(str(getattr(self, key))):
                raise ValueError(f"{key}: found {getattr(self, key)!r}; expected a quantity such as 8, 500m or 64Gi")
