"""A run as a SkyPilot task: one cloud machine, the image `all`, continued after a pre-emption."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from benchmark.clusters.site_file import AbsolutePath
from benchmark.containers.engine import HARDENED, TMPFS
from benchmark.containers.settings import Images
from benchmark.machine.environment import ASSETS_FOLDER, GRACE_SECONDS, for_jobs
from sra.common.errors import STOPPED, UserError, expected
from sra.common.validation import STRICT, matching

MANIFEST = "/tmp/sra-bench/manifest.yaml"  # noqa: S108 - of the cloud's machine
ASSETS = "assets"
"""Folder beside the runs, where `fetch` puts what the manifest needs."""


@dataclass(frozen=True, kw_only=True)
class SkyPilot:
    """Settings of a cloud machine: section `skypilot:` of a site file."""

    __pydantic_config__ = STRICT

    bucket: str
    """Bucket of the run directories and assets; created if it does not exist."""
    store: Literal["s3", "gcs", "azure", "r2"] | None = None
    """Kind of the bucket; default: SkyPilot's choice."""
    mount: AbsolutePath = "/runs"
    """Where the bucket is mounted."""
    data: dict[AbsolutePath, str] = field(default_factory=dict)
    """Read-only buckets by the path where they are mounted, such as /data/imagenet: s3://imagenet."""
    images: Images = field(default_factory=lambda: Images(one=True))
    """Registry of the image `all`."""
    accelerators: Annotated[str, matching(r"[\w.-]+:\d+", "NAME:NUMBER, such as H100:8")] = "H100:8"
    """GPU and number."""
    infra: str | None = None
    """Cloud, region and zone, such as aws/us-east-1; default: the cheapest."""
    use_spot: bool = True
    """Use machines that may be pre-empted."""
    disk_size: int = 512
    """GB of the machine's disk."""
    shared_memory: str = "16g"
    """Size of /dev/shm."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables that the manifest names, such as IMAGENET."""

    @property
    def gpus(self) -> int:
        """GPUs of the machine."""
        return int(self.accelerators.partition(":")[2])


def check_places(places: Iterable[str], site: SkyPilot) -> None:
    """Refuse inputs that the machine would not find.

    Args:
        places: everything that the runs read, with the variables of the site.
        site: the machine.

    Raises:
        UserError: a path of this machine, an unknown variable, or a model of the hub: the job has no network.
    """
    mounts = (site.mount, *site.data)
    for place in places:
        if variable := re.match(r"\$\{?(\w+)", place):
            raise UserError(f"{place}: expected a value of {variable[1]} in skypilot.env, got none")
        known = place == "images" or place.startswith(("embedded:", "asset:", "$"))
        if not known and not any(PurePosixPath(place).is_relative_to(mount) for mount in mounts):
            raise UserError(expected(place, f"an asset, or a path below {', '.join(mounts)} (skypilot.data)", place))


def task(manifest: Path, name: str, options: list[str], site: SkyPilot) -> dict[str, Any]:
    """The document of the task's YAML.

    Args:
        manifest: uploaded with the task.
        name: of the run.
        options: further arguments of `sra-bench run`.
        site: the machine.
    """
    resources: dict[str, Any] = {
        **({"infra": site.infra} if site.infra else {}),
        "accelerators": site.accelerators,
        "use_spot": site.use_spot,
        "disk_size": site.disk_size,
        "job_recovery": {"recover_on_exit_codes": [STOPPED]},
    }
    store = {"store": site.store} if site.store else {}
    mounts: dict[str, Any] = {MANIFEST: str(manifest.absolute())}
    # Files that grow need the cached mode: it keeps them on the disk and uploads them.
    mounts[site.mount] = {"name": site.bucket, **store, "mode": "MOUNT_CACHED"}
    mounts |= {place: {"source": source, "mode": "MOUNT"} for place, source in site.data.items()}
    run = ["sra-bench", "run", MANIFEST, "--out", f"{site.mount}/{name}", "--processes", str(site.gpus), *options]
    fetch = ["sra-bench", "fetch", "--manifest", MANIFEST, "--to", f"{site.mount}/{ASSETS}"]
    image = site.images.reference("all")
    return {
        "name": re.sub(r"[^a-z0-9]+", "-", f"sra-{name}".lower()).strip("-"),
        "num_nodes": 1,
        "resources": resources,
        "file_mounts": mounts,
        "setup": "\n".join([f"docker pull {image}", _docker(site, fetch, network=True)]) + "\n",
        "run": _docker(site, run, network=False) + "\n",
    }


def _docker(site: SkyPilot, words: list[str], *, network: bool) -> str:
    """Shell line that runs a command in the image; files belong to the machine's user."""
    options = ["--rm", "--init", *HARDENED, "--tmpfs", TMPFS, "--stop-timeout", f"{GRACE_SECONDS:.0f}"]
    if not network:
        options += ["--network", "none", "--hostname", "localhost", "--gpus", "all", "--shm-size", site.shared_memory]
        options += ["--env", "HF_HUB_OFFLINE=1"]
    options += ["--env", "HOME=/tmp", "--env", f"{ASSETS_FOLDER}={site.mount}/{ASSETS}"]
    options += [word for name, value in for_jobs(site.env).items() for word in ("--env", f"{name}={value}")]
    options += ["--volume", f"{site.mount}:{site.mount}", "--volume", f"{MANIFEST}:{MANIFEST}:ro"]
    for place in site.data:
        options += ["--volume", f"{place}:{place}:ro"]
    image = site.images.reference("all")
    return f'docker run --user "$(id -u):$(id -g)" {shlex.join([*options, image, *words])}'
