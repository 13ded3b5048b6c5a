"""Sampling at scale: seeding, several processes, streams, and what an interruption leaves."""

import dataclasses
import itertools
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmark.plan.stages import SAMPLE
from sra.common.errors import DataError
from sra.common.files import write_json
from sra.common.npz import read_images, read_labels, write_images, write_shard
from sra.config import CodecConfig, ConfigError, ModelConfig, SampleConfig, SampleJob, to_plain
from sra.model.transformer import build, initialise
from sra.model.vae import load_codec
from sra.runtime import job
from sra.runtime.distributed import CpuProcessGroup
from sra.runtime.random_streams import Randoms, StepNoise
from sra.sampling import sample, samplers
from sra.sampling.sample import Sampler
from sra.sampling.seeding import PerImage, PublicCode, Shard, make_seeding

CPU = torch.device("cpu")
PUBLIC = {"seeding": "public-code", "batch": 3, "shard": 6, "ranks": 2}


@pytest.fixture(scope="module")
def settings(small, tmp_path_factory):
    """Jobs for one network that draws something: random weights in every layer."""
    network = build(small.model, small.codec)
    initialise(network, 0)
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(network.state_dict(), path)

    def make(**changes):
        given = {"steps": 3, "images": 20, "batch": 5, "shard": 8, "precision": "fp32", **changes}
        return SampleJob(
            seed=0, codec=small.codec, model=small.model, sample=SampleConfig(**given), checkpoint=str(path)
        )

    return make


@pytest.fixture
def run(settings, small, tmp_path):
    codec = load_codec(small.codec)

    def go(name, **changes):
        sampler = Sampler(settings(**changes), tmp_path / name, codec, CpuProcessGroup())
        sampler.run()
        return tmp_path / name

    return go


def pixels(out):
    return np.load(out / "samples.npz")["arr_0"].astype(int)


def stop_after(monkeypatch, count):
    asked = iter([None] * count)

    def check():
        if next(asked, "stop") == "stop":
            raise job.Stopped

    monkeypatch.setattr(job, "check_stop", check)


def test_numbers_of_an_image_do_not_depend_on_shards(settings):
    def numbers(**changes):
        seeding = PerImage(settings(**changes), CPU)
        draws = [draw for shard in seeding.shards for draw in seeding.inputs(shard)]
        noise = [torch.cat([draw.step_noise(k) for draw in draws]) for k in range(2)]
        return [torch.cat([d.labels for d in draws]), torch.cat([d.initial for d in draws]), *noise]

    for one, two in zip(numbers(), numbers(batch=7, shard=20), strict=True):
        assert torch.equal(one, two)


def test_noise_drawn_ahead_is_the_same():
    randoms = Randoms(3, torch.tensor([5, 2**33]))
    ahead = StepNoise(randoms, (4, 3, 3), 70)
    assert ahead.steps_per_draw > 1
    for k in (0, 1, 40, 69, 69):
        assert torch.equal(ahead(k), randoms.normal(f"step.{k}", (4, 3, 3)))
    names = ["a", "b"]
    found, alone = randoms.normals(names, (5,)), [randoms.normal(name, (5,)) for name in names]
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


@pytest.mark.parametrize("process_count", [1, 2, 3])
def test_what_is_missing_is_shared_out(settings, process_count):
    for config in (settings(), settings(**PUBLIC)):
        seeding = make_seeding(config, CPU, process_count)
        missing = seeding.shards[1:]
        mine = [seeding.mine(missing, p, process_count) for p in range(process_count)]
        assert sorted(s.name for part in mine for s in part) == sorted(s.name for s in missing)
    for part in mine:
        for owner in {s.owner for s in part}:
            numbers = [s.number for s in part if s.owner == owner]
            assert numbers == sorted(numbers)


def by_hand(config, sampler_draws):
    """The description of the public script, written down once more: labels and first noise value by file number."""
    settings = config.sample
    found = {}
    for rank in range(settings.ranks):
        generator = torch.Generator().manual_seed(config.seed * settings.ranks + rank)
        total = 0
        while total < settings.images:
            z = torch.randn(settings.batch, 4, 8, 8, generator=generator)
            y = torch.randint(0, 10, (settings.batch,), generator=generator)
            steps = sampler_draws(generator)
            for i in range(settings.batch):
                found[i * settings.ranks + rank + total] = (int(y[i]), float(z[i, 0, 0, 0]), [s[i] for s in steps])
            total += settings.batch * settings.ranks
    return [found[i] for i in range(settings.images)]


def first(generator, count, dtype=torch.float32):
    return float(torch.randn(count, 4, 8, 8, generator=generator, dtype=dtype)[0, 0, 0, 0])


@pytest.mark.parametrize(
    ("changes", "draw"),
    [
        (
            {},
            lambda g: [float(torch.randn(3, 4, 8, 8, generator=g, dtype=torch.float64)[0, 0, 0, 0]) for _ in range(2)],
        ),
        ({"sampler": "euler"}, lambda _: []),
        ({"sampler": "ddpm"}, lambda g: [float(torch.randn(3, 4, 8, 8, generator=g)[0, 0, 0, 0]) for _ in range(3)]),
        (
            {"sampler": "ddpm", "cfg": 2.0},
            lambda g: [float(torch.randn(6, 4, 8, 8, generator=g)[0, 0, 0, 0]) for _ in range(3)],
        ),
    ],
)
def test_public_seeding_draws_as_described(settings, changes, draw):
    config = dataclasses.replace(settings(**PUBLIC, **changes), seed=5)
    seeding = PublicCode(config, CPU, 2)
    expected = by_hand(config, lambda g: [[value] * 3 for value in draw(g)])
    found = {}
    for shard in seeding.shards:
        for number, batch in enumerate(seeding.inputs(shard)):
            # The last draw of a step is left to be skipped, as some samplers do not ask for it.
            steps = [float(batch.step_noise(k)[0, 0, 0, 0]) for k in range(max(0, len(expected[0][2]) - 1))]
            for i in range(3):
                index = i * 2 + shard.owner + (shard.number + number) * 6
                found[index] = (int(batch.labels[i]), float(batch.initial[i, 0, 0, 0]), steps)
    for index, (label, first, steps) in enumerate(expected):
        assert found[index][:2] == (label, first)
        assert found[index][2] == steps[: len(found[index][2])]


@pytest.mark.parametrize("sampler", ["euler-maruyama", "heun", "ddpm"])
def test_samplers_ask_for_public_noise_in_order(settings, small, sampler):
    family = "dit" if sampler == "ddpm" else "sit"
    model = dataclasses.replace(small.model, family=family)
    config = dataclasses.replace(settings(**PUBLIC, sampler=sampler, cfg=2.0), model=model)
    network = build(model, small.codec)
    initialise(network, 0)
    draw = next(PublicCode(config, CPU, 2).inputs(Shard("x", 3, 0, 1)))
    z = samplers.sample(network.eval(), config.sample, model, draw)
    assert z.isfinite().all()
    assert draw.step_noise.drawn == (0 if sampler == "heun" else 2)


def test_public_images_stand_where_the_script_puts_them(settings, tmp_path):
    seeding = PublicCode(settings(**{**PUBLIC, "shard": 12, "ranks": 2}), CPU, 2)
    assert seeding.per_shard == 2

    for shard in seeding.shards:
        numbers = [i * 2 + shard.owner + (shard.number * 2 + b) * 6 for b in range(shard.count // 3) for i in range(3)]
        images = np.array(numbers, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
        write_shard(tmp_path / shard.name, images.shape, [(images, np.array(numbers))])
    assert [int(image[0, 0, 0]) for image in seeding.images(tmp_path)] == list(range(20))
    assert seeding.labels(tmp_path).tolist() == list(range(20))


@pytest.mark.parametrize("changes", [{}, PUBLIC])
def test_an_interruption_changes_nothing(run, monkeypatch, changes):
    whole = run("whole", **changes)
    stop_after(monkeypatch, 3)
    with pytest.raises(job.Stopped):
        run("parts", **changes)
    assert [p.name for p in (whole.parent / "parts").iterdir()] == ["shards"]
    assert list((whole.parent / "parts" / "shards").iterdir())
    monkeypatch.setattr(job, "check_stop", lambda: None)
    parts = run("parts", **changes)
    for name in ("samples.npz", "labels.npy", "grid.png"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    assert not (parts / "shards").exists()
    seconds = [json.loads((place / "seconds.json").read_text()) for place in (whole, parts)]
    assert seconds[0]["images"] == seconds[1]["images"]


def test_seconds_are_those_of_all_attempts(run, monkeypatch, tmp_path):
    stop_after(monkeypatch, 3)
    with pytest.raises(job.Stopped):
        run("parts")
    clock = tmp_path / "parts" / "shards" / "clock.json"
    assert 0 < json.loads(clock.read_text())["seconds"] < 1000
    clock.write_text(json.dumps({"seconds": 1000}))
    monkeypatch.setattr(job, "check_stop", lambda: None)
    took = json.loads((run("parts") / "seconds.json").read_text())
    assert took["seconds"] > 1000
    assert took["images"] == 20


@pytest.mark.parametrize("moment", ["write_grid", "write_json", "write_images", "rmtree"])
def test_a_kill_while_finishing_loses_nothing(run, monkeypatch, moment):
    whole = run("whole", png=True)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sample.shutil if moment == "rmtree" else sample, moment, die)
        with pytest.raises(KeyboardInterrupt):
            run("killed", png=True)
        patch.undo()
        killed = run("killed", png=True)
    for path in whole.rglob("*"):
        if path.is_file() and path.name != "seconds.json":
            assert path.read_bytes() == (killed / path.relative_to(whole)).read_bytes(), path
    assert not (killed / "shards").exists()


def test_pngs_are_named_as_the_public_code_names_them(run):
    out = run("out", png=True, **PUBLIC)
    assert sorted(p.name for p in (out / "png").iterdir()) == [f"{i:06d}.png" for i in range(20)]
    assert np.array_equal(np.asarray(Image.open(out / "png" / "000013.png")), pixels(out)[13])


def test_pngs_are_written_from_finished_samples(run, monkeypatch):
    out = run("out")
    before = (out / "samples.npz").read_bytes()
    monkeypatch.setattr(sample, "load_network", None)
    run("out", png=True, batch=7, shard=3)
    assert (out / "samples.npz").read_bytes() == before
    assert np.array_equal(np.asarray(Image.open(out / "png" / "000019.png")), pixels(out)[19])


def test_public_shards_of_another_number_of_processes_are_refused(run, monkeypatch):
    stop_after(monkeypatch, 2)
    with pytest.raises(job.Stopped):
        run("out", **PUBLIC)
    with pytest.raises(ConfigError, match=r"shards: expected .* got rank-0000-of-0002-000000\.npz"):
        run("out", **{**PUBLIC, "ranks": 1})


def test_public_seeding_has_no_balanced_labels():
    with pytest.raises(ConfigError, match="labels: expected 'random'"):
        SampleConfig(seeding="public-code", labels="balanced")
    with pytest.raises(ConfigError, match="ranks: expected none"):
        SampleConfig(ranks=8)


def test_an_adaptive_sampler_depends_on_the_batch_and_records_its_evaluations(run, monkeypatch):
    whole = run("whole", sampler="dopri5")
    counts = json.loads((whole / "samples.json").read_text())["evaluations"]
    assert 12 < counts["least"] <= counts["most"] < 250
    assert "evaluations" not in json.loads((run("euler", sampler="euler") / "samples.json").read_text())
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(job.Stopped):
            run("stopped", sampler="dopri5")
    assert len(list((whole.parent / "stopped" / "shards").glob("*.npz"))) == 1
    stopped = run("stopped", sampler="dopri5")
    assert (stopped / "samples.json").read_bytes() == (whole / "samples.json").read_bytes()
    assert np.array_equal(pixels(stopped), pixels(whole))
    # So another batch is another stage; with the public code's seeding the shard holds whole batches.
    for seeding, free in (("per-image", {"png"}), ("public-code", {"png", "shard"})):
        config = SampleConfig(sampler="dopri5", seeding=seeding)
        drawn = SampleJob(
            seed=0, codec=CodecConfig(), model=ModelConfig(convention="sra"), sample=config, checkpoint=""
        )
        assert set(SAMPLE.free(drawn)) == free


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    shape = (40, 256, 256, 3)
    image = np.zeros(shape[1:], np.uint8)
    batches = ((np.zeros((4, *shape[1:]), np.uint8), np.arange(4)) for _ in range(10))
    tracemalloc.start()
    write_shard(tmp_path / "shard.npz", shape, batches)
    write_images(tmp_path / "all.npz", shape, read_images(tmp_path / "shard.npz"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * image.nbytes
    assert read_labels(tmp_path / "shard.npz").tolist() == [0, 1, 2, 3] * 10
    with np.load(tmp_path / "all.npz") as arrays:
        assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == (shape, np.uint8)


@pytest.mark.slow
def test_two_processes_make_the_images_of_one(settings, run, tmp_path):
    configs = {"per-image": settings(), "public": settings(**PUBLIC)}
    for name, config in configs.items():
        write_json(tmp_path / f"two-{name}" / "stage.json", {"config": to_plain(config)})
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "sra.sampling.sample",
    ]
    command += ["--config", *(str(tmp_path / f"two-{name}" / "stage.json") for name in configs)]
    command += ["--out", *(str(tmp_path / f"two-{name}") for name in configs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    for name, changes in (("per-image", {}), ("public", PUBLIC)):
        one, two = run(f"one-{name}", **changes), tmp_path / f"two-{name}"
        assert np.array_equal(np.load(one / "labels.npy"), np.load(two / "labels.npy"))
        assert np.abs(pixels(one) - pixels(two)).max() <= 1
        assert (one / "samples.json").read_bytes() == (two / "samples.json").read_bytes()
    pairs = itertools.combinations([pixels(tmp_path / f"two-{name}") for name in configs], 2)
    assert all(np.abs(a - b).max() > 50 for a, b in pairs)


def test_a_missing_package_of_the_codec_is_one_line(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.autoencoders.autoencoder_kl", None)
    with pytest.raises(DataError, match=r"codec\.path embedded:digits: .* package diffusers"):
        load_codec(small.codec)
