"""A plan as the jobs of a cluster: which stages share a job, and which stages of other jobs each one reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.plan.plan import Plan
from benchmark.plan.run_directory import RunDirectory
from benchmark.plan.stages import REPORT, STAGE_KINDS, STEPS, Stage
from benchmark.run.executor import command_of
from sra.common.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Job:
    """Stages that one job runs one after the other, or the report."""

    name: str
    """Unique within the run."""
    kind: str
    """Of its stages, or `report`."""
    tool: str | None = None
    """Scoring tool."""
    stages: tuple[Stage, ...] = ()
    """Empty for the report."""
    reads: tuple[str, ...] = ()
    """Directory names of stages of other jobs that it reads."""

    @property
    def directories(self) -> tuple[str, ...]:
        """Arguments of `sra-bench work --stage`."""
        return tuple(stage.directory.name for stage in self.stages) or (REPORT,)

    @property
    def level(self) -> int:
        """Jobs of one level do not wait for each other."""
        return STEPS.index(self.kind)

    @property
    def distributed(self) -> bool:
        """Whether several processes, on several nodes, share it."""
        return self.kind != REPORT and STAGE_KINDS[self.kind].distributed


REPORT_JOB = Job(name=REPORT, kind=REPORT)
"""It runs after all other jobs, however they end."""


def jobs_of(plan: Plan, directory: RunDirectory, stages: Iterable[Stage]) -> list[Job]:
    """Group stages of a plan into jobs, in an order that runs.

    Stages of one batch and the same variants share a job, because starting a job costs more than such a stage; jobs of
    different variants run side by side.

    Args:
        plan: of the run.
        directory: of the run.
        stages: those that are to run.

    Raises:
        UserError: a look at the first images among them.
    """
    stages = list(stages)
    if look := next((stage.name for stage in stages if stage.look), None):
        raise UserError(f"sample.looks: expected none on a cluster, whose jobs sample all images at once, got {look}")
    keys = {stage.key for stage in stages}
    groups: dict[tuple[str, tuple[str, ...]], list[Stage]] = {}
    for stage in plan.stages:
        if stage.key in keys:
            groups.setdefault((stage.batch, stage.variants), []).append(stage)
    # The shortest stage name of each group (names of milestones end in the step); its directory's, if not unique.
    named = [min(group, key=lambda stage: len(stage.name)) for group in groups.values()]
    counts = Counter(stage.name for stage in named)
    names = [stage.name if counts[stage.name] == 1 else stage.directory.name for stage in named]
    return [_job(name, group, directory) for name, group in zip(names, groups.values(), strict=True)]


def _job(name: str, stages: Sequence[Stage], directory: RunDirectory) -> Job:
    first, own = stages[0], {stage.directory.name for stage in stages}
    reads = [other for other in stages_read(stages, directory) if other not in own]
    return Job(name=name, kind=first.kind.name, tool=first.tool, stages=tuple(stages), reads=tuple(reads))


def stages_read(stages: Sequence[Stage], directory: RunDirectory) -> list[str]:
    """Directory names of the stages whose outputs some stages read."""
    root = f"{directory.stages}/"
    reads = command_of(list(stages), directory).reads
    return list(dict.fromkeys(place.removeprefix(root).split("/")[0] for place in reads if place.startswith(root)))
