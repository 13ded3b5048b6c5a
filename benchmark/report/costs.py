"""Measured cost and training curves of one row, from the logs of its stages."""

from __future__ import annotations

import contextlib
import itertools
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from benchmark.plan.records import SamplingTime, StageRecord
from benchmark.plan.run_directory import RunDirectory
from benchmark.plan.stages import SAMPLE, TRAIN, Stage
from benchmark.published.verdict import TOOL
from benchmark.report.model import Cost, CurvePoint, LossPoint, ProbePoint, Record
from evaluator.tools import score_record
from evaluator.tools.score_record import ScoreRecord
from sra.common.files import load_json
from sra.common.validation import read_record

HOUR_SECONDS = 3600.0
KWH_JOULES = 3.6e6
GIB_BYTES = 2**30
MAX_LOSS_POINTS = 1000
"""Of a loss curve, about; the log holds every line."""


class LogLine(LossPoint):
    """One line of a training log."""

    seconds: float
    """Time spent training so far, pauses left out."""
    memory_bytes: int | None = None
    watts: float | None = None
    """Power of the first device; None: not reported."""


class ProbeFile(Record):
    """`probe.json`, as the linear probes of `sra.analysis` write it."""

    rows: tuple[ProbePoint, ...] = ()


def read_scores(stage: Stage) -> ScoreRecord | None:
    """The score record of a stage; None if it has not scored."""
    path, folder = stage.directory / "scores.json", stage.directory.parent
    document = load_json(path)
    if document is None:
        return None
    document = RunDirectory(folder.parent).relocated(document, (place.name for place in folder.iterdir()))
    return score_record.parse(document, str(path))


def read_log(stages: Sequence[Stage], last: int | None) -> list[LogLine]:
    """The training log up to a step, oldest first; empty where nothing was trained."""
    log = next((stage.directory / "log.jsonl" for stage in stages if stage.kind is TRAIN), None)
    if log is None or not log.is_file():
        return []
    lines = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        # A killed job, or a copy that was cut short, leaves part of a line.
        with contextlib.suppress(ValidationError):
            lines.append(LogLine.model_validate_json(line))
    return [line for line in lines if last is None or line.step <= last]


def cost_of(stages: Sequence[Stage], last: int | None, log: Sequence[LogLine]) -> Cost:
    """Measured cost of one row; None where a stage did not finish or did not record it.

    Args:
        stages: those of the row.
        last: optimizer step of the weights that are compared.
        log: of its training.
    """
    sampled = next((stage for stage in stages if stage.kind is SAMPLE and stage.step == last), None)
    sampling = read_record(SamplingTime, sampled.directory / "seconds.json") if sampled else None
    processes = _processes(stages)
    hours = log[-1].seconds / HOUR_SECONDS if log else None
    return Cost(
        seconds_per_step=seconds_per_step(log),
        training_hours=hours,
        processes=processes,
        device_hours=hours * processes if hours is not None and processes is not None else None,
        memory_gib=max((line.memory_bytes / GIB_BYTES for line in log if line.memory_bytes is not None), default=None),
        sample_seconds=sampling.seconds if sampling else None,
        images_per_second=sampling.images / sampling.seconds if sampling else None,
    )


def _processes(stages: Sequence[Stage]) -> int | None:
    """How many processes trained, over all nodes, as the stage's command line says."""
    directory = next((stage.directory for stage in stages if stage.kind is TRAIN), None)
    record = read_record(StageRecord, directory / "stage.json") if directory else None
    if record is None or not record.argv:
        return None
    after = record.argv[record.argv.index("--processes") + 1 :] if "--processes" in record.argv else ("1",)
    return int(after[0]) if after and after[0].isdecimal() else None


def seconds_per_step(log: Sequence[LogLine]) -> float | None:
    """Median over the log's intervals, so that a pause or a restart does not count."""
    rates = sorted((b.seconds - a.seconds) / (b.step - a.step) for a, b in itertools.pairwise(log) if b.step > a.step)
    rates = [rate for rate in rates if rate > 0]
    return rates[len(rates) // 2] if rates else None


def losses_of(log: Sequence[LogLine]) -> tuple[LossPoint, ...]:
    """Losses by step, thinned evenly."""
    stride = max(1, len(log) // MAX_LOSS_POINTS)
    return tuple(LossPoint.model_validate(line.model_dump()) for line in [*log[:-1:stride], *log[-1:]])


def curve_of(stages: Sequence[Stage], log: Sequence[LogLine]) -> tuple[CurvePoint, ...]:
    """FID and IS of every scored set of weights, by optimizer step and by measured hours of training."""
    points = []
    for stage in stages:
        if stage.tool != TOOL or stage.step is None:
            continue
        record = read_scores(stage)
        if record is not None and "fid" in record.metrics:
            points.append(
                CurvePoint(
                    step=stage.step,
                    hours=hours_at(log, stage.step),
                    kwh=kwh_at(log, stage.step),
                    images=record.samples.count,
                    fid=record.metrics["fid"],
                    inception_score=record.metrics.get("is"),
                    fid_interval=record.intervals.get("fid"),
                )
            )
    return tuple(sorted(points, key=lambda point: point.step))


def hours_at(log: Sequence[LogLine], step: int) -> float | None:
    """Hours of training until a step, interpolated between logged steps; None outside the log."""
    return _at(log, [line.seconds / HOUR_SECONDS for line in log], step)


def kwh_at(log: Sequence[LogLine], step: int) -> float | None:
    """Energy of one device until a step, from its power at each logged step; None where that was not reported."""
    kwh, before, total = [], 0.0, 0.0
    for line in log:
        if line.watts is None:
            return None
        total += line.watts * (line.seconds - before) / KWH_JOULES
        before = line.seconds
        kwh.append(total)
    return _at(log, kwh, step)


def _at(log: Sequence[LogLine], values: Sequence[float], step: int) -> float | None:
    """What grows from 0 to these values at the log's steps, interpolated."""
    place = bisect_left([line.step for line in log], step)
    if place == len(log):
        return None
    step_before, before = (log[place - 1].step, values[place - 1]) if place else (0, 0.0)
    return before + (step - step_before) / (log[place].step - step_before) * (values[place] - before)


def probe_of(root: Path, variant: str) -> tuple[ProbePoint, ...]:
    """Accuracy of linear probes by time and block, if RUN_DIR/probe/VARIANT/probe.json exists."""
    found = read_record(ProbeFile, root / "probe" / variant / "probe.json")
    return found.rows if found else ()
