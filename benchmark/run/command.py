"""The job of one batch of stages: what any executor starts, wherever it starts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.plan.plan import JOB_MODULES, MODULES, PROTOCOL_TOOLS, Stage
from benchmark.plan.run_directory import RunDirectory

NOT_PLACES = ("tool", "extractor")
"""Keys of a stage's inputs that name no place."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A Python module with its arguments, and what whoever starts it must know."""

    kind: str
    """Of the stages: images, latents, train, standin, sample or score."""
    module: str
    arguments: tuple[str, ...]
    processes: int
    """That work on it together, over all nodes; 1: it starts by itself."""
    reads: tuple[str, ...]
    """Places that it reads, as the manifest names them; those within the run directory too."""
    writes: Path
    """The run directory."""


def command_of(stages: list[Stage], directory: RunDirectory, processes: int = 1) -> Command:
    """The command of one batch of stages; the same in a container and on a cluster.

    Args:
        stages: of one batch.
        directory: of the run.
        processes: of training and sampling, over all nodes.
    """
    first = stages[0]
    shared = first.kind in ("train", "sample")
    return Command(
        kind=first.kind,
        module=MODULES[first.inputs["tool"]] if first.kind == "score" else JOB_MODULES[first.kind],
        arguments=tuple(_score(stages, directory) if first.kind == "score" else _job(stages, processes, shared)),
        processes=processes if shared else 1,
        reads=tuple(dict.fromkeys(place for stage in stages for place in _places(stage))),
        writes=directory.root,
    )


def _score(stages: list[Stage], directory: RunDirectory) -> list[str]:
    inputs = stages[0].inputs
    arguments = ["--samples", *(s.inputs["samples"] for s in stages)]
    arguments += ["--json", *(str(s.directory / "scores.json") for s in stages)]
    arguments += ["--reference", inputs["reference"], "--graph", inputs["graph"]]
    if inputs["extractor"]:
        arguments += ["--extractor", inputs["extractor"]]
    if inputs["tool"] in PROTOCOL_TOOLS:
        arguments += ["--views", *(str(s.directory / "views") for s in stages)]
    counts = [s.config.get("images") for s in stages]
    if None not in counts:
        arguments += ["--expect-images", *map(str, counts)]
    return [*arguments, "--cache", str(directory.root / "cache")]


def _job(stages: list[Stage], processes: int, shared: bool) -> list[str]:
    arguments = ["--config", *(str(s.directory / "stage.json") for s in stages)]
    for option in ("images", "latents"):
        if option in stages[0].inputs:
            arguments += [f"--{option}", *(s.inputs[option] for s in stages)]
    if shared:
        arguments += ["--processes", str(processes)]
    return [*arguments, "--out", *(str(s.directory) for s in stages)]


def _places(stage: Stage) -> list[str]:
    data, codec = stage.config.get("data") or {}, stage.config.get("codec") or {}
    named = [data.get("images"), data.get("latents"), codec.get("path"), stage.config.get("checkpoint")]
    return [p for p in [*(v for k, v in stage.inputs.items() if k not in NOT_PLACES), *named] if p]
