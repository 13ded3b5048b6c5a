"""Settings of a Kubernetes cluster: section `kubernetes:` of a site file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from benchmark.clusters.site_file import AbsolutePath
from benchmark.containers.settings import Images
from benchmark.machine.environment import PATIENCE_SECONDS
from sra.common.validation import STRICT, matching

Name = Annotated[str, matching("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "at most 63 letters (a-z), digits and hyphens")]
"""An RFC 1123 label."""
Quantity = Annotated[int | str, matching(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", "a quantity such as 8, 500m or 64Gi")]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A PersistentVolumeClaim and where it is mounted."""

    __pydantic_config__ = STRICT

    claim: Name
    """Name; it must exist in the namespace."""
    mount: AbsolutePath
    """Absolute path in the containers: the one that the manifest and `--out` use."""
    sub_path: str | None = None
    """Folder of the volume to mount instead of its root."""

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
    namespace: Name = "default"
    images: Images = field(default_factory=Images)
    """The project's images, where the nodes can pull them."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: tuple[Name, ...] = ()
    """Secrets with the registry's credentials."""
    nodes: Positive = 1
    """Pods of a training or sampling job."""
    gpus: NonNegative = 1
    """GPUs of each such pod, one process each; 0: everything runs on CPUs."""
    score_gpus: NonNegative = 1
    """GPUs of each scoring job."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the extended resource."""
    cpus: Quantity = 8
    """CPU cores of each pod."""
    memory: Quantity = "64Gi"
    """Of each pod, including /dev/shm."""
    shared_memory: Quantity = "16Gi"
    """Limit of /dev/shm."""
    scratch: Quantity = "32Gi"
    """Limit of /tmp, on the node's disk."""
    node_selector: dict[str, str] = field(default_factory=dict)
    """Labels of nodes for jobs with GPUs."""
    tolerations: tuple[Toleration, ...] = ()
    """Of jobs with GPUs."""
    priority_class: Name | None = None
    queue: Name | None = None
    """Kueue's LocalQueue: jobs are created suspended, and Kueue starts them."""
    user: Positive = 1000
    """Uid of the jobs, who owns the files in the run directory."""
    group: Positive = 1000
    """Gid of the jobs, and of the volumes."""
    retries: NonNegative = 6
    """Failures of a job that are tolerated for each of its nodes; pre-emptions and stops on request do not count."""
    patience: Positive = PATIENCE_SECONDS
    """Seconds that a job waits for the stages that it reads."""
    deadline: int | None = None
    """Seconds after which a job is ended and not retried."""
    env: dict[str, str] = field(default_factory=dict)
    """Further environment variables, such as NCCL_SOCKET_IFNAME."""

    @property
    def processes(self) -> int:
        """Processes of training and sampling, over all pods."""
        return self.nodes * max(1, self.gpus)
