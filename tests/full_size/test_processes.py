"""Many processes with gloo, 8 through the launcher and 64 forked: the loss trace and the images of one process."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sra.config import (
    CodecConfig,
    ModelConfig,
    SampleConfig,
    SampleJob,
    Size,
    SraSettings,
    TrainConfig,
    TrainJob,
    to_plain,
)
from sra.data.packed import PackedWriter
from tests.full_size import sizes as full

CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
MODEL = ModelConfig(size=Size(depth=2, width=16, heads=2), resolution=32, classes=10, convention="sra")
TRAIN = TrainConfig(steps=10, global_batch=16, lr=1e-4, precision="fp32", checkpoint_every=1000, log_every=1)
WEIGHTS = "weights/step-00000010.safetensors"


def launch(count: int, module: str, out: Path, config: object, *more: object) -> None:
    out.mkdir(parents=True)
    (out / "stage.json").write_text(json.dumps({"config": to_plain(config)}))
    start: tuple[object, ...] = ("-m", "sra.runtime.launch", "--standalone", "--nproc-per-node", count, "-m")
    if count > 8:
        start = (Path(__file__).with_name("world.py"), count)
    job = ("--config", out / "stage.json", "--out", out, "--processes", count)
    used = full.run(*start, module, *job, *more, name=f"{module} on {count} processes")
    assert used.code == 0, used.text


@pytest.mark.parametrize("many", [8, 64])
def test_many_processes(space: Callable[[float], Path], many: int) -> None:
    folder = space(1)
    generator = np.random.default_rng(0)
    with PackedWriter(folder / "latents", (64, 8, 8, 8), "float32") as writer:
        writer.write(generator.random((64, 8, 8, 8), np.float32))
        writer.finish([number % 10 for number in range(64)], {})
    losses, pixels = {}, {}
    for count in (1, many):
        train = dataclasses.replace(TRAIN, global_batch=max(16, many), shard="optimizer" if count > 1 else "none")
        job = TrainJob(seed=0, codec=CODEC, model=MODEL, train=train, align=SraSettings(blocks=(1, 2)))
        launch(count, "sra.training.train", folder / f"train-{count}", job, "--latents", folder / "latents")
        rows = [json.loads(line) for line in (folder / f"train-{count}" / "log.jsonl").read_text().splitlines()]
        losses[count] = [row["loss"] for row in rows]
        # 64 processes: 16 shards or 80, so that some have none or two.
        for images in (62, 318):
            sample = SampleConfig(images=images, batch=2, shard=4, steps=3, precision="fp32")
            checkpoint = str(folder / "train-1" / WEIGHTS)
            config = SampleJob(seed=0, codec=CODEC, model=MODEL, sample=sample, checkpoint=checkpoint)
            out = folder / f"sample-{count}-{images}"
            launch(count, "sra.sampling.sample", out, config)
            pixels[count, images] = np.load(out / "samples.npz")["arr_0"]
    assert len(losses[1]) == TRAIN.steps
    assert losses[many] == pytest.approx(losses[1], rel=2e-3)
    assert all((pixels[many, images] == pixels[1, images]).all() for images in (62, 318))
