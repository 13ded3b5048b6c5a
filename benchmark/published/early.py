"""Early verdicts: what the first images of a run say about the FID that all of them will have.

A look scores the first n of N images and predicts FID at N. A run is lost if even the low end of the prediction would
be judged worse than the published FID, and better if even the high end would be judged better. Of a hundred runs that
would be judged reproduced or better, at most one is called lost by any of its looks: docs/verdicts.md measures it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Literal

from benchmark.manifest.schema import Run
from benchmark.published.schema import Registry
from benchmark.published.verdict import Interval, allowance_of, judge_metric
from evaluator.tools.score_record import ScoreRecord

WRONGLY_LOST = 0.01
"""Largest share of the runs that would be reproduced which the looks of a run call lost."""
REACH_OF_95 = NormalDist().inv_cdf(0.975)

Status = Literal["cannot be reproduced any more", "still open", "better", "nothing to compare with"]
LOST: Status = "cannot be reproduced any more"


@dataclass(frozen=True, kw_only=True)
class EarlyVerdict:
    """What one look says."""

    images: int
    """That were scored."""
    of: int
    """For so many, FID is predicted."""
    predicted: float
    interval: Interval
    """Beyond each end lies the truth of at most `WRONGLY_LOST` over the number of looks."""
    against: str | None
    """The number that it is compared with, in words; None: there is none."""
    status: Status

    @property
    def prediction(self) -> str:
        """With its interval."""
        return f"{self.predicted:.3g} [{self.interval[0]:.3g}, {self.interval[1]:.3g}]"

    @property
    def text(self) -> str:
        """In one line."""
        numbers = ", ".join(filter(None, [f"predicted {self.prediction}", self.against]))
        return f"after {self.images:,} of {self.of:,} images: {self.status} ({numbers})"


def early_verdict(registry: Registry, run: Run, record: ScoreRecord) -> EarlyVerdict | None:
    """The verdict of a look of a run; None: its tool could not run, or could not estimate an interval.

    Raises:
        RegistryError: the run names a row that does not exist.
    """
    looked, wanted = record.samples.count, run.sample.images
    name = f"fid@{wanted}"
    if not {"fid", name} <= record.intervals.keys() & record.metrics.keys():
        return None
    value, ends, fid, own = record.metrics[name], record.intervals[name], record.metrics["fid"], record.intervals["fid"]
    room = (ends[1] - value) * NormalDist().inv_cdf(1 - WRONGLY_LOST / len(run.sample.looks)) / REACH_OF_95
    low = max(value - room, 0.0)
    printed, allowance, against = None, None, None
    if run.published is not None:
        row = registry.row(run.published)
        printed, allowance = row.printed.get("fid"), allowance_of(registry, row, "fid", trained=run.train is not None)
        against = f"printed {printed}"
    elif run.expected_fid is not None:
        printed, against = Decimal(str(run.expected_fid)), f"expected {run.expected_fid:g}"
    status: Status = "nothing to compare with"
    if printed is not None:
        # Both the final FID and the published one will have about this noise.
        noise = math.sqrt(2 * looked / wanted) * (own[1] - fid)
        judged = [
            judge_metric("fid", end, printed, (noise, noise), allowance, comparable=True).status
            for end in (low, value + room)
        ]
        status = LOST if judged[0] == "worse" else "better" if judged[1] == "better" else "still open"
    return EarlyVerdict(
        images=looked,
        of=wanted,
        predicted=value,
        interval=(low, value + room),
        against=against if printed is not None else None,
        status=status,
    )


def stops(run: Run, verdict: EarlyVerdict | None) -> bool:
    """Whether a run is not sampled further after a look."""
    return verdict is not None and verdict.status == LOST and run.sample.on_lost == "stop"
