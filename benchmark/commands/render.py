"""`sra-bench render`: write the jobs of a run as files for Kubernetes or SkyPilot. Nothing is submitted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmark.clusters import skypilot
from benchmark.clusters.jobs import REPORT_JOB, Job, jobs_of
from benchmark.clusters.kubernetes import resources
from benchmark.clusters.kubernetes.site import Kubernetes
from benchmark.clusters.site_file import section
from benchmark.plan.plan import Plan, state_of
from benchmark.plan.prepare import check_batch_split, check_inputs, load_request, prepare, register
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory
from sra.common.errors import UserError
from sra.common.files import make_executable, write_bytes


def render_kubernetes(request: RunRequest, *, site: Path, to: Path | None) -> str:
    """Save the plan in the run directory; return the jobs' YAML, or write it by level into a folder.

    Args:
        request: from the command line; volumes are mounted here as in the pods.
        site: file with the section `kubernetes:`.
        to: folder; None: return the YAML.

    Raises:
        UserError: bad input, in one line.
    """
    cluster = section(site, "kubernetes", Kubernetes)
    plan, directory, _ = prepare(request, remote_processes=cluster.processes)
    try:
        check_inputs(plan)
    except UserError as error:
        raise UserError(f"{error}; render where the volumes are mounted") from error
    jobs = pending_jobs(plan, directory)
    files = resources.render(jobs, directory, plan.loaded.name, cluster)
    directory.create()
    with directory.locked():
        register(plan, directory, request.command)
    if to is None:
        return "---\n" + dump([document for documents in files.values() for document in documents])
    return _write(files, resources.apply_script(jobs, directory, cluster), to)


def pending_jobs(plan: Plan, directory: RunDirectory) -> list[Job]:
    """Jobs of the stages that are to run, in order, and the report, which reads all that the plan has."""
    jobs = jobs_of(plan, directory, [s for s in plan.stages if state_of(s, directory)[0] != "done"])
    everything = tuple(stage.directory.name for stage in plan.stages)
    return [*jobs, dataclasses.replace(REPORT_JOB, reads=everything)]


def _write(files: dict[str, list[resources.Document]], script: str, to: Path) -> str:
    to.mkdir(parents=True, exist_ok=True)
    stale = [path.name for path in sorted(to.glob("[0-9][0-9]-*.yaml")) if path.name not in files]
    if stale:
        raise UserError(f"--to {to}: holds {', '.join(stale)} of another run; give an empty folder")
    for name, documents in files.items():
        write_bytes(to / name, dump(documents).encode())
    write_bytes(to / "apply.sh", script.encode())
    make_executable(to / "apply.sh")
    return f"{to}: {', '.join(files)}; {to / 'apply.sh'} applies them in order"


def render_skypilot(request: RunRequest, *, site: Path) -> str:
    """The YAML of a task that runs a manifest on one machine of a cloud.

    Raises:
        UserError: bad input, in one line.
    """
    machine = section(site, "skypilot", skypilot.SkyPilot)
    with _environment(machine.env):
        loaded = load_request(request)
    check_batch_split(loaded, machine.gpus)
    skypilot.check_places([place for run in loaded.runs for place in run.places], machine)
    options = [word for item in request.overrides for word in ("--set", item)]
    options += [word for name in request.variants for word in ("--variant", name)]
    options += ["--smoke"] if request.smoke else []
    document = skypilot.task(request.manifest, loaded.name, options, machine)
    return dump([document])


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Only these environment variables within the block, as where the manifest will be read."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        """Write equal parts out, without YAML anchors."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(documents: list[dict[str, Any]]) -> str:
    """YAML of one or several documents: keys in their order, no anchors, scripts as blocks."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
