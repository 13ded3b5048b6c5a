"""The job of one batch of stages: what any executor starts, wherever it starts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmark.plan.run_directory import RunDirectory
from benchmark.plan.stages import Stage


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
    kind = stages[0].kind
    return Command(
        kind=kind.name,
        module=kind.module(stages[0].job),
        arguments=tuple(kind.arguments(stages, directory, processes)),
        processes=processes if kind.distributed else 1,
        reads=tuple(dict.fromkeys(place for stage in stages for place in stage.places)),
        writes=directory.root,
    )
