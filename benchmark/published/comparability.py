"""Whether a run can be compared with a published row: every setting of both, and what a difference does.

Settings come from the resolved manifest; what was scored, with which graph and reference, comes from the score record.
A difference that can move FID makes the row not comparable; a harmless one is only reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from benchmark.assets.catalogue import located
from benchmark.manifest.schema import Run
from benchmark.published.schema import Protocol, Registry, Row
from evaluator.tools.score_record import AdmSettings, ScoreRecord
from sra.config import (
    ADAPTIVE_SAMPLERS,
    CODEC_FILES,
    SIZES,
    ConfigError,
    SampleConfig,
    to_plain,
)

Effect = Literal["none", "harmless", "moves FID", "not stated"]
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
"""From exact to coarse: a run at least as exact as the published one differs from it by rounding only."""
UNSETTLED = "not known"
"""Placeholder of a published setting that is not known."""
LENGTH_TOLERANCE = 1e-3
"""Relative: papers round lengths and print 800 epochs (4,003,200 steps) as 4M."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One setting of a published row and of a run."""

    field: str
    published: Any
    ours: Any
    effect: Effect
    why: str = ""

    def text(self) -> str:
        """As a reason: `sample.steps: published 250, ours 50`."""
        if self.published == UNSETTLED:
            what = self.field if self.field == "published row" else f"{self.field} of the published row"
            return f"{what} is {UNSETTLED}: {self.why}"
        shown = f"{self.field}: published {show(self.published)}, ours {show(self.ours)}"
        return f"{shown} ({self.why})" if self.why else shown


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the files of a run say about it."""

    record: ScoreRecord
    """ADM scores of the final samples."""
    codec: str | None = None
    """Path of the autoencoder that decoded them; None: the manifest's."""
    checkpoint: str | None = None
    """Path of the weights that were sampled; None: the manifest's."""
    images: int | None = None
    """Number of images in the training set."""
    classes: int | None = None
    """Number of its classes."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the published files, where known, by file name or folder/name."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files that the run used, likewise."""
    train_precision: str | None = None
    """In which the device computed; None: not recorded, so that it is what the manifest says."""
    sample_precision: str | None = None
    """Likewise of sampling."""


def compare(registry: Registry, row: Row, run: Run, evidence: Evidence) -> list[Compared]:
    """Compare every setting that the row and the run have.

    Args:
        registry: the published rows.
        row: the row that the run names.
        run: the resolved settings.
        evidence: what the run's files say.
    """
    protocol = registry.protocols[row.protocol]
    items = [*_unsettled(registry, row, protocol, run)]
    if protocol.scores_only:
        items += _named_file("samples", row.samples, evidence.record.samples.path, evidence)
    elif run.samples is not None:
        made, why = "made under the row's protocol", "it is not known how a given file was made"
        items.append(_item("samples", made, run.samples, why=why))
    else:
        items += [*_sampling(registry, row, protocol, run, evidence), *_codec(registry, protocol, run, evidence)]
        items += _model(registry, row, run)
        items += _checkpoint(row, run, evidence) if run.checkpoint else _training(registry, row, run, evidence)
    return [*items, *_evaluation(registry, row, evidence)]


def blocking(items: list[Compared]) -> list[Compared]:
    """The differences that make a row not comparable."""
    return [item for item in items if item.effect == "moves FID"]


def show(value: Any) -> str:
    """A setting as the report prints it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 1000:
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(show(v) for v in value) + "]"
    if isinstance(value, dict):
        return ", ".join(f"{k} {show(v)}" for k, v in value.items() if v is not None)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _item(name: str, published: Any, ours: Any, effect: Effect = "moves FID", why: str = "") -> Compared:
    """One setting; `effect` and `why` apply if the two differ."""
    if isinstance(published, tuple) and isinstance(ours, (list, tuple)):
        published, ours = list(published), list(ours)
    if published == ours:
        return Compared(field=name, published=published, ours=ours, effect="none")
    return Compared(field=name, published=published, ours=ours, effect=effect, why=why)


def _stated(name: str, published: Any, ours: Any) -> Compared:
    """As `_item`, for a setting that the source may not state."""
    if published is None:
        return Compared(field=name, published="not stated", ours=ours, effect="not stated")
    return _item(name, published, ours)


def _admitted(name: str, published: str, ours: Any, *, admitted: bool) -> Compared:
    """One setting of which the protocol admits several values."""
    return Compared(field=name, published=published, ours=ours, effect="none" if admitted else "moves FID")


def _precision(name: str, published: str | None, ours: str) -> Compared:
    """At least as exact as published: rounding only."""
    if published is None or published == ours:
        return _stated(name, published, ours)
    if PRECISIONS.index(ours) < PRECISIONS.index(published):
        return _item(name, published, ours, "harmless", "more exact than published")
    return _item(name, published, ours, why="coarser than published")


def _unsettled(registry: Registry, row: Row, protocol: Protocol, run: Run) -> Iterator[Compared]:
    """Published settings that no run can match, because they are not known."""
    kind = row.align_kind or ""
    reasons = [(f"sample.{name}", getattr(run.sample, name, None), protocol.note) for name in protocol.unknown]
    reasons += [("published row", row.id, row.unsettled), ("align", kind, registry.unsettled_alignments.get(kind))]
    for name, ours, reason in reasons:
        if reason:
            yield Compared(field=name, published=UNSETTLED, ours=ours, effect="moves FID", why=reason)


def _sampling(registry: Registry, row: Row, protocol: Protocol, run: Run, evidence: Evidence) -> Iterator[Compared]:
    ours = run.sample
    if not protocol.unknown:
        allowed = " or ".join(protocol.samplers)
        yield _admitted("sample.sampler", allowed, ours.sampler, admitted=ours.sampler in protocol.samplers)
        yield from _steps(protocol, ours)
    if protocol.last_step is not None:
        yield _item("sample.last_step", protocol.last_step, ours.last_step)
    yield _item("sample.cfg", _scale(protocol.cfg), _scale(ours.cfg))
    if protocol.cfg > 1:
        yield _item("sample.guidance_interval", protocol.guidance_interval, ours.guidance_interval)
        yield _item("sample.cfg_channels", protocol.cfg_channels, ours.cfg_channels)
    yield _item("sample.labels", protocol.labels, ours.labels)
    yield _item("sample.images", registry.images(row), ours.images)
    yield _item("sample.weights", protocol.weights, ours.weights)
    yield _precision("sample.precision", protocol.precision, evidence.sample_precision or ours.precision)
    why = "other noise and labels, within sampling noise"
    yield _item("sample.seeding", protocol.seeding, ours.seeding, "harmless", why)


def _steps(protocol: Protocol, ours: SampleConfig) -> Iterator[Compared]:
    """Equal steps, or enough of them; an adaptive sampler chooses them itself."""
    least = protocol.least_steps
    if least is None:
        yield _item("sample.steps", protocol.steps, ours.steps)
    elif ours.sampler not in ADAPTIVE_SAMPLERS:
        yield _admitted("sample.steps", f"at least {least}", ours.steps, admitted=ours.steps >= least)


def _scale(cfg: float) -> float | str:
    return float(cfg) if cfg > 1 else "none"


def _codec(registry: Registry, protocol: Protocol, run: Run, evidence: Evidence) -> Iterator[Compared]:
    place = located(evidence.codec or run.codec.path)
    hub_id = f"{registry.codec.hub}/{protocol.vae}"
    named = PurePosixPath(place).name == protocol.vae
    yield _item("codec.path", hub_id, hub_id if named else place)
    if named and place != hub_id:
        yield _item("codec folder", hub_id, place, "harmless", "a folder of this name")
    if named:
        yield from _hash("codec", f"{protocol.vae}/{CODEC_FILES[1]}", evidence)
    for key in ("scale", "factor", "channels"):
        yield _item(f"codec.{key}", getattr(registry.codec, key), getattr(run.codec, key))
    # The codec decodes in float32, with TF32 unless the samples are `fp32`, and the pixels are cut off.
    exact = (evidence.sample_precision or run.sample.precision) == "fp32"
    yield _precision("codec precision", protocol.vae_precision, "fp32" if exact else "tf32")
    yield _item("pixel rounding", protocol.pixels, "truncate")


def _model(registry: Registry, row: Row, run: Run) -> Iterator[Compared]:
    family, size, patch = row.size
    yield _item("model.family", family, run.model.family)
    yield _item("model.size", size, _size_name(run))
    yield _item("model.patch", patch, run.model.patch)
    yield _item("model.resolution", row.resolution, run.model.resolution)
    yield _item("model.classes", registry.data.classes, run.model.classes)
    yield _item("model.time_scale", registry.network.time_scale, run.model.time_scale)
    if run.model.family == "sit":
        yield _stated("model.interpolant", registry.training[row.training or ""].interpolant, run.model.interpolant)


def _size_name(run: Run) -> str:
    """The published size with these dimensions, else the dimensions."""
    names = [name for name, size in SIZES.items() if size == run.model.dimensions]
    return names[0] if names else show(to_plain(run.model.dimensions))


def _checkpoint(row: Row, run: Run, evidence: Evidence) -> Iterator[Compared]:
    """Published weights count as the row's training; how any other file was trained is not known."""
    name = PurePosixPath(located(evidence.checkpoint or run.checkpoint or "")).name
    if row.checkpoint is None:
        yield _item("checkpoint", "none published for this row", name, why="how it was trained is not known")
        return
    yield _item("checkpoint", row.checkpoint, name, why="how it was trained is not known")
    yield from _hash("checkpoint", row.checkpoint, evidence)
    yield _item("model.convention", row.convention, run.model.convention)


def _training(registry: Registry, row: Row, run: Run, evidence: Evidence) -> Iterator[Compared]:
    published, ours = registry.training[row.training or ""], run.train
    assert ours is not None
    yield _length(registry, row, run, evidence)
    for name in ("global_batch", "lr", "betas", "eps", "weight_decay", "warmup_steps", "clip", "label_dropout", "flip"):
        yield _stated(f"train.{name}", getattr(published, name), getattr(ours, name))
    yield _precision("train.precision", published.precision, evidence.train_precision or ours.precision)
    yield _stated("train.ema.decay", published.ema_decay, ours.ema.decay)
    yield _stated("train.ema.schedule", published.ema_schedule, ours.ema.schedule)
    if run.model.family == "sit":
        yield _stated("train.times", published.times, ours.times)
    yield _item("model.label_init_std", registry.network.label_init_std, run.model.label_init_std)
    yield _item("data.latent_dtype", "float32", run.data.latent_dtype, "harmless", "rounding of stored moments")
    yield _item("training images", registry.data.images, evidence.images)
    yield _item("training classes", registry.data.classes, evidence.classes)
    yield from _alignment(row, run)


def _length(registry: Registry, row: Row, run: Run, evidence: Evidence) -> Compared:
    published, train = registry.steps(row), run.train
    assert published is not None
    assert train is not None
    per_epoch = (evidence.images or registry.data.images) // train.global_batch
    ours = train.steps if train.steps is not None else (train.epochs or 0) * per_epoch
    if published != ours and abs(published - ours) <= LENGTH_TOLERANCE * published:
        return _item("train.steps", published, ours, "harmless", "lengths are printed rounded")
    return _item("train.steps", published, ours)


def _alignment(row: Row, run: Run) -> Iterator[Compared]:
    kind = row.align_kind
    yield _item("align.kind", kind, run.align.kind if run.align else None)
    if kind is None or run.align is None or run.align.kind != kind:
        return
    try:
        published = to_plain(row.alignment())
    except ConfigError as error:
        yield Compared(
            field="align", published=row.align, ours=kind, effect="moves FID", why=f"row {row.id!r}: {error}"
        )
        return
    ours = to_plain(run.align)
    for name in published:
        if name == "kind":
            continue
        harmless = name == "teacher_precision"
        effect: Effect = "harmless" if harmless else "moves FID"
        why = "the paper does not say; rounding only" if harmless else ""
        yield _item(f"align.{name}", published[name], ours.get(name), effect, why)


def _evaluation(registry: Registry, row: Row, evidence: Evidence) -> Iterator[Compared]:
    record, published = evidence.record, registry.evaluator
    yield _item("scored images", registry.images(row), record.samples.count)
    yield _item("scored resolution", row.resolution, record.samples.shape[0])
    if record.samples.duplicates:
        yield _item("repeated images", 0, record.samples.duplicates)
    graph = PurePosixPath(record.graph.name).name
    yield _item("evaluator graph", published.graph, graph)
    if graph == published.graph:
        yield from _hash("evaluator graph", published.graph, evidence, record.graph.sha256)
    yield from _named_file("reference batch", published.references.get(row.resolution), record.reference.path, evidence)
    settings = record.settings if isinstance(record.settings, AdmSettings) else None
    stored = settings.stored_statistics if settings else None
    yield _item("reference statistics stored in the file", published.stored_statistics, stored)
    if settings and settings.trusted_sample_statistics:
        yield _item("sample statistics", "of the images", "brought by the file", why="they may not be the images'")


def _named_file(name: str, published: str | None, path: str, evidence: Evidence) -> Iterator[Compared]:
    ours = PurePosixPath(path).name
    yield _item(name, published, ours)
    if published and ours == published:
        yield from _hash(name, published, evidence)


def _hash(name: str, published: str, evidence: Evidence, seen: str | None = None) -> Iterator[Compared]:
    """Compare the hash of a file with the pinned one; if either is unknown, only the name is compared."""
    pinned, found = evidence.pins.get(published), seen or evidence.files.get(published)
    if pinned and found:
        yield _item(f"{name} sha256", pinned, found)
        return
    why = f"compared by name only: {'its hash was not recorded' if pinned else 'no hash is pinned'}"
    yield Compared(field=f"{name} sha256", published=pinned or "not pinned", ours=found, effect="harmless", why=why)
