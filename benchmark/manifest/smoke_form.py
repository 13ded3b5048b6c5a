"""The smoke form of a manifest (`run --smoke`): the same rows on digits, on a CPU, within seconds.

Changed: width and heads, resolution, classes, steps, batch, images, data, codec, reference, graph, and precisions that
a CPU lacks; of an alignment, the MLP's width and the local batch. Unchanged: depth (so that block numbers stay valid),
the rest of the alignment, interpolant, times, label dropout, EMA, learning rate, sampler, guidance and its channels and
interval, convention, labels, seeding.
"""

from __future__ import annotations

from dataclasses import replace

from benchmark.manifest.schema import Loaded, Run, ScoreConfig
from sra.config import AlignSettings, CodecConfig, DataConfig, DispersiveSettings, Size, Sra2Settings, TrainConfig

DIGITS = "embedded:digits"
CODEC = CodecConfig(path=DIGITS, scale=1.0, factor=4, channels=4)
WIDTH, HEADS = 48, 3
RESOLUTION, PUBLISHED_RESOLUTION = 32, 256
"""256 px become 32 px, 512 px become 64 px."""
CLASSES = 10
TRAIN_STEPS, BATCH, LOCAL_BATCH = 4, 8, 2
SAMPLE_STEPS, IMAGES = 5, 64
"""Enough for steps inside and outside every published guidance interval."""


def scaled(loaded: Loaded) -> Loaded:
    """Return the smoke form of a manifest, with notes on what was replaced."""
    runs = tuple(_run(run) for run in loaded.runs)
    notes = [
        "smoke run on digits with small networks and few steps: the numbers show only that every stage ran; variants "
        "that differ only in replaced settings have equal numbers"
    ]
    notes += [note for run in loaded.runs for note in _notes(run)]
    return replace(loaded, name=f"{loaded.name}-smoke", runs=runs, smoke=True, notes=tuple(notes))


def _notes(run: Run) -> list[str]:
    notes = []
    if run.checkpoint:
        notes.append(f"a freshly initialised network of convention {run.model.convention} replaces {run.checkpoint}")
    if run.samples:
        notes.append(f"digits replace {run.samples}")
    precisions = [c.precision for c in (run.train, run.sample) if c is not None and c.precision != "fp32"]
    if precisions and not run.samples:
        notes.append(f"{' and '.join(dict.fromkeys(precisions))} -> fp32")
    return [f"{run.variant}: {note}" for note in notes]


def _run(run: Run) -> Run:
    model = replace(
        run.model,
        size=Size(depth=run.model.dimensions.depth, width=WIDTH, heads=HEADS),
        resolution=RESOLUTION * max(1, run.model.resolution // PUBLISHED_RESOLUTION),
        classes=CLASSES,
    )
    return replace(
        run,
        data=replace(run.data, images=DIGITS, latents=None, split=DataConfig.split, labels="auto"),
        codec=CODEC,
        model=model,
        train=None if run.train is None else _train(run.train),
        sample=replace(
            run.sample,
            steps=SAMPLE_STEPS,
            images=IMAGES,
            milestone_images=None,
            batch=IMAGES,
            shard=IMAGES,
            precision="fp32",
            looks=(),
            on_lost=None,
        ),
        expected_fid=None,
        score=ScoreConfig(tools=("adm",), reference="images", graph=DIGITS),
        align=_align(run.align, run.model.dimensions.width),
    )


def _align(align: AlignSettings | None, width: int) -> AlignSettings | None:
    """The same settings, with a projection of the same ratio to the network's width, and a local batch that fits."""
    if isinstance(align, Sra2Settings) and align.mlp_width is not None:
        return replace(align, mlp_width=max(1, align.mlp_width * WIDTH // width))
    if isinstance(align, DispersiveSettings):
        return replace(align, local_batch=LOCAL_BATCH)
    return align


def _train(train: TrainConfig) -> TrainConfig:
    return replace(
        train,
        steps=TRAIN_STEPS,
        epochs=None,
        global_batch=BATCH * train.accumulate,
        warmup_steps=min(train.warmup_steps, TRAIN_STEPS),
        milestones=(),
        checkpoint_every=TRAIN_STEPS,
        log_every=1,
        precision="fp32",
    )
