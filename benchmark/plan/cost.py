"""Estimate the cost of a plan before it runs: hours on one GPU, and GPU memory.

Rates come from the table that `sra-bench perf` measured on this machine, where there is one, else from the hours per
epoch that the SRA paper prints (Table 7). A network that the table does not hold is priced by the ratio of counted
FLOPs; what cannot be said is None, never a guess.

The measured table is JSON, at `$SRA_BENCH_PERF` or in the user's cache; seconds are device seconds (wall-clock
times devices), `size` is S, B, L, XL or DEPTHxWIDTHxHEADS, `align` a kind or null, bytes are those of one device:

    {"schema": 1, "device": "NVIDIA H100 80GB HBM3", "device_bytes",
     "train":   [{"family", "size", "patch", "resolution", "align", "precision", "images_per_device",
                  "seconds_per_image", "memory_bytes", "keeps_gradients"}],
     "sample":  [{"family", "size", "patch", "resolution", "precision", "seconds_per_evaluation",
                  "seconds_per_decode", "memory_bytes"}],
     "latents": [{"resolution", "seconds_per_image"}]}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from benchmark.plan.counts import FLOAT32_BYTES, checkpoint_bytes, evaluations, parameters
from benchmark.published.registry import load_registry
from sra.common.files import COST_TABLE, cache_file, is_embedded
from sra.config import (
    PIXELS_AT_A_TIME,
    SIZES,
    STRICT,
    CodecConfig,
    LatentsJob,
    ModelConfig,
    SampleJob,
    TrainJob,
    UserError,
    parse_model_name,
)
from sra.model.flops import count as work_of
from sra.model.flops import training_macs

FORWARDS_PER_STEP = 3
"""A backward pass costs two forward passes: a training step without alignment costs three evaluations."""
HELD_BYTES = 4 * 4
"""Per parameter on a training device: weight, two moments of AdamW, average, each in float32; and then its gradient."""
MOMENT_BYTES = 4 * 2
"""The part that `train.shard: optimizer` divides among the processes."""
HALF = ("fp16", "bf16")
LIBRARY_BYTES = 400e6
"""Of torch and its libraries in a process that trains (measured on a CPU)."""
SAMPLING_BYTES = 700e6
"""Of the same with SD's autoencoder, without what decoding takes."""
DECODED_BYTES = 3100
"""Per pixel that SD's autoencoder decodes at a time, in float32 (measured on a CPU)."""
MEASURED = "measured by sra-bench perf"
CODEC = CodecConfig()
"""The published networks' latents."""
FAMILIES: dict[str, Literal["sit", "dit"]] = {"SiT": "sit", "DiT": "dit"}


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network that a rate was measured on."""

    __pydantic_config__ = STRICT

    family: Literal["sit", "dit"]
    size: str
    patch: int
    resolution: int
    precision: str

    @property
    def model(self) -> ModelConfig:
        """Settings."""
        size = parse_model_name(f"{self.size}/{self.patch}").size
        return ModelConfig(
            family=self.family, size=size, patch=self.patch, resolution=self.resolution, convention="sra"
        )


@dataclass(frozen=True, kw_only=True)
class TrainRate(Network):
    """Training of one network."""

    align: str | None
    images_per_device: int
    seconds_per_image: float
    memory_bytes: float | None = None
    keeps_gradients: bool = False
    """Whether they were held while a step's activations were: so they are in several processes, for their sums."""


@dataclass(frozen=True, kw_only=True)
class SampleRate(Network):
    """One evaluation of one network for one image, and the decoding of one image."""

    seconds_per_evaluation: float
    seconds_per_decode: float = 0.0
    memory_bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class LatentsRate:
    """Encoding of one image."""

    __pydantic_config__ = STRICT

    resolution: int
    seconds_per_image: float


@dataclass(frozen=True, kw_only=True)
class Table:
    """Everything that was measured on one device."""

    __pydantic_config__ = STRICT

    schema: Literal[1] = 1
    device: str
    device_bytes: float | None = None
    """Memory of one device."""
    train: tuple[TrainRate, ...] = ()
    sample: tuple[SampleRate, ...] = ()
    latents: tuple[LatentsRate, ...] = ()
    source: str = MEASURED

    @property
    def is_published(self) -> bool:
        """Whether nothing was measured here."""
        return self.source != MEASURED


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimated cost of one stage; None: unknown."""

    gpu_hours: float | None = None
    """Hours of one device."""
    memory_bytes: float | None = None
    """Of one device."""
    copy_bytes: float | None = None
    """Memory of the host for a copy of a checkpoint, which is written in the background."""
    how: str = ""
    """Source of the numbers, or why there are none."""


def load_table() -> Table:
    """Load the measured table, or the published one if nothing was measured.

    Raises:
        UserError: a measured table that cannot be read.
    """
    path = cache_file(*COST_TABLE)
    if not path.is_file():
        return _published()
    try:
        return TypeAdapter(Table).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: expected a cost table: {where}: {first['msg']}; remove the file or measure again"
        ) from error


@cache
def _published() -> Table:
    """The published table: hours per epoch (incomplete last batch dropped) at 256 px and patch 2; GB of one device."""
    registry = load_registry()
    facts = registry.cost_source
    images = registry.data.images // facts.global_batch * facts.global_batch
    rates = []
    for name, (hours, memory, hours_sra, memory_sra) in registry.cost.items():
        family, _, size = name.partition("-")
        for align, spent, gigabytes in ((None, hours, memory), ("sra", hours_sra, memory_sra)):
            rate = TrainRate(
                family=FAMILIES[family],
                size=size,
                patch=2,
                resolution=256,
                align=align,
                precision="fp16",
                images_per_device=facts.global_batch // facts.devices,
                seconds_per_image=spent * 3600 * facts.devices / images,
                memory_bytes=gigabytes * 1e9,
                keeps_gradients=facts.devices > 1,
            )
            rates.append(rate)
    return Table(
        device=facts.device,
        device_bytes=facts.device_gb * 1e9,
        train=tuple(rates),
        source=f"published ({facts.source})",
    )


def estimate_latents(job: LatentsJob, images: int | None, table: Table) -> Estimate:
    """Cost of encoding the images; None: their number is not known."""
    rate = next((r.seconds_per_image for r in table.latents if r.resolution == job.resolution), None)
    if images is None or rate is None:
        return Estimate(how="encoding is not in the table" if rate is None else "the number of images is not known")
    return Estimate(gpu_hours=images * rate / 3600, how=table.source)


Rate = TypeVar("Rate", bound=Network)


def _closest(
    model: ModelConfig, codec: CodecConfig, precision: str, rates: Sequence[Rate]
) -> tuple[Rate, float] | None:
    """The rate of the most similar network and the ratio of counted FLOPs to it.

    Only among the published sizes: a network much smaller or larger uses its device otherwise.
    """
    name = model.size_label
    usable = [r for r in rates if r.size == name or (r.size in SIZES and name in SIZES)]
    if not usable:
        return None
    flops, shape = work_of(model, codec).forward, (name, model.patch, codec.latent_shape(model.resolution))
    known = [(r, (r.size, r.patch, CODEC.latent_shape(r.resolution)) == shape) for r in usable]
    ratios = [(r, 1.0 if same else flops / work_of(r.model, CODEC).forward) for r, same in known]
    return min(ratios, key=lambda pair: (abs(math.log(pair[1])), pair[0].precision != precision))


def _how(table: Table, rate: Network, ratio: float, *remarks: str) -> str:
    """Source of an estimate: the table, the scaling, remarks."""
    scaled = (
        [] if ratio == 1 else [f"{rate.family}-{rate.size}/{rate.patch} {rate.resolution} px x {ratio:.3g} by FLOPs"]
    )
    return "; ".join([table.source, *scaled, *(r for r in remarks if r)])


def _absent(table: Table, model: ModelConfig) -> str:
    """Why there is no estimate of a network."""
    return f"{model.family}-{model.size_label} is not in the table ({table.source})"


def estimate_training(job: TrainJob, steps: int, table: Table, processes: int) -> Estimate:
    """Cost of a training run.

    Args:
        job: its settings.
        steps: optimizer steps.
        table: of rates.
        processes: devices that share a batch.
    """
    rates = [r for r in table.train if r.family == job.model.family]
    kind = job.align.kind if job.align else None
    work, plain = (training_macs(job.model, job.codec, align) for align in (job.align, None))
    priced = kind if any(r.align == kind for r in rates) else "sra" if work > plain else None
    rates = [r for r in rates if r.align == priced]
    found = _closest(job.model, job.codec, job.train.precision, rates)
    if found is None:
        return Estimate(copy_bytes=checkpoint_bytes(job), how=_absent(table, job.model))
    rate, ratio = found
    images = steps * job.train.global_batch
    remarks = (
        f"{kind} priced as {priced or 'no alignment'}" if kind != priced else "",
        f"at {rate.precision}" if rate.precision != job.train.precision else "",
    )
    return Estimate(
        gpu_hours=images * rate.seconds_per_image * ratio / 3600,
        memory_bytes=_memory(job, rate, ratio, processes),
        copy_bytes=checkpoint_bytes(job),
        how=_how(table, rate, ratio, *remarks),
    )


def _memory(job: TrainJob, rate: TrainRate, ratio: float, processes: int) -> float | None:
    """Memory of one device: the counted training state, and measured activations scaled by the work for one batch.

    One process has no gradients yet when it holds most activations, and hardly any activations when it has them all.
    """
    if rate.memory_bytes is None:
        return None
    count = parameters(job.model, job.codec, head=job.align is not None)
    measured = count if ratio == 1 else parameters(rate.model, CODEC, head=rate.align is not None)
    known = LIBRARY_BYTES + measured * (HELD_BYTES + FLOAT32_BYTES * rate.keeps_gradients)
    images = job.train.global_batch / (processes * job.train.accumulate)
    activations = max(0.0, rate.memory_bytes - known) * ratio * images / rate.images_per_device
    shards = processes if job.train.shard == "optimizer" else 1
    held = LIBRARY_BYTES + count * (HELD_BYTES - MOMENT_BYTES + MOMENT_BYTES / shards)
    gradients = FLOAT32_BYTES * count
    keeps = processes > 1 or job.train.accumulate > 1
    return held + (gradients + activations if keeps else max(gradients, activations))


def estimate_sampling(job: SampleJob, table: Table) -> Estimate:
    """Cost of sampling: evaluations times the time of one; if that was not measured, a third of a training step's."""
    count = evaluations(job.sample)
    precision, memory = job.sample.precision, _sampling_memory(job)
    sampled = _closest(job.model, job.codec, precision, [r for r in table.sample if r.family == job.model.family])
    if sampled is not None:
        rate, ratio = sampled
        seconds = count * rate.seconds_per_evaluation * ratio + rate.seconds_per_decode
        memory = rate.memory_bytes if ratio == 1 else memory
        how = _how(table, rate, ratio, f"{count} evaluations an image")
        return Estimate(gpu_hours=job.sample.images * seconds / 3600, memory_bytes=memory, how=how)
    plain = [r for r in table.train if r.family == job.model.family and r.align is None]
    trained = _closest(job.model, job.codec, precision, plain)
    if trained is None:
        return Estimate(memory_bytes=memory, how=_absent(table, job.model))
    training, ratio = trained
    seconds = count * training.seconds_per_image * ratio / FORWARDS_PER_STEP
    remark = f"{count} evaluations an image at 1/{FORWARDS_PER_STEP} of a training step, decoding not counted"
    how = _how(table, training, ratio, remark)
    return Estimate(gpu_hours=job.sample.images * seconds / 3600, memory_bytes=memory, how=how)


def _sampling_memory(job: SampleJob) -> float | None:
    """Memory of one device: weights, SD's autoencoder, and what it decodes at a time; None with another autoencoder."""
    if is_embedded(job.codec.path):
        return None
    weights = parameters(job.model, job.codec) * (FLOAT32_BYTES // 2 if job.sample.precision in HALF else FLOAT32_BYTES)
    pixels = min(job.sample.batch * job.model.resolution**2, PIXELS_AT_A_TIME)
    return weights + SAMPLING_BYTES + pixels * DECODED_BYTES
