"""The JSON files of a stage directory as records, for all that read them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat


class Record(BaseModel):
    """One of these files, or what is read of it; other keys are ignored."""

    model_config = ConfigDict(frozen=True)


class StageRecord(Record):
    """`stage.json`: what was run, with which settings."""

    key: str
    kind: str = ""
    name: str = ""
    identity: str = ""
    contents: tuple[tuple[str, list[str]], ...] = ()
    config: dict[str, Any] = {}
    inputs: dict[str, str | None] = {}
    argv: tuple[str, ...] = ()


class DoneRecord(Record):
    """`done.json`: a stage has finished."""

    key: str
    outputs: dict[str, NonNegativeInt] = {}
    """Size in bytes by file."""


class FailedRecord(Record):
    """`failed.json`: its last job refused its input, or died."""

    key: str
    message: str


class SamplingTime(Record):
    """`seconds.json` of a sample stage."""

    seconds: PositiveFloat
    images: NonNegativeInt


class SavingTime(Record):
    """`checkpoints.json` of a train stage: the last save."""

    seconds: PositiveFloat


class JobRate(Record):
    """`heartbeat.json` of a job, as far as a grace period needs it."""

    rate: PositiveFloat | None = None
    """Units per second."""
