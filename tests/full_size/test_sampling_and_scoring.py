"""50,000 images of 256 px: shards merged to one file, scored against 10,000 with stored statistics; both are killed."""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from evaluator.features import statistics
from evaluator.features.statistics import Statistics
from evaluator.metrics.frechet import Gaussian
from sra.common.npz import Array, read_images, write_images, write_shard
from sra.config import CodecConfig, ModelConfig, SampleConfig, SampleJob, Size, to_plain
from tests.full_size import sizes as full

SAMPLES, REFERENCE, PIXELS = 50_000, 10_000, 256
POOL = 997
"""Different images; a prime number, so that shards differ."""
MODEL = ModelConfig(size=Size(depth=1, width=8, heads=1), resolution=PIXELS, classes=10, convention="sra")
CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
JOB = SampleJob(seed=0, codec=CODEC, model=MODEL, sample=SampleConfig(images=SAMPLES), checkpoint="none.safetensors")
WIDTHS = (64, 343)
"""Of the pooled and spatial features of the embedded graph."""


def pixels(seed: int, count: int) -> Iterator[Array]:
    """Images that a network might have made: blocks of colours, moved by a little from image to image."""
    blocks = np.random.default_rng(seed).integers(0, 200, (POOL, 8, 8, 3), np.uint8)
    for number in range(count):
        image = blocks[number % POOL].repeat(PIXELS // 8, 0).repeat(PIXELS // 8, 1)
        image[:32, :32] += np.uint8(number // POOL)
        yield image


def make_shards(folder: Path) -> str:
    """All shards of `JOB`; returns the SHA-256 of their pixels in order."""
    digest, images = hashlib.sha256(), pixels(0, SAMPLES)

    def batches(first: int, count: int) -> Iterator[tuple[Array, Array]]:
        for number in range(first, first + count):
            image = next(images)[None]
            digest.update(image)
            yield image, np.array([number % 10])

    for first in range(0, SAMPLES, JOB.sample.shard):
        count = min(JOB.sample.shard, SAMPLES - first)
        write_shard(folder / f"{first:08d}.npz", (count, PIXELS, PIXELS, 3), batches(first, count))
    return digest.hexdigest()


def test_shards_are_merged(space: Callable[[float], Path]) -> None:
    folder = space(22)
    out = folder / "sample"
    (out / "shards").mkdir(parents=True)
    expected = make_shards(out / "shards")
    (folder / "stage.json").write_text(json.dumps({"config": to_plain(JOB)}))
    merging = ("-m", "sra.sampling.sample", "--config", folder / "stage.json", "--out", out)

    def half(_: float) -> bool:
        return any(path.stat().st_size > 4e9 for path in out.glob("*samples.npz*"))

    killed = full.run(*merging, stop=half, name="merge, killed in the middle")
    assert killed.code == -9
    assert not (out / "samples.npz").is_file()
    most = full.Most(out)
    used = full.run(*merging, stop=most.look, name="merge")
    assert used.code == 0, used.text
    assert used.peak_bytes < 1e9
    most.check("merge", full.planned(JOB)[0])
    assert not (out / "shards").exists()
    digest = hashlib.sha256()
    for image in read_images(out / "samples.npz"):
        digest.update(image)
    assert digest.hexdigest() == expected


def test_score(space: Callable[[float], Path]) -> None:
    """On the embedded graph, killed after a third of the features."""
    folder = space(14)
    samples, reference = folder / "samples.npz", folder / "reference.npz"
    write_images(samples, (SAMPLES, PIXELS, PIXELS, 3), pixels(0, SAMPLES))
    write_images(reference, (REFERENCE, PIXELS, PIXELS, 3), pixels(1, REFERENCE))
    statistics.write(folder / "statistics.npz", Statistics(*(Gaussian(np.zeros(w), np.eye(w)) for w in WIDTHS), True))
    with zipfile.ZipFile(folder / "statistics.npz") as stored, zipfile.ZipFile(reference, "a") as archive:
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
    cache, record = folder / "cache", folder / "scores.json"
    scoring = ["-m", "evaluator.tools.adm", "--samples", samples, "--json", record, "--reference", reference]
    scoring += ["--graph", "embedded:digits", "--cache", cache]

    def files() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in cache.rglob("*x256.npy")}

    killed = full.run(*scoring, stop=lambda _: len(files()) > 100, name="score, killed after 100 files of features")
    assert killed.code == -9
    before = files()
    used = full.run(*scoring, name="score")
    assert used.code == 0, used.text
    assert used.peak_bytes < 3e9
    after = files()
    assert {name: after[name] for name in before} == before, "features were computed again"
    assert len(after) == -(-SAMPLES // 256) + -(-REFERENCE // 256)
    full.say("score", re.sub(r"\n.*images/s.*", "", used.text))
    found = json.loads(record.read_text())
    assert set(found["intervals"]) >= {"fid", "sfid", "is", "precision", "recall"}
