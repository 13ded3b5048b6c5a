"""Seconds before the Slurm time limit at which SIGUSR1 is sent so that the job can checkpoint and exit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmark.plan.counts import checkpoint_bytes
from benchmark.plan.records import JobRate, SavingTime
from benchmark.plan.stages import Stage
from sra.common.validation import sound_record
from sra.config import TrainJob

MARGIN_SECONDS = 60.0
"""To deliver the signal to every process, end them, and requeue the job."""
UNKNOWN_STEP_SECONDS = 30.0
"""For the training step or sampling batch under way, until its time was measured."""
SAVES = 2
"""A regular checkpoint may have begun just before the one that the signal asks for."""


class GracePeriod(NamedTuple):
    """A time before the limit, and how it is made up."""

    seconds: int
    how: str


def grace_period(stages: Sequence[Stage], checkpoint_rate: float) -> GracePeriod:
    """Margin + one step + two saves; only training has a state to save.

    Args:
        stages: of one job.
        checkpoint_rate: GB/s to the disk, for saves that were not measured.
    """
    step, source = _step_seconds(stages)
    save, how = max(
        (_save_seconds(stage, stage.job, checkpoint_rate) for stage in stages if isinstance(stage.job, TrainJob)),
        default=(0.0, "nothing to save"),
    )
    seconds = math.ceil(MARGIN_SECONDS + step + SAVES * save)
    return GracePeriod(seconds, f"{MARGIN_SECONDS:.0f} s + step {step:.1f} s ({source}) + {SAVES} x {how}")


def _step_seconds(stages: Sequence[Stage]) -> tuple[float, str]:
    """Seconds of the slowest stage's step, and whether they were measured."""
    records = [sound_record(JobRate, stage.directory / "heartbeat.json") for stage in stages]
    rates = [(record and record.rate) or 0.0 for record in records]
    if min(rates, default=0.0) <= 0.0:
        return UNKNOWN_STEP_SECONDS, "not measured"
    return 1 / min(rates), "measured"


def _save_seconds(stage: Stage, job: TrainJob, rate: float) -> tuple[float, str]:
    """Seconds of one checkpoint of a training stage, and where they come from."""
    measured = sound_record(SavingTime, stage.directory / "checkpoints.json")
    if measured is not None:
        return measured.seconds, f"save {measured.seconds:.1f} s (measured)"
    size = checkpoint_bytes(job) / 1e9
    return size / rate, f"save {size / rate:.1f} s ({size:.2f} GB at {rate:g} GB/s)"
