"""A plan's batches as a cluster sees them: one job each, and what each waits for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from benchmark.command import Command, command_of
from benchmark.plan import STAGES, Plan, Stage, state_of
from benchmark.runner import label_of
from benchmark.store import RunDirectory

REPORT = "report"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Stages that one job runs, or the report."""

    kind: str
    """Of the stages, or `report`."""
    label: str
    """What it is called in a queue."""
    names: tuple[str, ...]
    """What `sra-bench work --stage` takes: names of directories, or `report`."""
    needs: tuple[str, ...]
    """Names of the directories of stages that must be done before."""
    command: Command | None
    """None: the report."""

    @property
    def level(self) -> int:
        """Batches of one level do not wait for each other."""
        return STAGES.index(self.kind)


def batches_of(plan: Plan, directory: RunDirectory, processes: int) -> list[Batch]:
    """Every batch that is to run, in order, and the report at the end.

    Args:
        plan: of the run.
        directory: of the run.
        processes: of training and sampling, over all nodes.
    """
    found = []
    for _, group in itertools.groupby(plan.stages, key=lambda stage: stage.batch):
        stages = [stage for stage in group if state_of(stage, directory)[0] != "done"]
        if stages:
            command = command_of(stages, directory, processes)
            # Those that are done, too: a job stays the same while the ones before it end.
            needs = tuple(s.directory.name for s in plan.stages if _reads(command, s))
            found.append(_batch(stages, command, needs))
    everything = tuple(stage.directory.name for stage in plan.stages)
    return [*found, Batch(kind=REPORT, label=REPORT, names=(REPORT,), needs=everything, command=None)]


def _batch(stages: list[Stage], command: Command, needs: tuple[str, ...]) -> Batch:
    names = tuple(stage.directory.name for stage in stages)
    return Batch(kind=command.kind, label=label_of(stages), names=names, needs=needs, command=command)


def _reads(command: Command, stage: Stage) -> bool:
    return any(Path(place).is_relative_to(stage.directory) for place in command.reads)
