"""Settings of a Kubernetes cluster: section `kubernetes:` of a site file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from benchmark.clusters.site_file import AbsolutePath, Work
from benchmark.containers.settings import Images
from benchmark.machine.environment import PATIENCE_SECONDS
from sra.common.errors import expected
from sra.common.validation import STRICT, matching

Name = Annotated[str, matching("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "at most 63 letters (a-z), digits and hyphens")]
"""An RFC 1123 label."""
Quantity = Annotated[int | str, matching(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", "a quantity such as 8, 500m or 64Gi")]
SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
Label = Annotated[
    str, matching(r"([a-z0-9.-]+/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", "a name such as team or site.org/team")
]
Capability = Annotated[str, matching("(?!CAP_)[A-Z_]+", "a capability without CAP_, such as IPC_LOCK")]
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
class EnvSource:
    """A Secret or a ConfigMap whose entries become environment variables of the pods."""

    __pydantic_config__ = STRICT

    secret: Name | None = None
    config_map: Name | None = None

    def __post_init__(self) -> None:
        if (self.secret is None) == (self.config_map is None):
            raise ValueError("expected either secret or config_map")


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What pods ask for: all of the cluster's, or those of one kind of stage where they differ."""

    __pydantic_config__ = STRICT

    gpus: NonNegative | None = None
    """GPUs of each pod that trains or samples, one process each; 0: everything runs on CPUs."""
    cpus: Quantity | None = None
    """Cores of each pod that trains or samples; at most 8 of any other."""
    memory: Quantity | None = None
    """Of each pod that trains or samples, including /dev/shm; at most 32Gi of any other."""
    resources: dict[Label, Quantity] | None = None
    """Further resources of pods that train or sample, such as rdma/hca: 1."""
    host_network: bool | None = None
    """Pods that train or sample use their node's network, as RDMA may need."""
    capabilities: tuple[Capability, ...] | None = None
    """Of pods that train or sample, such as IPC_LOCK."""
    node_selector: dict[Label, str] | None = None
    """Labels of nodes for pods with GPUs."""
    tolerations: tuple[Toleration, ...] | None = None
    """Of pods with GPUs."""
    runtime_class: Name | None = None
    """RuntimeClass of pods with GPUs, such as nvidia."""
    annotations: dict[Label, str] | None = None
    """Of all pods."""

    @property
    def processes(self) -> int:
        """Of a pod that trains or samples."""
        return max(1, self.gpus or 0)


DISTRIBUTED = ("gpus", "cpus", "memory", "resources", "host_network", "capabilities")
"""Settings of pods that train or sample alone."""
WITH_GPUS = ("node_selector", "tolerations", "runtime_class")
"""Settings of pods with GPUs alone."""
SMALL = {"cpus": 8, "memory": "32Gi"}
"""At most this is asked for by a pod that does not train or sample, unless `stages` says more."""
WITHOUT_CUDA: Literal["adm"] = "adm"
"""The scoring tool that runs on TensorFlow, which the images have without CUDA."""


@dataclass(frozen=True, kw_only=True)
class Kubernetes(Pod):
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
    cpus: Quantity = 8
    memory: Quantity = "64Gi"
    stages: dict[Work, Pod] = field(default_factory=dict)
    """What differs for a kind of stage or a scoring tool, such as {score: {memory: 64Gi}}."""
    score_gpus: NonNegative = 1
    """GPUs of each scoring job of a tool that uses them."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of the extended resource."""
    shared_memory: Quantity = "16Gi"
    """Limit of /dev/shm."""
    scratch: Quantity = "32Gi"
    """Limit of /tmp, on the node's disk."""
    service_account: Name | None = None
    """ServiceAccount of all pods, without its token."""
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
    env_from: tuple[EnvSource, ...] = ()
    """Secrets and ConfigMaps with environment variables, such as {secret: wandb}; jobs get those that they would get
    of a shell's, and those that SRA_BENCH_ENVIRONMENT in `env` names."""

    def __post_init__(self) -> None:
        if (pod := self.stages.get(WITHOUT_CUDA)) and pod.gpus:
            raise ValueError(expected(f"stages.{WITHOUT_CUDA}.gpus", "0, as its image has no CUDA", pod.gpus))

    @property
    def processes(self) -> int:
        """Processes of training, over all pods."""
        return self.nodes * self.pod("train", None, distributed=True).processes

    def has(self, place: str) -> bool:
        """Whether a path is in a volume."""
        return any(volume.contains(place) for volume in (self.runs, *self.data))

    def pod(self, kind: str, tool: str | None, *, distributed: bool) -> Pod:
        """What the pods of a job ask for.

        Args:
            kind: of its stages, or `report`.
            tool: scoring tool.
            distributed: whether several pods may share it, each with all its GPUs.
        """
        own: dict[str, Any] = {"annotations": self.annotations}
        if distributed:
            own |= {name: getattr(self, name) for name in DISTRIBUTED}
        else:
            own["gpus"] = min(self.gpus, {"latents": 1, "score": self.score_gpus}.get(kind, 0))
            own |= {name: min(getattr(self, name), most, key=_amount) for name, most in SMALL.items()}
        names: tuple[Any, ...] = (kind, tool)
        changes: dict[str, Any] = {}
        for other in (self.stages[name] for name in names if name in self.stages):
            changes |= {name: value for name, value in vars(other).items() if value is not None}
        if tool == WITHOUT_CUDA:
            changes["gpus"] = 0
        if changes.get("gpus", own["gpus"]):
            own |= {name: getattr(self, name) for name in WITH_GPUS}
        return Pod(**{**own, **changes})


def _amount(quantity: int | str) -> float:
    number, suffix = re.fullmatch(r"([\d.]+)(\D*)", str(quantity)).groups()  # type: ignore[union-attr]
    return float(number) * SUFFIXES.get(suffix, 1.0)
