"""What the stages of a plan write, before they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.plan.counts import parameters
from benchmark.plan.plan import PROTOCOL_TOOLS, Plan, Stage, known_count
from sra.config import ImagesJob, LatentsJob, SampleJob, StandInJob, TrainJob, from_plain

FEATURES = 2048 + 17 * 17 * 7
"""Numbers that the evaluator keeps of an image: pooled and spatial features of the ADM graph."""
FLOAT = 4
SMALL = 1_000_000
"""A record and a log."""


def disk_of(stage: Stage, plan: Plan) -> tuple[int | None, bool]:
    """(bytes that a stage writes, whether that is an upper bound only: images compress as they like).

    None where the number of images is not known.
    """
    if stage.kind == "images":
        images = from_plain(ImagesJob, stage.config)
        return _times(known_count(images.data), _pixels(images.resolution)), True
    if stage.kind == "score" and stage.inputs["tool"] not in PROTOCOL_TOOLS:
        return SMALL, True
    if stage.kind == "score":
        return _times(sampled_images(stage, plan), FEATURES * FLOAT), stage.inputs["graph"].startswith("embedded:")
    if stage.kind == "train":
        return _train(from_plain(TrainJob, stage.config), stage.step), False
    return _DISK[stage.kind](stage.config), False


def _times(count: int | None, each: int) -> int | None:
    return None if count is None else count * each


def needed(plan: Plan, stages: list[Stage]) -> int:
    """Bytes that stages surely write."""
    sizes = [disk_of(stage, plan) for stage in stages]
    return sum(size or 0 for size, at_most in sizes if not at_most)


def sampled_images(stage: Stage, plan: Plan) -> int | None:
    """Number of images that a scoring stage reads; None: a given file's."""
    place = Path(stage.inputs["samples"]).parent
    counts = [s.config["sample"]["images"] for s in plan.stages if s.kind == "sample" and s.directory == place]
    return int(counts[0]) if counts else None


def _pixels(resolution: int) -> int:
    return resolution**2 * 3


def _latents(config: dict[str, Any]) -> int | None:
    job = from_plain(LatentsJob, config)
    cells = 2 * job.codec.channels * (job.resolution // job.codec.factor) ** 2
    each = FLOAT // 2 if job.data.latent_dtype == "float16" else FLOAT
    return _times(known_count(job.data), cells * each * (2 if job.flipped else 1))


def _train(job: TrainJob, steps: int | None) -> int:
    """Every kept checkpoint and the one being written; exports."""
    forever = steps // job.train.keep_every if steps and job.train.keep_every else 0
    states = job.train.keep + 1 + forever
    return states * state_bytes(job) + _trained(job) * FLOAT * (len(job.train.milestones) + 1)


def state_bytes(job: TrainJob) -> int:
    """One checkpoint: weights, average and AdamW's two moments."""
    return 4 * _trained(job) * FLOAT


def _trained(job: TrainJob) -> int:
    return parameters(job.model, job.codec, head=job.align is not None)


def _standin(config: dict[str, Any]) -> int:
    job = from_plain(StandInJob, config)
    if job.images is not None:
        return job.images * _pixels(job.model.resolution)
    return parameters(job.model, job.codec, head=True) * FLOAT


def _sample(config: dict[str, Any]) -> int:
    """Raw pixels twice: shards, and the final file."""
    job = from_plain(SampleJob, config)
    return 2 * job.sample.images * _pixels(job.model.resolution)


_DISK: dict[str, Callable[[dict[str, Any]], int | None]] = {
    "latents": _latents,
    "standin": _standin,
    "sample": _sample,
}
