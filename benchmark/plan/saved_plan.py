"""Save and load a run's plan and provenance, so that a report can be made from files on any machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, field_validator, model_validator

from benchmark.assets.catalogue import recorded_hashes
from benchmark.machine import provenance
from benchmark.machine.provenance import Session
from benchmark.manifest.schema import NAME, Loaded, Run
from benchmark.plan.inputs import Place
from benchmark.plan.plan import Plan, upgraded_settings
from benchmark.plan.run_directory import PLAN, RunDirectory, write_json
from benchmark.plan.stages import STAGE_KINDS, TRAIN, Inputs, Stage
from benchmark.published.registry import load_registry
from benchmark.published.verdict import allowances_of
from sra.common.errors import UserError
from sra.common.files import load_json
from sra.common.validation import read_record, validated
from sra.config import from_plain, to_plain

SCHEMA = 1
PROVENANCE = "provenance.json"
Kind = Literal["images", "latents", "train", "standin", "sample", "score"]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
"""What names a folder or a file: never a path."""


def resolved_manifest(loaded: Loaded) -> str:
    """Every setting of every run, and what its verdict will allow for training noise, as YAML."""
    registry = load_registry()
    allowances = {run.variant: allowed for run in loaded.runs if (allowed := allowances_of(registry, run))}
    shown = yaml.safe_dump({"allowances": allowances}, sort_keys=False, allow_unicode=True, width=120)
    return loaded.resolved_yaml() + (shown if allowances else "")


_SHARED_FIELDS = ("name", "key", "identity", "inputs", "variants", "step", "smoke")
"""Fields that a stage and its record have in common."""


class SavedStage(BaseModel):
    """A stage in `plan.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    name: str
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    directory: Name
    """Name of its directory."""
    job: dict[str, Any]
    """Settings, validated by the class of the kind."""
    inputs: Inputs
    variants: tuple[str, ...]
    step: NonNegativeInt | None
    smoke: bool
    identity: str = ""
    contents: tuple[tuple[str, list[str]], ...] = ()
    """Path and identity of each input from outside of the run."""

    @model_validator(mode="after")
    def _has_step(self) -> Self:
        if self.kind == TRAIN.name and self.step is None:
            raise ValueError("step: expected the last step of a train stage, got none")
        return self

    @classmethod
    def of(cls, stage: Stage) -> Self:
        """The record of a stage."""
        shared = {name: getattr(stage, name) for name in _SHARED_FIELDS}
        contents = tuple((place.path, place.now) for place in stage.contents)
        job, kind = to_plain(stage.job), cast(Kind, stage.kind.name)
        return cls(kind=kind, directory=stage.directory.name, job=job, contents=contents, **shared)

    def stage(self, directory: RunDirectory) -> Stage:
        """The stage, with the current path of its run directory."""
        shared = {name: getattr(self, name) for name in _SHARED_FIELDS}
        job = from_plain(STAGE_KINDS[self.kind].job, self.job)
        contents = tuple(Place(path=path, now=now, known={}) for path, now in self.contents)
        return Stage(directory=directory.stages / self.directory, job=job, contents=contents, **shared)


class SavedPlan(BaseModel):
    """`plan.json`: what a report needs in addition to the files of the stages; see `RunDirectory.stored` for paths."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal[3] = Field(default=3, alias="schema")
    command: str
    """Command line that made it."""
    manifest: str
    """Path of the manifest, as it was given."""
    name: Name
    runs: tuple[Run, ...]
    smoke: bool
    notes: tuple[str, ...]
    targets: tuple[float, ...] = ()
    stages: tuple[SavedStage, ...]

    @field_validator("runs")
    @classmethod
    def _named(cls, runs: tuple[Run, ...]) -> tuple[Run, ...]:
        for run in runs:
            if not re.fullmatch(NAME, run.variant):
                raise ValueError(f"variant: expected the name of a variant, got {run.variant!r}")
        return runs

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, document: Any) -> Any:
        """Schema 2 has absolute paths and no identities; schema 1 has the settings of scoring among the inputs, too."""
        if not isinstance(document, dict) or document.get("schema") not in (1, 2):
            return document
        if document["schema"] == 2:
            return {**document, "schema": 3}
        try:
            loaded = document["loaded"]
            return {
                "schema": 3,
                "command": document["command"],
                "manifest": loaded["path"],
                **{name: loaded[name] for name in ("name", "runs", "smoke", "notes")},
                "stages": [_upgraded_stage(stage) for stage in document["stages"]],
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a plan of schema 1, got one without {error}") from error


def _upgraded_stage(old: dict[str, Any]) -> dict[str, Any]:
    same = {name: old[name] for name in ("kind", "name", "key", "directory", "variants", "step")}
    inputs = {name: place for name, place in old["inputs"].items() if name in ("images", "latents", "samples")}
    settings = upgraded_settings(old)
    return {**same, "job": settings, "inputs": inputs, "smoke": old["brief"]}


def save_plan(plan: Plan, directory: RunDirectory, command: str) -> None:
    """Write the runs and stages of a plan, with the command line that made it."""
    saved = SavedPlan(
        command=shlex.join(directory.stored(shlex.split(command))),
        manifest=str(plan.loaded.path),
        name=plan.loaded.name,
        runs=plan.loaded.runs,
        smoke=plan.loaded.smoke,
        notes=plan.loaded.notes,
        targets=plan.loaded.targets,
        stages=tuple(SavedStage.of(stage) for stage in plan.stages),
    )
    # The dump of a run would leave out what its alignment has beyond the base class.
    document = saved.model_dump(mode="json", by_alias=True) | {"runs": to_plain(saved.runs)}
    write_json(directory.root / PLAN, directory.stored(document))


def load_plan(directory: RunDirectory) -> tuple[Plan, str] | None:
    """The saved plan, with the directory's current path, and its command; None if there is none.

    Raises:
        UserError: it is damaged, or of a version with other settings.
    """
    path = directory.root / PLAN
    document = load_json(path)
    if document is None:
        return None
    stages = document.get("stages")
    if document.get("schema") in (1, 2) and isinstance(stages, list):
        names = [str(stage["directory"]) for stage in stages if isinstance(stage, dict) and "directory" in stage]
        document = directory.relocated(document, names)
    saved = validated(SavedPlan, directory.located(document), str(path))
    same = {name: getattr(saved, name) for name in ("name", "runs", "smoke", "notes", "targets")}
    loaded = Loaded(path=Path(saved.manifest), **same)
    try:
        plan = Plan(loaded=loaded, stages=tuple(stage.stage(directory) for stage in saved.stages), absent=())
        return plan, shlex.join(directory.located(shlex.split(saved.command)))
    except (UserError, ValueError) as error:
        raise UserError(f"{path}: stages or command: {error}") from error


def require_plan(directory: RunDirectory) -> tuple[Plan, str]:
    """Load the saved plan and its command; raise if there is none.

    Raises:
        UserError: none was saved, or by a version with other settings.
    """
    saved = load_plan(directory)
    if saved is None:
        raise UserError(
            f"{directory.root}: expected a readable {PLAN}, as `sra-bench run`, `submit` and `render` write it"
        )
    return saved


def record_session(plan: Plan, directory: RunDirectory, facts: Mapping[str, Any], stage: Stage | None = None) -> None:
    """Append commit, versions, hardware and hashes of assets of this invocation, before its stages run.

    Args:
        plan: of the run.
        directory: of the run.
        facts: of its jobs' environment, from the executor.
        stage: the only one that this invocation runs, whose record lies apart: others may write theirs at the time.
    """
    path = directory.root / PROVENANCE
    if stage is not None:
        path = directory.workers / f"{stage.directory.name}.{PROVENANCE}"
    places = [] if plan.loaded.smoke else [place for run in plan.loaded.runs for place in run.places]
    session = {**provenance.collect(), **facts, "assets": recorded_hashes(places)}
    document = load_json(path) or {"sessions": []}
    validated(_Provenance, document, str(path))
    write_json(path, {"schema": SCHEMA, "sessions": [*document["sessions"], session]})


def sessions_of(directory: RunDirectory) -> list[Session]:
    """Every recorded invocation that had something to run, oldest first.

    Raises:
        UserError: a damaged record.
    """
    places = [directory.root / PROVENANCE, *directory.workers.glob(f"*.{PROVENANCE}")]
    found = [record for path in places if (record := read_record(_Provenance, path))]
    return sorted((s for record in found for s in record.sessions), key=lambda session: session.created)


class _Provenance(BaseModel):
    """The file."""

    sessions: tuple[Session, ...]
