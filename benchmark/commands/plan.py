"""`sra-bench plan`: the stages of a manifest, which are done, and what the rest costs. Nothing is run."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.assets.catalogue import remedy
from benchmark.machine.gpus import has_gpu
from benchmark.plan.cost import Table, load_table
from benchmark.plan.counts import class_names
from benchmark.plan.plan import Plan, state_of
from benchmark.plan.prepare import Prepared, prepare
from benchmark.plan.request import RunRequest
from benchmark.plan.run_directory import RunDirectory, read_json
from benchmark.plan.stages import IMAGES, Stage, label_of
from benchmark.run.executor import Executor, command_of
from benchmark.run.runner import sampled_for
from sra.common.files import is_embedded
from sra.common.listing import order_note
from sra.common.tables import size_text, text_table
from sra.common.validation import json_text
from sra.config import ImagesJob

RUN_FILES = 13
"""Of every run: its folder, those of the stages and of the report, five records, three formats and two figures."""
VARIANT_FILES = 3
"""Pictures of a variant in the report."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class PlanRow(_Record):
    """One stage: whether it is to run and why, and its estimated cost; None: not known."""

    stage: str
    kind: str
    variants: tuple[str, ...]
    key: str
    state: str
    """`done` or `to run`."""
    why: str
    directory: str
    outputs: tuple[str, ...]
    disk_bytes: int | None
    disk_files: int | None
    """Files and folders."""
    disk_at_most: bool
    gpu_hours: float | None
    gpu_memory_bytes: float | None
    copy_bytes: float | None
    """Memory of the host for a copy of a checkpoint; with less, training waits while one is written."""
    cost_source: str

    @classmethod
    def of(cls, stage: Stage, directory: RunDirectory, table: Table, processes: int) -> PlanRow:
        """The row of a stage."""
        state, why = state_of(stage, directory)
        cost = stage.kind.cost(stage.job, stage, table, processes)
        return cls(
            stage=stage.name,
            kind=stage.kind.name,
            variants=stage.variants,
            key=stage.key,
            state=state,
            why=why,
            directory=str(stage.directory),
            outputs=stage.outputs,
            disk_bytes=stage.disk.bytes,
            disk_files=stage.disk.files,
            disk_at_most=stage.disk.is_upper_bound,
            gpu_hours=cost.gpu_hours,
            gpu_memory_bytes=cost.memory_bytes,
            copy_bytes=cost.copy_bytes,
            cost_source=cost.how,
        )

    @property
    def cost(self) -> str:
        """Disk, hours and memory, for people."""
        if self.disk_bytes is None:
            parts = ["disk unknown"]
        else:
            files = f" in {self.disk_files:,} files" if self.disk_files else ""
            parts = [f"{'at most ' if self.disk_at_most else ''}{size_text(self.disk_bytes)}{files}"]
        if self.gpu_hours is None:
            parts.append("hours unknown")
        elif self.gpu_hours:
            parts.append(f"{self.gpu_hours:,.2f} h")
        if self.gpu_memory_bytes:
            parts.append(f"{size_text(self.gpu_memory_bytes)} a device")
        if self.copy_bytes:
            parts.append(f"{size_text(self.copy_bytes)} of the host for a copy of a checkpoint")
        return ", ".join(parts)


class PlanCost(_Record):
    """Sums over the stages that are to run."""

    source: str
    """Where the rates come from."""
    device: str
    gpu_hours: float
    stages_of_unknown_hours: int
    disk_bytes: int
    disk_files: int
    gpu_memory_bytes: float | None

    @classmethod
    def of(cls, rows: list[PlanRow], table: Table) -> PlanCost:
        """The sums; unknown hours are counted, not guessed."""
        pending = [row for row in rows if row.state != "done"]
        hours = [row.gpu_hours for row in pending]
        variants = {variant for row in rows for variant in row.variants}
        return cls(
            source=table.source,
            device=table.device,
            gpu_hours=sum(h for h in hours if h is not None),
            stages_of_unknown_hours=hours.count(None),
            disk_bytes=sum(row.disk_bytes or 0 for row in pending),
            disk_files=sum(row.disk_files or 0 for row in pending) + RUN_FILES + VARIANT_FILES * len(variants),
            gpu_memory_bytes=max((row.gpu_memory_bytes for row in pending if row.gpu_memory_bytes), default=None),
        )

    @property
    def text(self) -> str:
        """One line."""
        unknown = self.stages_of_unknown_hours
        return (
            f"to run: {self.gpu_hours:,.2f} hours of one {self.device}"
            + (f" and {unknown} stages of unknown hours" if unknown else "")
            + f", at most {size_text(self.disk_bytes)} of disk in {self.disk_files:,} files; hours {self.source}"
        )


class BatchCommand(_Record):
    """Command line of a batch of stages."""

    batch: str
    argv: tuple[str, ...]


class PlanReport(_Record):
    """What `plan` shows; `--json` is its dump."""

    schema_: Literal[1] = Field(alias="schema")
    name: str
    processes: int
    absent: tuple[str, ...]
    """Inputs that are missing."""
    remedies: dict[str, str]
    """How to get those that can be fetched."""
    cost: PlanCost
    stages: tuple[PlanRow, ...]
    notes: tuple[str, ...] = ()
    """What to know about the cost."""
    classes: dict[str, dict[int, str]] = {}
    """Class folders by label of each data set, where they are known."""
    commands: tuple[BatchCommand, ...] | None = None
    """Of the stages that are to run; None: not asked for."""


def show_plan(request: RunRequest, executor: Executor | None = None, *, as_json: bool) -> str:
    """The stages of a manifest and their cost, as a table or JSON; missing inputs are listed, not refused.

    Args:
        request: from the command line.
        executor: whose command lines to show, too.
        as_json: as JSON.

    Raises:
        UserError: bad input, in one line.
    """
    prepared = prepare(request)
    report = plan_report(prepared, executor)
    if as_json:
        return json_text(report, by_alias=True, exclude=None if executor else {"commands"})
    shared = f"training and sampling on {report.processes} process{'es' if report.processes > 1 else ''}"
    hows = dict.fromkeys(row.cost_source for row in report.stages if row.kind != IMAGES.name)
    missing = [f"  absent  {place}" + (f"  ({how})" if (how := remedy(place)) else "") for place in report.absent]
    return "\n".join(
        [
            f"{report.name}: {len(report.stages)} stages in {prepared.directory.root}, {shared}",
            text_table((), [(row.state, row.stage, row.why, row.cost) for row in report.stages], left=range(4)),
            report.cost.text,
            *(f"    {how}" for how in hows),
            *report.notes,
            *(line for place, names in report.classes.items() for line in _class_lines(place, names)),
            *missing,
            *(f"[{command.batch}] {shlex.join(command.argv)}" for command in report.commands or ()),
        ]
    )


def plan_report(prepared: Prepared, executor: Executor | None = None) -> PlanReport:
    """States, costs and missing inputs of a plan; with an executor, the command lines of what is to run."""
    plan, directory, processes = prepared
    table = load_table()
    rows = [PlanRow.of(stage, directory, table, processes) for stage in plan.stages]
    return PlanReport(
        schema=1,
        name=plan.loaded.name,
        processes=processes,
        absent=plan.absent,
        remedies={place: how for place in plan.absent if (how := remedy(place))},
        cost=PlanCost.of(rows, table),
        stages=tuple(rows),
        notes=tuple(_notes(rows, table)),
        classes=_classes(plan),
        commands=tuple(_commands(prepared, executor)) if executor else None,
    )


def _notes(rows: list[PlanRow], table: Table) -> Iterator[str]:
    """Stages that need more memory than the table's device has; how to measure a machine that the table is not of."""
    for row in rows:
        if row.state != "done" and table.device_bytes and (row.gpu_memory_bytes or 0) > table.device_bytes:
            yield (
                f"warning: {row.stage}: {size_text(row.gpu_memory_bytes or 0)}, but one {table.device} has "
                f"{size_text(table.device_bytes)}: give more --processes, or train.accumulate"
            )
    if table.is_published and not has_gpu():
        yield "this machine has no GPU: `sra-bench perf all --save` measures its own hours"


def _classes(plan: Plan) -> dict[str, dict[int, str]]:
    """Class folders by label of each data set: as the images stage found them, or as they are now."""
    found = {}
    for stage in plan.stages:
        if isinstance(stage.job, ImagesJob) and not is_embedded(str(stage.job.data.images)):
            recorded = (read_json(stage.directory / "images.json") or {}).get("class_names")
            recorded = recorded if isinstance(recorded, dict) else {}
            names = {int(label): str(name) for label, name in recorded.items() if label.isdecimal()}
            found[str(stage.job.data.images)] = names or dict(
                enumerate(class_names(stage.job.data, stage.contents[0]) or ())
            )
    return {place: names for place, names in found.items() if names}


def _class_lines(place: str, names: dict[int, str]) -> Iterator[str]:
    """Labels and class folders: the first and the last, and whether their order may surprise."""
    shown = [f"{label} {name}" for label, name in names.items()]
    yield f"classes of {place}: {', '.join([*shown[:3], '...', shown[-1]] if len(shown) > 6 else shown)}"
    if note := order_note(list(names.values())):
        yield f"    {note}"


def _commands(prepared: Prepared, executor: Executor) -> list[BatchCommand]:
    plan, directory, processes = prepared
    found = []
    for _, group in itertools.groupby(plan.stages, key=lambda stage: stage.batch):
        pending = [stage for stage in group if state_of(stage, directory)[0] != "done"]
        until = pending[0].look if pending else None
        for stages, first in ((sampled_for(pending, prepared.plan), until), (pending, None)):
            if stages:
                argv = executor.argv(command_of(stages, directory, processes, first))
                found.append(BatchCommand(batch=label_of(stages), argv=tuple(argv)))
    return found
