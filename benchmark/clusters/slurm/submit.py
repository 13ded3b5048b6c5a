"""Submit the jobs of a plan to Slurm: all that are neither done nor queued, or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.clusters.jobs import REPORT_JOB, Job, jobs_of, stages_read
from benchmark.clusters.slurm import queue as slurm_queue
from benchmark.clusters.slurm.queue import QueuedJob, SlurmError, UncertainError
from benchmark.clusters.slurm.script import Batch, Cluster, options, script
from benchmark.clusters.slurm.site import SlurmSite
from benchmark.clusters.slurm.submitted import (
    SubmittedJob,
    cancel_jobs,
    in_queue,
    load_submitted,
    located,
    save_submitted,
    script_elsewhere,
)
from benchmark.plan.plan import Plan
from benchmark.plan.prepare import register
from benchmark.plan.run_directory import RunDirectory, is_reported, key_of
from benchmark.plan.stages import STAGE_KINDS, Stage
from sra.common.errors import UserError, one_of
from sra.common.files import make_executable, write_bytes

SUBMISSION_KEY = key_of("submission")
"""Of the lock that keeps two submissions apart."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which jobs a submission adds, keeps and replaces."""

    new: tuple[Job, ...]
    queued: tuple[SubmittedJob, ...]
    """In the queue already."""
    stale: tuple[SubmittedJob, ...]
    """In the queue, but waiting for stages that no job works on: submitted anew."""


def cluster_of(site: SlurmSite, path: Path, processes: int | None) -> Cluster:
    """A site with the processes of training and sampling over all nodes: as given, or one per GPU.

    Raises:
        UserError: the nodes cannot share them evenly.
    """
    count = processes or site.group("train").processes
    for kind in (name for name, kind in STAGE_KINDS.items() if kind.distributed):
        nodes = site.group(kind).nodes
        if count % nodes:
            where = f"{path}: slurm: {site.group_name(kind)}.nodes"
            raise UserError(f"--processes {count}: expected a multiple of {nodes} ({where})")
    return Cluster(site=site, path=path, processes=count)


def select(
    plan: Plan, directory: RunDirectory, submitted: Sequence[SubmittedJob], queue: dict[int, QueuedJob]
) -> Selection:
    """Decide which jobs to submit.

    Args:
        plan: of the run.
        directory: of the run.
        submitted: jobs of earlier submissions.
        queue: this user's jobs.

    Raises:
        UserError: jobs in the queue that do not belong to this plan, or that are being cancelled.
    """
    todo = {stage.directory.name: stage for stage in plan.stages if not stage.is_done}
    active = [job for job in submitted if job.is_active(queue)]
    _check_active(active, plan, directory, queue)
    reports = [job for job in active if job.directories == REPORT_JOB.directories]
    queued = [job for job in active if job not in reports]
    stale: list[SubmittedJob] = []
    while orphans := [job for job in queued if queue[job.number].waiting and _is_orphan(job, todo, queued, directory)]:
        queued = [job for job in queued if job not in orphans]
        stale += orphans
    taken = {name for job in queued for name in job.directories}
    new = jobs_of(plan, directory, [stage for name, stage in todo.items() if name not in taken])
    if reports and not new:
        return Selection(new=(), queued=(*queued, *reports), stale=tuple(stale))
    if new or queued or not is_reported(directory, [stage.directory for stage in plan.stages]):
        new = [*new, REPORT_JOB]
    return Selection(new=tuple(new), queued=tuple(queued), stale=(*stale, *reports))


def _is_orphan(job: SubmittedJob, todo: dict[str, Stage], queued: list[SubmittedJob], directory: RunDirectory) -> bool:
    """Whether a job waits for stages that no job in the queue works on."""
    coming = {name for other in queued for name in other.directories}
    stages = [todo[name] for name in job.directories if name in todo]
    return any(name in todo and name not in coming for stage in stages for name in stages_read([stage], directory))


def _check_active(active: list[SubmittedJob], plan: Plan, directory: RunDirectory, queue: dict[int, QueuedJob]) -> None:
    known = {stage.directory.name for stage in plan.stages} | set(REPORT_JOB.directories)
    for job in active:
        if not known.issuperset(job.directories):
            raise UserError(
                f"--out {directory.root}: job {job.number} ({job.name}) of other settings or variants is in the queue; "
                f"`sra-bench cancel {directory.root}` first"
            )
        if script := script_elsewhere(job, directory, queue):
            raise UserError(
                f"--out {directory.root}: job {job.number} in the queue works where the run was before ({script}); "
                f"`sra-bench cancel {directory.root}` first"
            )
        if (directory.cluster / f"{job.name}.cancel").exists():
            raise UserError(
                f"job {job.number} ({job.name}) still saves its work for `cancel`; submit when it has ended"
            )


def submit_slurm(plan: Plan, directory: RunDirectory, cluster: Cluster, command: str) -> str:
    """Submit the jobs that are to run; returns what to print.

    Raises:
        UserError: bad input, or Slurm refuses a job; then nothing new is in the queue.
    """
    directory.create()
    with directory.locked([SUBMISSION_KEY]):
        partitions = slurm_queue.partitions()
        before, queue = in_queue(directory, sure=True)
        selection = select(plan, directory, before, queue)
        batches = _batches(selection, plan, directory, cluster)
        scripts = [script(batch) for batch in batches]
        for batch in batches:
            _check_partition(batch, partitions)
        register(plan, directory, command)
        for batch, text in zip(batches, scripts, strict=True):
            write_bytes(batch.file("sh"), text.encode(errors="surrogateescape"))
            make_executable(batch.file("sh"))
            for suffix in ("stops", "cancel"):
                batch.file(suffix).unlink(missing_ok=True)
        _check_scripts(batches)
        cancel_jobs(selection.stale)
        submitted = _submit(batches, selection, directory, before)
    done = sum(stage.is_done for stage in plan.stages)
    count = f"{done} of {len(plan.stages)} stages done"
    if not submitted and not selection.queued:
        return f"nothing to submit: {count}; report: {directory.report / 'report.html'}"
    lines = [
        f"{plan.loaded.name}: {len(submitted)} jobs submitted, {len(selection.queued)} in the queue before, {count}"
    ]
    lines += [_line(str(job.number), batch) for job, batch in zip(submitted, batches, strict=True)]
    return "\n".join([*lines, f"watch: sra-bench status {directory.root}; stop: sra-bench cancel {directory.root}"])


def show(plan: Plan, directory: RunDirectory, cluster: Cluster) -> str:
    """Jobs that would be submitted, with their scripts; writes nothing."""
    try:
        submitted, queue = in_queue(directory)
    except SlurmError:
        submitted, queue = load_submitted(directory), {}
    selection = select(plan, directory, submitted, queue)
    batches = _batches(selection, plan, directory, cluster)
    lines = [f"{plan.loaded.name}: {len(batches)} jobs to submit, {len(selection.queued)} in the queue already"]
    lines += [_line("", batch) for batch in batches]
    return "\n".join([*lines, *(f"\n==> {batch.file('sh')} <==\n{script(batch)}" for batch in batches)])


def _batches(selection: Selection, plan: Plan, directory: RunDirectory, cluster: Cluster) -> list[Batch]:
    return [Batch(job=job, run=plan.loaded.name, directory=directory, cluster=cluster) for job in selection.new]


def _line(number: str, batch: Batch) -> str:
    gpus = f" x {batch.gpus} GPUs" if batch.gpus else ""
    nodes = f"{batch.nodes} node{'s' if batch.nodes > 1 else ''}{gpus}"
    grace = f"SIGUSR1 {batch.grace.seconds} s before {batch.group.time}"
    return f"  {number:>8} {batch.job.name:36} {nodes:18} {grace}"


def _check_partition(batch: Batch, partitions: list[str]) -> None:
    if any(option.startswith(("-M", "--cluster")) for option in batch.group.options):
        return  # Those of another cluster.
    for name in (batch.group.partition or "").split(","):
        if name and name not in partitions:
            raise UserError(one_of(batch.where("partition"), name, partitions))


def _check_scripts(batches: list[Batch]) -> None:
    """Have Slurm check one script of each kind before the first is submitted."""
    kinds: dict[tuple[str, ...], Batch] = {}
    for batch in batches:
        own = ("--job-name=", "--output=")
        kinds.setdefault(tuple(option for option in options(batch) if not option.startswith(own)), batch)
    for batch in kinds.values():
        try:
            slurm_queue.check(batch.file("sh"))
        except UncertainError:
            raise
        except SlurmError as error:
            raise UserError(f"{batch.cluster.path}: {batch.job.name} would be refused: {error}") from error


def _submit(
    batches: list[Batch], selection: Selection, directory: RunDirectory, before: Sequence[SubmittedJob]
) -> list[SubmittedJob]:
    """Submit in order; if one is refused, cancel those before it."""
    records = [SubmittedJob(name=b.job.name, label=b.label, number=0, directories=b.job.directories) for b in batches]
    done: list[SubmittedJob] = []
    numbers = {name: job.number for job in selection.queued for name in job.directories}
    try:
        for batch, record in zip(batches, records, strict=True):
            job = batch.job
            reads = list(numbers) if job is REPORT_JOB else [name for name in job.reads if name in numbers]
            after = sorted({numbers[name] for name in reads})
            # Recorded before sbatch is asked: if its answer gets lost, the job is found by its name and script.
            save_submitted(directory, _merged(before, [*done, record]))
            done.append(_submitted(record, batch, after))
            numbers |= dict.fromkeys(job.directories, done[-1].number)
        save_submitted(directory, _merged(before, done))
    except BaseException as error:
        certain = isinstance(error, SlurmError) and not isinstance(error, UncertainError)
        kept = [] if certain else records[len(done) : len(done) + 1]
        try:
            cancel_jobs(done)
        except SlurmError as trouble:
            kept = [*done, *kept]
            names = ", ".join(str(job.number) for job in done)
            raise SlurmError(f"{error}; still in the queue: {names} ({trouble}); the same command continues") from error
        finally:
            save_submitted(directory, _merged(before, kept))
        raise
    return done


def _submitted(job: SubmittedJob, batch: Batch, after: list[int]) -> SubmittedJob:
    """Submit one job; the queue is asked for it if sbatch does not tell its id.

    Raises:
        SlurmError: refused, or as `queue.submit`.
    """
    try:
        number, cluster = slurm_queue.submit(
            batch.file("sh"), after, "afterany" if batch.job is REPORT_JOB else "afterok"
        )
    except UncertainError:
        found = located([job], batch.directory, slurm_queue.list_jobs(expected=[job.label]))
        if not found:
            raise
        return found[0]
    return dataclasses.replace(job, number=number, cluster=cluster)


def _merged(before: Sequence[SubmittedJob], new: Sequence[SubmittedJob]) -> list[SubmittedJob]:
    """The newest job of each stage."""
    replaced = {name for job in new for name in job.directories}
    rest = [
        dataclasses.replace(job, directories=tuple(name for name in job.directories if name not in replaced))
        for job in before
    ]
    return [*(job for job in rest if job.directories), *new]
