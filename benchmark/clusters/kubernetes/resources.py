"""A plan as Kubernetes manifests: one Indexed Job for each batch of stages. Nothing is applied.

Pods of one job find each other through a headless Service. Kubernetes has no order of jobs: an init container of each
pod waits for the stages that the job reads, and `apply.sh` applies the files level by level, so that no GPU is reserved
for a job that still waits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from benchmark.assets.catalogue import folder
from benchmark.clusters.jobs import Job
from benchmark.clusters.kubernetes.site import Claim, Kubernetes, Pod
from benchmark.machine.environment import ASSETS_FOLDER, GRACE_SECONDS, MASTER_PORT, for_jobs
from benchmark.plan.plan import is_hub_id
from benchmark.plan.run_directory import RunDirectory, key_of
from benchmark.run.executor import command_of
from sra.common.errors import STOPPED, UserError
from sra.common.files import is_embedded

RUN_LABEL, SET_LABEL, LEVEL_LABEL, JOB_LABEL = (f"sra-bench/{name}" for name in ("run", "set", "level", "job"))
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MAX_NAME_LENGTH = 52
"""Of a job: 63, less the index and suffix of a pod."""
PORTS = 1000
"""Of the node's network, from which a job uses one."""
MARGIN_SECONDS = 30
"""Between the runner's limit on saving a checkpoint and the kubelet's."""
NOTICE_SECONDS = 300
"""After so long without a running pod, `apply.sh` shows why."""
HUB_VARIABLES = ("HF_HOME", "HF_HUB_CACHE")

Document = dict[str, Any]


def render(jobs: list[Job], directory: RunDirectory, run: str, site: Kubernetes) -> dict[str, list[Document]]:
    """Documents by file name, one file for each level, in the order to apply them.

    Args:
        jobs: that are to run, the report last.
        directory: of the run, as the pods see it.
        run: its name.
        site: the cluster.

    Raises:
        UserError: the run or an input is in no volume.
    """
    check_volumes(jobs, directory, site)
    files: dict[str, list[Document]] = {}
    for job in jobs:
        manifest = JobManifest(job=job, run=run, set=set_label(jobs, directory), directory=directory, site=site)
        files.setdefault(f"{manifest.level}-{job.kind}.yaml", []).extend(manifest.documents())
    return files


def check_volumes(jobs: list[Job], directory: RunDirectory, site: Kubernetes) -> None:
    """Refuse a run directory or an input that no pod would find.

    Raises:
        UserError: a path outside the volumes, or a model of the hub without a cache in them.
    """
    if not site.runs.contains(str(directory.root)):
        raise UserError(f"--out {directory.root}: expected a folder below kubernetes.runs.mount {site.runs.mount}")
    reads = [place for job in jobs if job.stages for place in command_of(list(job.stages), directory).reads]
    for place in dict.fromkeys(reads):
        if is_embedded(place):
            continue
        if is_hub_id(place):
            if not any(site.has(site.env.get(name, "")) for name in HUB_VARIABLES):
                raise UserError(
                    f"{place}: a model of the hub; kubernetes.env needs HF_HUB_CACHE, a folder of a volume in "
                    "kubernetes.data, or the manifest a folder or asset"
                )
        elif not site.has(place):
            raise UserError(f"{place}: expected a path below a mount of kubernetes.data")


def run_label(run: str) -> str:
    """The name of a run as the value of a label."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", run)[:63].strip("-_.") or "run"


def set_label(jobs: list[Job], directory: RunDirectory) -> str:
    """Label of all jobs of one plan: differs from that of other settings, whatever is done already."""
    return key_of([str(directory.root), jobs[-1].reads])[:8]


@dataclass(frozen=True, kw_only=True)
class JobManifest:
    """One job of a run as Kubernetes gets it."""

    job: Job
    run: str
    """Name of the run."""
    set: str
    """Label of all jobs of the plan."""
    directory: RunDirectory
    site: Kubernetes

    @property
    def name(self) -> str:
        """A DNS label that begins with a letter: the same for the same stages of the same run."""
        digest = key_of([str(self.directory.root), *self.job.directories])[:8]
        readable = re.sub(r"[^a-z0-9]+", "-", f"sra-{self.run}-{self.job.name}".lower())
        return f"{readable[: MAX_NAME_LENGTH - 9].strip('-')}-{digest}"

    @property
    def level(self) -> str:
        """Two digits: jobs of one level do not wait for each other."""
        return f"{self.job.level + 1:02d}"

    @property
    def nodes(self) -> int:
        """Number of pods."""
        return self.site.nodes if self.job.distributed else 1

    @property
    def pod(self) -> Pod:
        """What each pod asks for."""
        return self.site.pod(self.job.kind, self.job.tool, distributed=self.job.distributed)

    @property
    def port(self) -> int:
        """Where the pods meet; on the node's own network, pods of two jobs may share a node."""
        return MASTER_PORT + (int(key_of(self.name)[:8], 16) % PORTS if self.pod.host_network else 0)

    def documents(self) -> list[Document]:
        """The Job, after the Service through which several pods find each other."""
        return [self._job()] if self.nodes == 1 else [self._service(), self._job()]

    def _labels(self) -> dict[str, str]:
        return {RUN_LABEL: run_label(self.run), SET_LABEL: self.set, LEVEL_LABEL: self.level}

    def _metadata(self, **labels: str) -> Document:
        return {"name": self.name, "namespace": self.site.namespace, "labels": {**self._labels(), **labels}}

    def _service(self) -> Document:
        # The pods need each other's names before they are ready.
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {JOB_LABEL: self.name}}
        spec["ports"] = [{"name": "rendezvous", "port": self.port}]
        return {"apiVersion": "v1", "kind": "Service", "metadata": self._metadata(), "spec": spec}

    def _job(self) -> Document:
        site = self.site
        # Not counted as failures: work saved on request, and pods that the cluster took away. Exit code 2 is counted:
        # it means bad input, but also the crash of another pod of the job.
        saved = {"containerName": "work", "operator": "In", "values": [STOPPED]}
        disrupted = [{"type": "DisruptionTarget", "status": "True"}]
        spec: Document = {
            "completionMode": "Indexed",
            "completions": self.nodes,
            "parallelism": self.nodes,
            "backoffLimit": site.retries * self.nodes,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onExitCodes": saved},
                    {"action": "Ignore", "onPodConditions": disrupted},
                ]
            },
            **({"suspend": True} if site.queue else {}),
            **({"activeDeadlineSeconds": site.deadline} if site.deadline else {}),
            "template": {
                "metadata": {
                    "labels": {**self._labels(), JOB_LABEL: self.name},
                    **({"annotations": self.pod.annotations} if self.pod.annotations else {}),
                },
                "spec": self._pod(),
            },
        }
        metadata = self._metadata(**({QUEUE_LABEL: site.queue} if site.queue else {}))
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}

    def _pod(self) -> Document:
        site, pod = self.site, self.pod
        tolerations = [{k: v for k, v in vars(one).items() if v is not None} for one in pod.tolerations or ()]
        chosen: Document = {
            "nodeSelector": pod.node_selector,
            "tolerations": tolerations,
            "runtimeClassName": pod.runtime_class,
            "priorityClassName": site.priority_class,
            "serviceAccountName": site.service_account,
            "imagePullSecrets": [{"name": secret} for secret in site.pull_secrets],
            "hostNetwork": pod.host_network,
            "dnsPolicy": "ClusterFirstWithHostNet" if pod.host_network else None,
            "subdomain": self.name if self.nodes > 1 else None,
        }
        options = {key: value for key, value in chosen.items() if value}
        return {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": int(GRACE_SECONDS) + MARGIN_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            # As process 1 the job would not receive a signal before it has a handler for it.
            "shareProcessNamespace": True,
            **options,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": site.user,
                "runAsGroup": site.group,
                "fsGroup": site.group,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **({"initContainers": [self._await()]} if self.job.reads else {}),
            "containers": [self._work()],
            "volumes": self._volumes(),
        }

    def _await(self) -> Document:
        stages = [word for name in self.job.reads for word in ("--stage", name)]
        command = ["sra-bench", "await", str(self.directory.root), *stages, "--timeout", str(self.site.patience)]
        resources = {"cpu": "100m", "memory": "512Mi"}
        return self._container("await", command, {"requests": resources, "limits": resources})

    def _work(self) -> Document:
        site, stages = self.site, [word for name in self.job.directories for word in ("--stage", name)]
        command = ["sra-bench", "work", str(self.directory.root), *stages]
        if self.job.distributed:
            command += ["--processes", str(self.nodes * self.pod.processes)]
        if self.nodes > 1:
            # Kubernetes gives each pod of an Indexed Job its rank in JOB_COMPLETION_INDEX, which `work` reads.
            address = f"{self.name}-0.{self.name}"
            command += ["--nodes", str(self.nodes), "--master-addr", address, "--master-port", str(self.port)]
        pod = self.pod
        gpus = {site.gpu_resource: pod.gpus} if pod.gpus else {}
        limits = {"memory": pod.memory, **gpus, **(pod.resources or {})}
        return self._container("work", command, {"requests": {"cpu": str(pod.cpus), **limits}, "limits": limits})

    def _container(self, name: str, command: list[str], resources: Document) -> Document:
        site, stages = self.site, list(self.job.stages)
        role = site.images.role(command_of(stages, self.directory).module if stages else "")
        # The folder of this machine means something there only if it is in a volume.
        assets = {ASSETS_FOLDER: str(folder())} if site.has(str(folder())) else {}
        env = {"HOME": "/tmp", "HF_HUB_OFFLINE": "1", **assets, **for_jobs(site.env)}  # noqa: S108
        sources = [
            {"secretRef": {"name": one.secret}} if one.secret else {"configMapRef": {"name": one.config_map}}
            for one in site.env_from
        ]
        added = {"add": list(self.pod.capabilities)} if self.pod.capabilities and name == "work" else {}
        mounts = [{"name": "runs", **_mount(site.runs)}]
        mounts += [{"name": f"data-{n}", **_mount(claim), "readOnly": True} for n, claim in enumerate(site.data)]
        # The only other places to which the images write.
        mounts += [{"name": "scratch", "mountPath": "/tmp"}, {"name": "shared", "mountPath": "/dev/shm"}]  # noqa: S108
        return {
            "name": name,
            "image": site.images.reference(role),
            "imagePullPolicy": site.pull_policy,
            "command": command,
            "env": [{"name": key, "value": value} for key, value in env.items()],
            **({"envFrom": sources} if sources else {}),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"], **added},
            },
            "volumeMounts": mounts,
            "resources": resources,
        }

    def _volumes(self) -> list[Document]:
        site = self.site
        volumes: list[Document] = [{"name": "runs", "persistentVolumeClaim": {"claimName": site.runs.claim}}]
        for number, claim in enumerate(site.data):
            source = {"claimName": claim.claim, "readOnly": True}
            volumes.append({"name": f"data-{number}", "persistentVolumeClaim": source})
        memory = {"medium": "Memory", "sizeLimit": site.shared_memory}
        scratch = {"sizeLimit": site.scratch}
        return [*volumes, {"name": "scratch", "emptyDir": scratch}, {"name": "shared", "emptyDir": memory}]


def _mount(claim: Claim) -> Document:
    return {"mountPath": claim.mount, **({"subPath": claim.sub_path} if claim.sub_path else {})}


def apply_script(jobs: list[Job], directory: RunDirectory, site: Kubernetes) -> str:
    """Shell script that applies the files in its folder level by level, each when the one before is complete."""
    return SCRIPT.format(
        namespace=site.namespace,
        selector=f"{SET_LABEL}={set_label(jobs, directory)},{LEVEL_LABEL}",
        failed='{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Failed")].status}{"\\n"}{end}',
        ready="{.items[*].status.ready}",
        patience=site.patience,
        notice=NOTICE_SECONDS,
    )


SCRIPT = """#!/bin/sh
# Applies the files in this folder in order, each when the jobs of the one before are complete. It can be run again.
set -eu
cd "$(dirname "$0")"
ask() {{
  kubectl --namespace {namespace} --request-timeout=2m "$@"
}}
# Shows the pods of a level, and the events that say why they do not run.
report() {{
  ask get pod -l "$selector" -o wide || true
  ask describe job,pod -l "$selector" | sed -n -e '/^Name:/p' -e '/^Events:/,/^$/p'
}}
for file in [0-9][0-9]-*.yaml; do
  selector="{selector}=${{file%%-*}}"
  # Existing jobs are left alone: a queue may have changed them.
  ask get -f "$file" >/dev/null 2>&1 || ask apply -f "$file"
  seen=$(date +%s)
  reported=
  until ask wait job -l "$selector" --for=condition=complete --timeout=60s; do
    failed=$(ask get job -l "$selector" -o 'jsonpath={failed}' | sed -n 's/=True$//p')
    if [ -n "$failed" ]; then
      report >&2
      echo "failed: $failed" >&2
      exit 1
    fi
    now=$(date +%s)
    case "$(ask get job -l "$selector" -o 'jsonpath={ready}')" in
      *[1-9]*) seen=$now reported= ;;
    esac
    if [ $((now - seen)) -ge {patience} ]; then
      report >&2
      echo "gave up: no pod of $file was running for {patience} s" >&2
      exit 1
    fi
    if [ -z "$reported" ] && [ $((now - seen)) -ge {notice} ]; then
      report >&2
      reported=1
    fi
    # The command above may fail at once.
    sleep 5
  done
done
"""
