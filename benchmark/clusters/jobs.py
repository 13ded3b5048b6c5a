"""A plan as the jobs of a cluster: which stages share one, and what each reads of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.plan.plan import Plan
from benchmark.plan.run_directory import RunDirectory
from benchmark.plan.stages import REPORT, STAGE_KINDS, STEPS, Stage
from benchmark.run.command import command_of

SHARED = tuple(name for name, kind in STAGE_KINDS.items() if kind.distributed)
"""Kinds of stages that many processes work on together."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Stages that one job runs one after the other, or the report."""

    name: str
    """Unique within the run."""
    kind: str
    """Of its stages, or `report`."""
    tool: str | None = None
    """That scores."""
    stages: tuple[Stage, ...] = ()
    """None: it writes the report."""
    reads: tuple[str, ...] = ()
    """Names of the directories of other jobs' stages that it reads."""

    @property
    def directories(self) -> tuple[str, ...]:
        """What `sra-bench work --stage` calls its stages."""
        return tuple(stage.directory.name for stage in self.stages) or (REPORT,)

    @property
    def level(self) -> int:
        """Jobs of one level do not wait for each other."""
        return STEPS.index(self.kind)


THE_REPORT = Job(name=REPORT, kind=REPORT)
"""It waits for all other jobs, however they end."""


def jobs_of(plan: Plan, directory: RunDirectory, stages: Iterable[Stage]) -> list[Job]:
    """The jobs of some stages of a plan in an order that runs.

    Stages of one batch and the same variants share a job, because starting one costs more than they do; variants are
    worked on side by side.

    Args:
        plan: of the run.
        directory: of the run.
        stages: those that are to run.
    """
    wanted = {stage.key for stage in stages}
    groups: dict[tuple[str, tuple[str, ...]], list[Stage]] = {}
    for stage in plan.stages:
        if stage.key in wanted:
            groups.setdefault((stage.batch, stage.variants), []).append(stage)
    names = _names(list(groups.values()))
    return [_job(name, group, directory) for name, group in zip(names, groups.values(), strict=True)]


def _job(name: str, stages: Sequence[Stage], directory: RunDirectory) -> Job:
    first, own = stages[0], {stage.directory.name for stage in stages}
    reads = [place for place in stages_read(stages, directory) if place not in own]
    return Job(name=name, kind=first.kind.name, tool=first.tool, stages=tuple(stages), reads=tuple(reads))


def _names(groups: list[list[Stage]]) -> list[str]:
    """Of each group its shortest stage name (those of milestones say the step); with the key where two are the same."""
    firsts = [min(group, key=lambda stage: len(stage.name)) for group in groups]
    seen = Counter(stage.name for stage in firsts)
    return [stage.name if seen[stage.name] == 1 else stage.directory.name for stage in firsts]


def stages_read(stages: Sequence[Stage], directory: RunDirectory) -> list[str]:
    """Names of the stage directories that stages read."""
    root = f"{directory.stages}/"
    reads = command_of(list(stages), directory).reads
    return list(dict.fromkeys(place.removeprefix(root).split("/")[0] for place in reads if place.startswith(root)))
