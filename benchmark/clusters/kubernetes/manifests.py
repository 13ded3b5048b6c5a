"""A plan as Kubernetes manifests: one Indexed Job a batch of stages. Nothing is applied.

Pods of one job meet through a headless Service. Kubernetes orders no jobs: each pod's first container waits for the
inputs, and files by level with `apply.sh` keep GPUs from waiting with it.
"""

from __future__ import annotations

import re
from typing import Any

from benchmark.assets.catalogue import folder
from benchmark.clusters.jobs import SHARED, Job
from benchmark.clusters.kubernetes.site import Claim, Kubernetes
from benchmark.machine.environment import ASSETS_FOLDER, GRACE_SECONDS, MASTER_PORT
from benchmark.plan.plan import is_hub_id
from benchmark.plan.run_directory import RunDirectory, key_of
from benchmark.run.command import command_of
from benchmark.run.runner import STOPPED
from sra.common.errors import UserError

RUN_LABEL, SET_LABEL, LEVEL_LABEL, JOB_LABEL = (f"sra-bench/{name}" for name in ("run", "set", "level", "job"))
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
NAME_LENGTH = 52
"""Of a job: 63, less an index and the suffix of a pod."""
MARGIN_SECONDS = 30
"""Between the runner's own limit on saving and the kubelet's."""
HUB_VARIABLES = ("HF_HOME", "HF_HUB_CACHE")

Document = dict[str, Any]


def render(jobs: list[Job], directory: RunDirectory, run: str, site: Kubernetes) -> dict[str, list[Document]]:
    """Documents by the name of the file for each level, in the order to apply them.

    Args:
        jobs: that are to run.
        directory: of the run, as the pods see it.
        run: its name.
        site: the cluster.

    Raises:
        UserError: the run or an input lies in no volume.
    """
    check_places(jobs, directory, site)
    files: dict[str, list[Document]] = {}
    for job in jobs:
        name = f"{_level(job)}-{job.kind}.yaml"
        labels = {RUN_LABEL: run_label(run), SET_LABEL: set_label(jobs, directory), LEVEL_LABEL: _level(job)}
        files.setdefault(name, []).extend(_documents(job, directory, job_name(run, job, directory), labels, site))
    return files


def check_places(jobs: list[Job], directory: RunDirectory, site: Kubernetes) -> None:
    """Refuse what no pod would find.

    Raises:
        UserError: a place outside the volumes, or a hub's model without its cache.
    """
    if not site.runs.covers(str(directory.root)):
        raise UserError(f"--out {directory.root}: not below kubernetes.runs.mount {site.runs.mount}")
    volumes = [site.runs, *site.data]
    for place in dict.fromkeys(p for job in jobs for p in _reads(job, directory)):
        if place.startswith("embedded:"):
            continue
        if is_hub_id(place):
            if not any(v.covers(site.env.get(name, "")) for v in volumes for name in HUB_VARIABLES):
                raise UserError(
                    f"{place}: a model of the hub; kubernetes.env needs HF_HUB_CACHE, a folder of a volume in "
                    "kubernetes.data, or the manifest a folder or asset"
                )
        elif not any(volume.covers(place) for volume in volumes):
            raise UserError(f"{place}: below no mount of kubernetes.data")


def _reads(job: Job, directory: RunDirectory) -> tuple[str, ...]:
    return command_of(list(job.stages), directory).reads if job.stages else ()


def job_name(run: str, job: Job, directory: RunDirectory) -> str:
    """A DNS label that begins with a letter: the same for the same stages of the same run."""
    digest = key_of([str(directory.root), *job.directories])[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", f"sra-{run}-{job.name}".lower())
    return f"{readable[: NAME_LENGTH - 9].strip('-')}-{digest}"


def run_label(run: str) -> str:
    """The run's name as a label's value."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", run)[:63].strip("-_.") or "run"


def set_label(jobs: list[Job], directory: RunDirectory) -> str:
    """What tells the jobs of one plan from those of the run's earlier settings, whatever of it is done already."""
    return key_of([str(directory.root), jobs[-1].reads])[:8]


def _level(job: Job) -> str:
    return f"{job.level + 1:02d}"


def _documents(
    job: Job, directory: RunDirectory, name: str, labels: dict[str, str], site: Kubernetes
) -> list[Document]:
    document = _job(job, directory, name, labels, site)
    return [document] if _nodes(job, site) == 1 else [_service(name, labels, site), document]


def _nodes(job: Job, site: Kubernetes) -> int:
    return site.nodes if job.kind in SHARED else 1


def _gpus(job: Job, site: Kubernetes) -> int:
    """Of each pod."""
    wanted = {"train": site.gpus, "sample": site.gpus, "latents": 1, "score": site.score_gpus}
    return min(site.gpus, wanted.get(job.kind, 0))


def _service(name: str, labels: dict[str, str], site: Kubernetes) -> Document:
    """Names of the pods, before they are ready: they meet in order to become so."""
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {JOB_LABEL: name}}
    spec["ports"] = [{"name": "rendezvous", "port": MASTER_PORT}]
    metadata = {"name": name, "namespace": site.namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _job(job: Job, directory: RunDirectory, name: str, labels: dict[str, str], site: Kubernetes) -> Document:
    nodes = _nodes(job, site)
    queued = {QUEUE_LABEL: site.queue} if site.queue else {}
    spec: Document = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": site.retries * nodes,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _failure_rules()},
        **({"suspend": True} if site.queue else {}),
        **({"activeDeadlineSeconds": site.deadline} if site.deadline else {}),
        "template": {
            "metadata": {"labels": {RUN_LABEL: labels[RUN_LABEL], JOB_LABEL: name}},
            "spec": _pod(job, directory, name, site),
        },
    }
    metadata = {"name": name, "namespace": site.namespace, "labels": {**labels, **queued}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _failure_rules() -> list[Document]:
    """Not counted as failures, and begun anew: work saved on request, and pods that the cluster took away.

    Exit code 2 is counted: bad input comes with it, but so does the crash of another pod of the job.
    """
    saved = {"containerName": "work", "operator": "In", "values": [STOPPED]}
    taken = [{"type": "DisruptionTarget", "status": "True"}]
    return [{"action": "Ignore", "onExitCodes": saved}, {"action": "Ignore", "onPodConditions": taken}]


def _pod(job: Job, directory: RunDirectory, name: str, site: Kubernetes) -> Document:
    gpus = _gpus(job, site)
    placed: Document = {}
    if gpus and site.node_selector:
        placed["nodeSelector"] = site.node_selector
    if gpus and site.tolerations:
        placed["tolerations"] = [_plain(vars(toleration)) for toleration in site.tolerations]
    if site.priority_class:
        placed["priorityClassName"] = site.priority_class
    if site.pull_secrets:
        placed["imagePullSecrets"] = [{"name": secret} for secret in site.pull_secrets]
    if _nodes(job, site) > 1:
        placed["subdomain"] = name
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": int(GRACE_SECONDS) + MARGIN_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # As process 1 the job would not see a signal before it has a handler for it.
        "shareProcessNamespace": True,
        **placed,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": site.user,
            "runAsGroup": site.group,
            "fsGroup": site.group,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"initContainers": [_waiting(job, directory, site)]} if job.reads else {}),
        "containers": [_working(job, directory, name, site)],
        "volumes": _volumes(site),
    }


def _waiting(job: Job, directory: RunDirectory, site: Kubernetes) -> Document:
    stages = [word for need in job.reads for word in ("--stage", need)]
    command = ["sra-bench", "await", str(directory.root), *stages, "--timeout", str(site.patience)]
    little = {"cpu": "100m", "memory": "512Mi"}
    return {**_container("await", job, directory, command, site), "resources": {"requests": little, "limits": little}}


def _working(job: Job, directory: RunDirectory, name: str, site: Kubernetes) -> Document:
    command = ["sra-bench", "work", str(directory.root), *(w for n in job.directories for w in ("--stage", n))]
    if job.kind in SHARED:
        command += ["--processes", str(site.processes)]
    nodes = _nodes(job, site)
    if nodes > 1:
        # Kubernetes gives each pod of an Indexed Job its rank in JOB_COMPLETION_INDEX, which `work` reads.
        command += ["--nodes", str(nodes), "--master-addr", f"{name}-0.{name}", "--master-port", str(MASTER_PORT)]
    gpus = {site.gpu_resource: _gpus(job, site)} if _gpus(job, site) else {}
    requests = {"cpu": str(site.cpus), "memory": site.memory, **gpus}
    limits = {"memory": site.memory, **gpus}
    return {**_container("work", job, directory, command, site), "resources": {"requests": requests, "limits": limits}}


def _container(name: str, job: Job, directory: RunDirectory, command: list[str], site: Kubernetes) -> Document:
    role = site.images.role(command_of(list(job.stages), directory).module if job.stages else "")
    mounts = [{"name": "runs", **_mount(site.runs)}]
    mounts += [{"name": f"data-{n}", **_mount(claim), "readOnly": True} for n, claim in enumerate(site.data)]
    # Places that images know as writable.
    mounts += [{"name": "scratch", "mountPath": "/tmp"}, {"name": "shared", "mountPath": "/dev/shm"}]  # noqa: S108
    return {
        "name": name,
        "image": site.images.reference(role),
        "imagePullPolicy": site.pull_policy,
        "command": command,
        "env": [{"name": key, "value": value} for key, value in _environment(site).items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _environment(site: Kubernetes) -> dict[str, str]:
    return {"HOME": "/tmp", "HF_HUB_OFFLINE": "1", ASSETS_FOLDER: str(folder()), **site.env}  # noqa: S108


def _mount(claim: Claim) -> Document:
    return {"mountPath": claim.mount, **({"subPath": claim.sub_path} if claim.sub_path else {})}


def _volumes(site: Kubernetes) -> list[Document]:
    claims: list[Document] = [{"name": "runs", "persistentVolumeClaim": {"claimName": site.runs.claim}}]
    for number, claim in enumerate(site.data):
        source = {"claimName": claim.claim, "readOnly": True}
        claims.append({"name": f"data-{number}", "persistentVolumeClaim": source})
    memory = {"medium": "Memory", "sizeLimit": site.shared_memory}
    scratch = {"sizeLimit": site.scratch}
    return [*claims, {"name": "scratch", "emptyDir": scratch}, {"name": "shared", "emptyDir": memory}]


def _plain(values: Document) -> Document:
    return {key: value for key, value in values.items() if value is not None}


def apply_script(jobs: list[Job], directory: RunDirectory, site: Kubernetes) -> str:
    """A shell script that applies the files beside it level by level, each when the one before is complete."""
    return SCRIPT.format(
        namespace=site.namespace,
        selector=f"{SET_LABEL}={set_label(jobs, directory)},{LEVEL_LABEL}",
        failed='{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Failed")].status}{"\\n"}{end}',
    )


SCRIPT = """#!/bin/sh
# Applies the files beside it in order, each when the jobs of the one before are complete. Started again, it goes on.
set -eu
cd "$(dirname "$0")"
for file in [0-9][0-9]-*.yaml; do
  selector="{selector}=${{file%%-*}}"
  # What is there already is left alone: a queue may have changed it.
  kubectl get --namespace {namespace} -f "$file" >/dev/null 2>&1 || kubectl apply --namespace {namespace} -f "$file"
  until kubectl wait job --namespace {namespace} -l "$selector" --for=condition=complete --timeout=60s; do
    failed=$(kubectl get job --namespace {namespace} -l "$selector" -o 'jsonpath={failed}' | sed -n 's/=True$//p')
    if [ -n "$failed" ]; then
      echo "failed: $failed" >&2
      exit 1
    fi
  done
done
"""
