"""How long before its time limit a job must be told: it finishes a step, saves, and leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.plan.counts import checkpoint_bytes
from benchmark.plan.run_directory import read_json
from benchmark.plan.stages import Stage
from sra.config import TrainJob

MARGIN_SECONDS = 60.0
"""For the signal's way to every process, their end, and the request to be queued again."""
STEP_SECONDS = 30.0
"""For the step, or the batch of images, that is under way, until its time was measured."""
SAVES = 2
"""A save by the interval may have begun just before the one that the signal asks for."""


@dataclass(frozen=True, kw_only=True)
class Lead:
    """Time before a limit, and where it comes from."""

    seconds: int
    how: str


def lead_of(stages: Sequence[Stage], rate: float) -> Lead:
    """margin + one step + two saves; only training has a state to save.

    Args:
        stages: of one job.
        rate: GB/s to the disk, for saves that were not measured.
    """
    step, what = _step(stages)
    saving, how = max(
        (_save(stage, stage.job, rate) for stage in stages if isinstance(stage.job, TrainJob)),
        default=(0.0, "nothing to save"),
    )
    seconds = math.ceil(MARGIN_SECONDS + step + SAVES * saving)
    return Lead(seconds=seconds, how=f"{MARGIN_SECONDS:.0f} s + step {step:.1f} s ({what}) + {SAVES} x {how}")


def _step(stages: Sequence[Stage]) -> tuple[float, str]:
    """Seconds of the slowest stage's step, and how they are known."""
    found = [(read_json(stage.directory / "heartbeat.json") or {}).get("rate") for stage in stages]
    rates = [float(rate) for rate in found if rate]
    if not rates or len(rates) < len(found):
        return STEP_SECONDS, "not measured"
    return 1 / min(rates), "measured"


def _save(stage: Stage, job: TrainJob, rate: float) -> tuple[float, str]:
    """Seconds of one save of a training stage, and how they are known."""
    measured = (read_json(stage.directory / "checkpoints.json") or {}).get("seconds")
    if measured is not None:
        return float(measured), f"save {measured:.1f} s (measured)"
    size = checkpoint_bytes(job) / 1e9
    return size / rate, f"save {size / rate:.1f} s ({size:.2f} GB at {rate:g} GB/s)"
