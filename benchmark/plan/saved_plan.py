"""A run's plan and provenance, kept in its directory, so that a report can be made from files on any machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from benchmark.assets.catalogue import recorded_hashes
from benchmark.machine import provenance
from benchmark.manifest.schema import Loaded, Run
from benchmark.plan.plan import Plan, Stage
from benchmark.plan.run_directory import RunDirectory, read_json, write_json
from benchmark.published.registry import load_registry
from benchmark.published.verdict import allowances_of
from sra.common.errors import UserError
from sra.config import ConfigError, from_plain, to_plain

SCHEMA = 1
PLAN, PROVENANCE = "plan.json", "provenance.json"


def resolved_manifest(loaded: Loaded) -> str:
    """Every setting of every run, and what its verdict will allow for training noise, as YAML."""
    registry = load_registry()
    allowances = {run.variant: allowed for run in loaded.runs if (allowed := allowances_of(registry, run))}
    shown = yaml.safe_dump({"allowances": allowances}, sort_keys=False, allow_unicode=True, width=120)
    return loaded.resolved_yaml() + (shown if allowances else "")


def save_plan(plan: Plan, directory: RunDirectory, command: str) -> None:
    """Write the runs and stages of a plan, with the command that made it; places below the run are relative."""
    loaded = {**_plain(plan.loaded), "path": str(plan.loaded.path)}
    stages = [{**_plain(stage), "directory": stage.directory.name} for stage in plan.stages]
    document = {"schema": SCHEMA, "command": command, "loaded": loaded, "stages": stages}
    write_json(directory.root / PLAN, document)


def load_plan(directory: RunDirectory) -> tuple[Plan, str] | None:
    """The saved plan, its stages where the directory lies now, and its command; None where none was saved.

    Raises:
        UserError: it was saved by a version with other settings.
    """
    document = read_json(directory.root / PLAN)
    if document is None:
        return None
    try:
        plain = document["loaded"]
        runs = tuple(from_plain(Run, run) for run in plain["runs"])
        loaded = Loaded(**{**_restored(plain), "path": Path(plain["path"]), "runs": runs})
        stages = [
            Stage(**{**_restored(stage), "directory": directory.stages / stage["directory"]})
            for stage in document["stages"]
        ]
        return Plan(loaded=loaded, stages=tuple(stages), absent=()), str(document["command"])
    except (ConfigError, KeyError, TypeError) as error:
        raise UserError(f"{directory.root / PLAN}: not a plan of this version: {error}") from error


def planned(directory: RunDirectory) -> tuple[Plan, str]:
    """The saved plan and its command, for who cannot work without.

    Raises:
        UserError: none was saved, or by a version with other settings.
    """
    saved = load_plan(directory)
    if saved is None:
        raise UserError(f"{directory.root}: no {PLAN}, or a damaged one; `sra-bench run`, `submit`, `render` write it")
    return saved


def _plain(value: Any) -> dict[str, Any]:
    return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}


def _restored(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def record_session(plan: Plan, directory: RunDirectory, stage: Stage | None = None) -> None:
    """Append commit, versions, hardware and hashes of assets of this invocation, before its stages run.

    Args:
        plan: of the run.
        directory: of the run.
        stage: the only one that this invocation runs, whose record lies apart: others may write theirs at the time.
    """
    path = directory.root / PROVENANCE
    if stage is not None:
        path = directory.workers / f"{stage.directory.name}.{PROVENANCE}"
    places = [] if plan.loaded.smoke else [place for run in plan.loaded.runs for place in run.places]
    session = {**provenance.collect(), "assets": recorded_hashes(places)}
    write_json(path, {"schema": SCHEMA, "sessions": [*_sessions(path), session]})


def sessions_of(directory: RunDirectory) -> list[dict[str, Any]]:
    """Every recorded invocation that had something to run, oldest first."""
    places = [directory.root / PROVENANCE, *directory.workers.glob(f"*.{PROVENANCE}")]
    return sorted((s for path in places for s in _sessions(path)), key=lambda session: str(session["created"]))


def _sessions(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (read_json(path) or {}).get("sessions", [])
    return found
