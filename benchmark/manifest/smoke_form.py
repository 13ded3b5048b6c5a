"""A manifest scaled down to digits on a CPU, for `run --smoke`: the same rows, within seconds.

What changes: width and heads, resolution, classes, steps, batch, images, data, codec, reference, graph, and precision
where a CPU has no such. What does not: depth (so that blocks keep their numbers), alignment, path, times, dropout,
averaging, rate, sampler, guidance and its channels and interval, convention, labels, seeding.
"""

from __future__ import annotations

import dataclasses

from benchmark.manifest.schema import Loaded, Run, ScoreConfig
from sra.config import CodecConfig, DataConfig, ModelConfig, SampleConfig, Size, TrainConfig

DIGITS = "embedded:digits"
CODEC = CodecConfig(path=DIGITS, scale=1.0, factor=4, channels=4)
WIDTH, HEADS = 48, 3
EDGE, PUBLISHED_EDGE = 32, 256
"""256 px become 32, 512 become 64: tokens grow as in the real rows."""
CLASSES = 10
TRAIN_STEPS, BATCH = 4, 8
SAMPLE_STEPS, IMAGES = 5, 64
"""Few, and still: some steps inside and some outside every published guidance interval."""


def scaled(loaded: Loaded) -> Loaded:
    """The smoke form of a manifest; its notes say what was replaced."""
    runs = tuple(_run(run) for run in loaded.runs)
    notes = [
        "smoke run: networks, steps, images, data and features are scaled down to digits: no number means anything "
        "beyond that every stage ran; variants that differ only in what is scaled share their numbers"
    ]
    notes += [note for run in loaded.runs for note in _notes(run)]
    return dataclasses.replace(loaded, name=f"{loaded.name}-smoke", runs=runs, smoke=True, notes=tuple(notes))


def _notes(run: Run) -> list[str]:
    notes = []
    if run.checkpoint:
        replaced = f"a freshly initialised network of convention {run.model.convention} stands in for {run.checkpoint}"
        notes.append(f"{run.variant}: {replaced}")
    if run.samples:
        notes.append(f"{run.variant}: digits stand in for {run.samples}")
    changed = [c.precision for c in (run.train, run.sample) if c is not None and c.precision != "fp32"]
    if changed and not run.samples:
        notes.append(f"{run.variant}: {' and '.join(dict.fromkeys(changed))} -> fp32")
    return notes


def _run(run: Run) -> Run:
    return dataclasses.replace(
        run,
        data=dataclasses.replace(run.data, images=DIGITS, latents=None, split=DataConfig.split, labels="auto"),
        codec=CODEC,
        model=_model(run.model),
        train=None if run.train is None else _train(run.train),
        sample=_sample(run.sample),
        score=ScoreConfig(tools=("adm",), reference="images", graph=DIGITS),
    )


def _model(model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(
        model,
        size=Size(depth=model.dimensions.depth, width=WIDTH, heads=HEADS),
        resolution=EDGE * max(1, model.resolution // PUBLISHED_EDGE),
        classes=CLASSES,
    )


def _train(train: TrainConfig) -> TrainConfig:
    return dataclasses.replace(
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


def _sample(sample: SampleConfig) -> SampleConfig:
    return dataclasses.replace(
        sample,
        steps=SAMPLE_STEPS,
        images=IMAGES,
        milestone_images=None,
        batch=IMAGES,
        shard=IMAGES,
        precision="fp32",
    )
