"""A plan's jobs into Slurm's queue: those that are not done and not there already, all of them or none."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.clusters.jobs import SHARED, THE_REPORT, Job, jobs_of, stages_read
from benchmark.clusters.record import Ticket, load_tickets, save_tickets
from benchmark.clusters.slurm import queue as slurm_queue
from benchmark.clusters.slurm.queue import Entry, SlurmError
from benchmark.clusters.slurm.script import Batch, options, script
from benchmark.clusters.slurm.site import SiteError, SlurmSite
from benchmark.commands.run import register
from benchmark.plan.plan import Plan
from benchmark.plan.run_directory import RunDirectory, is_done, is_reported, key_of
from benchmark.plan.stages import Stage
from sra.common.errors import UserError, did_you_mean
from sra.common.files import write_bytes

SUBMISSION = key_of("submission")
"""Of the lock that keeps two submissions apart."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where a run's jobs go."""

    site: SlurmSite
    path: Path
    """Of the site file."""
    processes: int
    """Of training and sampling, over all nodes."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a submission does."""

    new: tuple[Job, ...]
    kept: tuple[Ticket, ...]
    """In the queue already."""
    stale: tuple[Ticket, ...]
    """In the queue, but waiting for something that will not come: submitted anew."""


def processes_of(site: SlurmSite, path: Path, asked: int | None) -> int:
    """Processes of training and sampling over all nodes: as asked, or one a GPU.

    Raises:
        SiteError: the nodes cannot share them evenly.
    """
    count = asked or site.group("train").processes
    for kind in SHARED:
        nodes = site.group(kind).nodes
        if count % nodes:
            raise SiteError(
                f"--processes {count}: {path}: slurm: {site.place(kind)}.nodes: {nodes} cannot share them evenly"
            )
    return count


def selection(plan: Plan, directory: RunDirectory, tickets: Sequence[Ticket], queue: dict[int, Entry]) -> Selection:
    """Which jobs are to be submitted.

    Args:
        plan: of the run.
        directory: of the run.
        tickets: what was submitted before.
        queue: this user's jobs.

    Raises:
        UserError: jobs in the queue that do not belong to this plan, or that are just being cancelled.
    """
    todo = {s.directory.name: s for s in plan.stages if not is_done(s.directory, s.key)}
    living = [t for t in tickets if is_living(t, queue)]
    _check_living(living, plan, directory)
    kept = [t for t in living if t.directories != THE_REPORT.directories]
    stale: list[Ticket] = []
    while hopeless := [t for t in kept if queue[t.number].waiting and _lacks(t, todo, kept, directory)]:
        kept = [t for t in kept if t not in hopeless]
        stale += hopeless
    covered = {name for t in kept for name in t.directories}
    new = jobs_of(plan, directory, [stage for name, stage in todo.items() if name not in covered])
    reports = [t for t in living if t.directories == THE_REPORT.directories]
    if reports and not new:
        return Selection(new=(), kept=(*kept, *reports), stale=tuple(stale))
    if new or kept or not is_reported(directory, [stage.directory for stage in plan.stages]):
        new = [*new, THE_REPORT]
    return Selection(new=tuple(new), kept=tuple(kept), stale=(*stale, *reports))


def is_living(ticket: Ticket, queue: dict[int, Entry]) -> bool:
    """Whether a job waits or runs; numbers are used again in the end."""
    entry = queue.get(ticket.number)
    return entry is not None and entry.living and entry.name == ticket.label


def _lacks(ticket: Ticket, todo: dict[str, Stage], kept: list[Ticket], directory: RunDirectory) -> bool:
    """Whether a job waits for stages that nobody works on any more."""
    coming = {name for other in kept for name in other.directories}
    stages = [todo[name] for name in ticket.directories if name in todo]
    return any(place in todo and place not in coming for s in stages for place in stages_read([s], directory))


def _check_living(living: list[Ticket], plan: Plan, directory: RunDirectory) -> None:
    known = {stage.directory.name for stage in plan.stages} | set(THE_REPORT.directories)
    for ticket in living:
        if not known.issuperset(ticket.directories):
            raise UserError(
                f"--out {directory.root}: job {ticket.number} ({ticket.name}) of other settings or variants is in the "
                f"queue; `sra-bench cancel {directory.root}` first"
            )
        if (directory.cluster / f"{ticket.name}.cancel").exists():
            raise UserError(
                f"job {ticket.number} ({ticket.name}) still saves its work for `cancel`; submit when it has ended"
            )


def submit_slurm(plan: Plan, directory: RunDirectory, cluster: Cluster, command: str) -> str:
    """Submit what is not done; returns what to print.

    Raises:
        UserError: bad input, or what Slurm refuses; then nothing new is in the queue.
    """
    directory.create()
    with directory.locked([SUBMISSION]):
        partitions = slurm_queue.partitions()
        tickets = load_tickets(directory)
        chosen = selection(plan, directory, tickets, slurm_queue.entries() if tickets else {})
        batches = _batches(chosen.new, plan, directory, cluster)
        texts = {batch.job.name: _script(batch, cluster) for batch in batches}
        for batch in batches:
            _check_partition(batch, cluster, partitions)
        register(plan, directory, command)
        for batch in batches:
            _write(batch, texts[batch.job.name])
        _check(batches, cluster)
        slurm_queue.cancel([ticket.number for ticket in chosen.stale])
        submitted = _submit(batches, chosen, directory, tickets)
    return "\n".join(_lines(plan, directory, submitted, chosen))


def show(plan: Plan, directory: RunDirectory, cluster: Cluster) -> str:
    """What would be submitted, with the scripts; writes nothing and asks no queue but for jobs that are recorded."""
    tickets = load_tickets(directory)
    queue: dict[int, Entry] = {}
    with contextlib.suppress(SlurmError):
        queue = slurm_queue.entries() if tickets else {}
    chosen = selection(plan, directory, tickets, queue)
    batches = _batches(chosen.new, plan, directory, cluster)
    lines = [f"{plan.loaded.name}: {len(batches)} jobs to submit, {len(chosen.kept)} in the queue already"]
    lines += [_line("", batch) for batch in batches]
    return "\n".join([*lines, *(f"\n==> {batch.file('sh')} <==\n{_script(batch, cluster)}" for batch in batches)])


def _batches(jobs: Sequence[Job], plan: Plan, directory: RunDirectory, cluster: Cluster) -> list[Batch]:
    name, site, count = plan.loaded.name, cluster.site, cluster.processes
    return [Batch(job=job, run=name, directory=directory, site=site, processes=count) for job in jobs]


def _script(batch: Batch, cluster: Cluster) -> str:
    try:
        return script(batch)
    except SiteError as error:
        raise SiteError(f"{cluster.path}: {error}") from error


def _check_partition(batch: Batch, cluster: Cluster, partitions: list[str]) -> None:
    name = batch.group.partition
    for part in (name or "").split(","):
        if part and part not in partitions:
            key = f"{batch.site.place(batch.job.kind, batch.job.tool)}.partition"
            allowed = f"allowed: {', '.join(partitions)}{did_you_mean(part, partitions)}"
            raise SiteError(f"{cluster.path}: slurm: {key}: this cluster has no {part!r}; {allowed}")


def _write(batch: Batch, text: str) -> None:
    """The script, and no trace of what its last job left behind."""
    write_bytes(batch.file("sh"), text.encode())
    batch.file("sh").chmod(0o755)
    for suffix in ("stops", "cancel"):
        batch.file(suffix).unlink(missing_ok=True)


def _check(batches: list[Batch], cluster: Cluster) -> None:
    """Let Slurm look at one script of each kind before the first is submitted."""
    kinds: dict[tuple[str, ...], Batch] = {}
    for batch in batches:
        own = ("--job-name=", "--output=")
        kinds.setdefault(tuple(option for option in options(batch) if not option.startswith(own)), batch)
    for batch in kinds.values():
        try:
            slurm_queue.check(batch.file("sh"))
        except SlurmError as error:
            raise SiteError(f"{cluster.path}: {batch.job.name} would be refused: {error}") from error


def _submit(
    batches: list[Batch], chosen: Selection, directory: RunDirectory, before: Sequence[Ticket]
) -> list[tuple[Ticket, Batch]]:
    """Submit in order; when one is refused, those before it are taken back."""
    done: list[tuple[Ticket, Batch]] = []
    numbers = {name: ticket.number for ticket in chosen.kept for name in ticket.directories}
    try:
        for batch in batches:
            ticket = _submit_one(batch, numbers)
            numbers |= dict.fromkeys(ticket.directories, ticket.number)
            done.append((ticket, batch))
            save_tickets(directory, _merged(before, [t for t, _ in done]))
    except BaseException:
        slurm_queue.cancel([ticket.number for ticket, _ in done])
        save_tickets(directory, before)
        raise
    return done


def _submit_one(batch: Batch, numbers: dict[str, int]) -> Ticket:
    everything = batch.job is THE_REPORT
    names = list(numbers) if everything else [name for name in batch.job.reads if name in numbers]
    after = sorted({numbers[name] for name in names})
    number = slurm_queue.submit(batch.file("sh"), after, "afterany" if everything else "afterok")
    return Ticket(name=batch.job.name, label=batch.label, number=number, directories=batch.job.directories)


def _merged(before: Sequence[Ticket], new: Sequence[Ticket]) -> list[Ticket]:
    """The newest job of each stage."""
    replaced = {name for ticket in new for name in ticket.directories}
    rest = [tuple(name for name in ticket.directories if name not in replaced) for ticket in before]
    kept = [dataclasses.replace(ticket, directories=names) for ticket, names in zip(before, rest, strict=True) if names]
    return [*kept, *new]


def _lines(plan: Plan, directory: RunDirectory, submitted: list[tuple[Ticket, Batch]], chosen: Selection) -> list[str]:
    done = sum(is_done(stage.directory, stage.key) for stage in plan.stages)
    count = f"{done} of {len(plan.stages)} stages done"
    if not submitted and not chosen.kept:
        return [f"nothing to submit: {count}; report: {directory.report / 'report.html'}"]
    lines = [f"{plan.loaded.name}: {len(submitted)} jobs submitted, {len(chosen.kept)} in the queue before, {count}"]
    lines += [_line(str(ticket.number), batch) for ticket, batch in submitted]
    return [*lines, f"watch: sra-bench status {directory.root}; stop: sra-bench cancel {directory.root}"]


def _line(number: str, batch: Batch) -> str:
    gpus = f" x {batch.gpus} GPUs" if batch.gpus else ""
    place = f"{batch.nodes} node{'s' if batch.nodes > 1 else ''}{gpus}"
    told = f"asked to save {batch.lead.seconds} s before {batch.group.time}"
    return f"  {number:>8} {batch.job.name:36} {place:18} {told}"
