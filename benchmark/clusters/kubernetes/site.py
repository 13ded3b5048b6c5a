"""Settings of a Kubernetes cluster: section `kubernetes:` of a site file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from benchmark.containers.settings import Images
from benchmark.machine.environment import PATIENCE_SECONDS
from sra.common.errors import expected
from sra.config import STRICT

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""An RFC 1123 label."""
QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def _check_name(key: str, value: str) -> None:
    if not NAME.fullmatch(value):
        raise ValueError(expected(key, "at most 63 lower-case letters, digits and hyphens", value))


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A PersistentVolumeClaim and where it is mounted."""

    __pydantic_config__ = STRICT

    claim: str
    """Name; it must exist in the namespace."""
    mount: str
    """Absolute path in the containers: the one that the manifest and `--out` use."""
    sub_path: str | None = None
    """Folder of the volume to mount instead of its root."""

    def __post_init__(self) -> None:
        _check_name("claim", self.claim)
        if not self.mount.startswith("/") or self.mount == "/":
            raise ValueError(expected("mount", "an absolute path below /", self.mount))

    def contains(self, place: str) -> bool:
        """Whether a path is below the mount."""
        return PurePosixPath(place).is_relative_to(self.mount)


@dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint that jobs with GPUs tolerate."""

    __pydantic_config__ = STRICT

    key: str | None = None
    """Of the taint; default: every key."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """How `value` is compared."""
    value: str | None = None
    """Of the taint, for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Of the taint; default: every effect."""

    def __post_init__(self) -> None:
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError("value: expected one with operator Equal, none with Exists")
        if self.key is None and self.operator == "Equal":
            raise ValueError("key: expected one with operator Equal")


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """Settings of a cluster."""

    __pydantic_config__ = STRICT

    runs: Claim
    """Volume of the run directories: ReadWriteMany, with file locks."""
    data: tuple[Claim, ...] = ()
    """Read-only volumes: data sets, assets."""
    namespace: str = "default"
    """Of all jobs and services."""
    images: Images = field(default_factory=Images)
    """The project's images, where the nodes can pull them."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When nodes pull images."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets with the registry's credentials."""
    nodes: int = 1
    """Pods of a training or sampling job."""
    gpus: int = 1
    """GPUs of each such pod, one process each; 0: everything runs on CPUs."""
    score_gpus: int = 1
    """GPUs of each scoring job."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the extended resource."""
    cpus: int | str = 8
    """CPU cores of each pod."""
    memory: str = "64Gi"
    """Of each pod, including /dev/shm."""
    shared_memory: str = "16Gi"
    """Limit of /dev/shm."""
    scratch: str = "32Gi"
    """Limit of /tmp, on the node's disk."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels of nodes for jobs with GPUs."""
    tolerations: tuple[Toleration, ...] = ()
    """Of jobs with GPUs."""
    priority_class: str | None = None
    """PriorityClass of the pods."""
    queue: str | None = None
    """Kueue's LocalQueue: jobs are created suspended, and Kueue starts them."""
    user: int = 1000
    """Uid of the jobs, who owns the files in the run directory."""
    group: int = 1000
    """Gid of the jobs, and of the volumes."""
    retries: int = 6
    """Failures of a job that are tolerated for each of its nodes; pre-emptions and stops on request do not count."""
    patience: int = PATIENCE_SECONDS
    """Seconds that a job waits for the stages that it reads."""
    deadline: int | None = None
    """Seconds after which a job is ended and not retried."""
    env: dict[str, str] = field(default_factory=dict)
    """Further environment variables, such as NCCL_SOCKET_IFNAME."""

    @property
    def processes(self) -> int:
        """Processes of training and sampling, over all pods."""
        return self.nodes * max(1, self.gpus)

    def __post_init__(self) -> None:
        for key in ("namespace", "priority_class", "queue"):
            if (value := getattr(self, key)) is not None:
                _check_name(key, value)
        for secret in self.pull_secrets:
            _check_name("pull_secrets", secret)
        least = {"nodes": 1, "gpus": 0, "score_gpus": 0, "user": 1, "group": 1, "retries": 0, "patience": 1}
        for key, low in least.items():
            if getattr(self, key) < low:
                raise ValueError(expected(key, f"{low} or more", getattr(self, key)))
        for key in ("cpus", "memory", "shared_memory", "scratch"):
            if not QUANTITY.fullmatch(str(getattr(self, key))):
                raise ValueError(expected(key, "a quantity such as 8, 500m or 64Gi", getattr(self, key)))
