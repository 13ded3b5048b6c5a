"""ImageNet's 1,281,167 images as a folder and as Kaggle's zip, and their packed latents."""

import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sra.config import DataConfig, ImagesJob, to_plain
from sra.data.packed import FACTS, LABELS, MOMENTS, write_facts
from tests.full_size import sizes as full

READ = """
import sys, time
import numpy as np
from pathlib import Path
from sra.data.latents import PackedLatents
from sra.data.prefetch import Prefetcher
from sra.training.batches import DataOrder
latents = PackedLatents(Path(sys.argv[1]))
began = time.monotonic()
order = DataOrder(0, latents.count, 256)
order.indices(0)
print(f"order of an epoch: {time.monotonic() - began:.2f} s", flush=True)
began = time.monotonic()
ahead = Prefetcher(lambda step: (order.indices(step), None), latents.batch, 32)
for step in range(100):
    moments, labels = ahead.get(step)
    assert moments.shape == (256, 8, 32, 32)
    assert (moments[:, 0, 0, 0].numpy() == labels.numpy()).all()
print(f"{100 / (time.monotonic() - began):.1f} batches of 256 a second", flush=True)
"""


def settings(folder: Path, images: Path) -> Path:
    job = ImagesJob(data=DataConfig(images=str(images), split="imagenet-train"), resolution=32)
    path = folder / "stage.json"
    path.write_text(json.dumps({"config": to_plain(job)}))
    return path


def prepare_and_kill(folder: Path, images: Path) -> None:
    """Prepare the first parts, kill, continue, kill again: what was finished stays, workers are small."""
    out = folder / f"out-{images.name}"
    job = ("-m", "sra.data.images", "--config", settings(folder, images), "--out", out)

    def records() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (out / "parts").glob("*.json")}

    killed = full.run(*job, stop=lambda _: len(records()) >= 4, name=f"prepare {images.name}, killed")
    assert killed.code == -9, killed.text
    before = records()
    again = full.run(*job, stop=lambda _: len(records()) >= len(before) + 4, name="continued, killed again")
    assert again.code == -9, again.text
    assert {name: records()[name] for name in before} == before
    assert len(records()) > len(before)
    made, found = len(list(out.rglob("*.png"))), full.held(out).files
    wanted = full.planned(ImagesJob(data=DataConfig(images=str(images)), resolution=32), images=made)[0].files
    full.say(images.name, f"{found:,} files for {made:,} images, {wanted:,} planned")
    assert found == pytest.approx(wanted, rel=0.1)


def plan_twice(folder: Path, images: Path) -> None:
    manifest = folder / "manifest.yaml"
    manifest.write_text(
        "name: full\n"
        f"data: {{images: '{images}', split: imagenet-train}}\n"
        "codec: {path: 'embedded:digits', scale: 1.0, factor: 4, channels: 4}\n"
        "model: {family: sit, size: {depth: 2, width: 16, heads: 2}, resolution: 32, convention: sra}\n"
        "train: {steps: 4, global_batch: 32, precision: fp32}\n"
        "score: {reference: images, graph: 'embedded:digits'}\n"
        "variants: {baseline: {}}\n"
    )
    command = ("-m", "benchmark.cli.main", "plan", manifest, "--out", folder / "run")
    first = full.run(*command, name=f"plan of {images.name}")
    assert first.code == 0, first.text
    second = full.run(*command, name=f"plan of {images.name} again")
    assert second.text == first.text
    assert second.seconds < max(5, first.seconds / 5)


def test_a_folder_of_images(space: Callable[[float], Path], monkeypatch) -> None:
    folder = space(2)
    monkeypatch.setenv("SRA_BENCH_INPUTS", str(folder / "cache"))
    images = full.make_folder(folder)
    plan_twice(folder, images)
    prepare_and_kill(folder, images)


def test_kaggles_zip(space: Callable[[float], Path], monkeypatch) -> None:
    folder = space(5)
    monkeypatch.setenv("SRA_BENCH_INPUTS", str(folder / "cache"))
    contents = list(full.pictures())
    images = folder / "imagenet.zip"
    with zipfile.ZipFile(images, "w") as archive:
        for number, name in enumerate(full.names()):
            archive.writestr(f"ILSVRC/Data/CLS-LOC/train/{name}", contents[number % len(contents)])
    plan_twice(folder, images)
    prepare_and_kill(folder, images)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_packed_latents(space: Callable[[float], Path], dtype: str) -> None:
    """Sparse but for one number an image: 21 or 42 GB in name, 5 GB on disk."""
    folder = space(12) / "latents"
    folder.mkdir()
    shape = (full.IMAGES, 8, 32, 32)
    labels = np.arange(full.IMAGES) % 1000
    array = np.lib.format.open_memmap(folder / MOMENTS, mode="w+", dtype=dtype, shape=shape)
    array[:, 0, 0, 0] = labels
    del array
    np.save(folder / LABELS, labels)
    write_facts(folder, shape, dtype, 1000, {})
    assert (folder / FACTS).is_file()
    with ThreadPoolExecutor(2) as pool:
        for used in pool.map(lambda number: full.run("-c", READ, folder, name=f"{dtype}, reader {number}"), range(2)):
            assert used.code == 0, used.text
            assert used.peak_bytes < 1e9
            full.say(dtype, used.text)
