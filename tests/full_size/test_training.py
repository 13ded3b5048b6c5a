"""SiT-XL/2, two images a step: memory and disk as planned; killed in a checkpoint, continued, exported, loaded."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from sra.common.processes import free_memory
from sra.config import CodecConfig, ModelConfig, SraSettings, TrainConfig, TrainJob, to_plain
from sra.data.packed import PackedWriter
from sra.model.weights import load_network
from tests.full_size import sizes as full

IMAGES = 8
WAITS = "training waits while the checkpoint is written"
TWO_PROCESSES = ("-m", "sra.runtime.launch", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(autouse=True)
def memory_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tensor used goes back to the system at once: else the peak is that of malloc's gaps, 5 GB higher."""
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")


def make_job(size: Any = "XL", precision: Any = "fp32", resolution: int = 256) -> TrainJob:
    model = ModelConfig(size=size, resolution=resolution, convention="sra")
    train = TrainConfig(
        steps=2,
        global_batch=2,
        precision=precision,
        checkpoint_every=1,
        keep=1,
        log_every=1,
        allow_unused_classes=True,
    )
    align = SraSettings(blocks=(8, 20 if size == "XL" else 16))
    return TrainJob(seed=0, codec=CodecConfig(), model=model, train=train, align=align)


def train(folder: Path, job: TrainJob, *launcher: str, stop: Callable[[Path], object], name: str) -> full.Used:
    """Train in `folder`; `stop` gets the stage's folder."""
    latents, out = folder / "latents", folder / "train"
    if not out.is_dir():
        out.mkdir()
        shape = (IMAGES, *job.codec.moments_shape(job.model.resolution))
        with PackedWriter(latents, shape, "float32") as writer:
            writer.write(np.random.default_rng(0).random(shape, np.float32))
            writer.finish(list(range(IMAGES)), {})
    document = {"config": to_plain(job), "inputs": {"latents": str(latents)}}
    (out / "stage.json").write_text(json.dumps(document))
    module = (*launcher, "-m", "sra.training.train")
    arguments = ("--config", out / "stage.json", "--latents", latents, "--out", out)
    return full.run(*module, *arguments, stop=lambda _: bool(stop(out)), name=name)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("resolution", [256, 512])
def test_memory_and_disk_are_the_planned(space: Callable[[float], Path], resolution: int, precision: str) -> None:
    folder, job = space(26), make_job(precision=precision, resolution=resolution)
    name, most = f"SiT-XL/2 at {resolution} px, {precision}", full.Most(folder / "train")
    used = train(folder, job, stop=most.look, name=name)
    assert used.code == 0, used.text
    disk, cost = full.planned(job, 2)
    assert cost.memory_bytes is not None
    assert cost.copy_bytes is not None
    memory = cost.memory_bytes + (0 if WAITS in used.text else cost.copy_bytes)
    full.say(name, f"{memory / 1e9:.2f} GB of memory planned")
    assert used.peak_bytes == pytest.approx(memory, rel=0.1)
    most.check(name, disk)


def test_a_step_runs_while_a_checkpoint_is_written(space: Callable[[float], Path]) -> None:
    """SiT-L/2, whose copy fits beside its state in 20 GB."""
    folder, job = space(18), make_job("L")
    used = train(folder, job, stop=lambda _: False, name="SiT-L/2, written in the background")
    assert used.code == 0, used.text
    assert WAITS not in used.text
    cost = full.planned(job, 2)[1]
    assert cost.memory_bytes is not None
    assert cost.copy_bytes is not None
    assert used.peak_bytes == pytest.approx(cost.memory_bytes + cost.copy_bytes, rel=0.1)
    first, both = (row["seconds"] for row in rows(folder / "train"))
    full.say("SiT-L/2", f"{first:.0f} s for a step, {both - first:.0f} s for one while a checkpoint is written")


def test_killed_while_a_checkpoint_is_written(space: Callable[[float], Path]) -> None:
    """On two processes, SiT-XL/2 needs 26 GB, which may be swapped; with less, SiT-L/2."""
    free = free_memory() + psutil.swap_memory().free
    folder, job = space(26), make_job("XL" if free > 28e9 else "L")
    out, name = folder / "train", job.model.name

    def writing(out: Path) -> bool:
        return any(full.held(path).bytes > 2e9 for path in out.glob("checkpoints/.step-00000002.*"))

    assert train(folder, job, stop=writing, name=f"{name}, killed in a checkpoint").code == -9
    assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-00000001"]
    before, weights = rows(out), out / "weights/step-00000002.safetensors"
    # Two processes round differently, and weights that are there are kept.
    weights.unlink()
    job = dataclasses.replace(job, train=dataclasses.replace(job.train, shard="optimizer"))
    used = train(folder, job, *TWO_PROCESSES, stop=lambda _: False, name=f"{name}, continued on 2 processes")
    assert used.code == 0, used.text
    assert "continues at step 1 of 2" in used.text
    assert [row["loss"] for row in rows(out)] == pytest.approx([row["loss"] for row in before], rel=2e-3)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002"]
    exported = full.run("-m", "sra.interop.export", out, folder / "published.pt", name=f"{name}, exported")
    assert exported.code == 0, exported.text
    found = load_network(folder / "published.pt", job.model, job.codec).state_dict()
    assert all(torch.equal(found[name], value) for name, value in load_file(weights).items())
