"""The jobs end to end on tiny inputs: images, latents, training that resumes to the bit, sampling that resumes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from sra import embedded
from sra.common.errors import DataError
from sra.config import (
    CodecConfig,
    DataConfig,
    DtsAsSettings,
    ImagesJob,
    LatentsJob,
    ModelConfig,
    SampleConfig,
    SampleJob,
    Size,
    Sra2Settings,
    SraSettings,
    TrainConfig,
    TrainJob,
    from_plain,
    to_plain,
)
from sra.data.images import prepare
from sra.data.latents import PackedLatents, encode
from sra.model.vae import load_codec
from sra.model.weights import load_network
from sra.runtime import job
from sra.runtime.distributed import CpuProcessGroup
from sra.sampling.sample import Sampler
from sra.sampling.seeding import labels_of
from sra.training import checkpoint
from sra.training.batches import DataOrder
from sra.training.nonfinite import NonFiniteError
from sra.training.train import Trainer

CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
MODEL = ModelConfig(size=Size(depth=2, width=16, heads=2), resolution=32, classes=10, convention="sra")
DIT = dataclasses.replace(MODEL, family="dit", convention="vanilla-dit")
TRAIN = TrainConfig(
    steps=6, global_batch=8, lr=1e-3, precision="fp32", milestones=(3,), checkpoint_every=2, log_every=1, keep=2
)
JOB = TrainJob(seed=0, codec=CODEC, model=MODEL, train=TRAIN, align=SraSettings(blocks=(1, 2)))


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    """Sixty real digits, through both stages."""
    root = tmp_path_factory.mktemp("data")
    pixels, classes = embedded.digits(32)
    for i in range(60):
        place = root / "raw" / str(classes[i]) / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(place)
    data = DataConfig(images=str(root / "raw"))
    prepare(ImagesJob(data=data, resolution=32), root / "images")
    encode(LatentsJob(data=data, codec=CODEC, resolution=32), root / "images", root / "latents")
    return root / "latents"


def test_configuration_survives_json():
    assert from_plain(TrainJob, json.loads(json.dumps(to_plain(JOB)))) == JOB


def test_an_image_that_is_none_is_named(tmp_path):
    (tmp_path / "a" / "zero").mkdir(parents=True)
    (tmp_path / "a" / "zero" / "bad.png").write_text("not an image")
    job_config = ImagesJob(data=DataConfig(images=str(tmp_path / "a")), resolution=32)
    with pytest.raises(DataError, match=r"zero/bad\.png: expected a whole image"):
        prepare(job_config, tmp_path / "out")
    assert not (tmp_path / "out" / "images" / "dataset.json").exists()


def test_grey_and_misnamed_images_are_converted_and_counted(tmp_path):
    (tmp_path / "a" / "zero").mkdir(parents=True)
    Image.new("L", (40, 50), 7).save(tmp_path / "a" / "zero" / "grey.png")
    Image.new("CMYK", (40, 50)).save(tmp_path / "a" / "zero" / "ink.png", format="JPEG")
    prepare(ImagesJob(data=DataConfig(images=str(tmp_path / "a")), resolution=32), tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "images.json").read_text())
    assert facts["converted"] == {"L": 1, "CMYK": 1, "named otherwise, is JPEG": 1}
    assert Image.open(tmp_path / "out" / "images" / "00000" / "img00000001.png").mode == "RGB"


def test_codec_without_weights_is_refused(tmp_path):
    shutil.copy(embedded.CODEC / "config.json", tmp_path)
    with pytest.raises(DataError, match=r"codec\.path .*: expected .*, got no diffusion_pytorch_model\.safetensors"):
        load_codec(dataclasses.replace(CODEC, path=str(tmp_path)))


def test_codec_reconstructs_digits():
    pixels, _ = embedded.digits(32)
    codec = load_codec(CODEC)
    images = torch.from_numpy(pixels[:64])
    moments = codec.moments(images)
    assert moments.shape == (64, 8, 8, 8)
    error = (codec.decode(moments[:, :4]).float() - images.float()).square().mean()
    assert 10 * torch.log10(255**2 / error) > 35


def test_codec_of_another_shape_is_refused():
    with pytest.raises(
        DataError, match=r"codec\.path embedded:digits: expected 4 channels and factor 8 .*, got 4 and 4"
    ):
        load_codec(dataclasses.replace(CODEC, factor=8))


def test_packed_latents(latents):
    packed = PackedLatents(latents)
    assert (packed.count, packed.shape, packed.classes) == (60, (8, 8, 8), 10)
    moments, labels = packed.batch(np.array([5, 0]))
    assert moments.dtype == torch.float32
    assert labels.tolist() == [packed.labels[5], packed.labels[0]]


def test_truncated_latents_are_refused(latents, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(latents, copy)
    content = (copy / "moments.npy").read_bytes()
    (copy / "moments.npy").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="expected a whole folder of packed latents"):
        PackedLatents(copy)


def test_data_order_covers_an_epoch_once():
    order = DataOrder(0, 100, 30)
    seen = np.concatenate([order.indices(step) for step in range(3)])
    assert len(set(seen.tolist())) == 90
    assert not np.array_equal(order.indices(0), order.indices(3))
    assert np.array_equal(DataOrder(0, 100, 30).indices(4), order.indices(4))


def test_a_stopped_run_continues_to_the_same_bits(train, latents, tmp_path, monkeypatch):
    train(JOB, latents, tmp_path / "whole")
    calls = iter([False, False, False, True])
    monkeypatch.setattr(job, "stop_requested", lambda: next(calls, False))
    with pytest.raises(job.Stopped):
        train(JOB, latents, tmp_path / "parts")
    assert train(JOB, latents, tmp_path / "parts").step == 6
    for name in ("weights/step-00000003.safetensors", "weights/step-00000006.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("seconds", "memory_bytes")}
            for line in (p / "log.jsonl").open()
        ]
        for p in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert logs[0] == logs[1]
    assert [row["step"] for row in logs[0]] == [1, 2, 3, 4, 5, 6]


def test_accumulation_gives_the_same_steps(train, latents, tmp_path):
    split = dataclasses.replace(JOB, train=dataclasses.replace(TRAIN, accumulate=2))
    one, two = train(JOB, latents, tmp_path / "one"), train(split, latents, tmp_path / "two")
    for a, b in zip(one.state.network.parameters(), two.state.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(train, latents, tmp_path, capsys):
    whole = train(JOB, latents, tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1] / "state.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))
    again = train(JOB, latents, tmp_path / "run")
    assert "checkpoint is damaged" in capsys.readouterr().out
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state.ema.parameters(), again.state.ema.parameters(), strict=True)
    )


def test_only_the_last_checkpoints_are_kept(train, latents, tmp_path):
    train(JOB, latents, tmp_path / "run")
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000006"]
    assert checkpoint.is_whole(tmp_path / "run" / "checkpoints" / names[-1])


def test_a_loss_that_is_not_finite_stops_before_the_step(train, latents, tmp_path):
    broken = dataclasses.replace(JOB, train=dataclasses.replace(TRAIN, lr=1e25))
    with pytest.raises(
        NonFiniteError, match=r"step 2: generation loss is not finite.*first network.*nothing was changed"
    ):
        train(broken, latents, tmp_path / "run")


def test_milestones_hold_the_average_without_the_head(train, latents, tmp_path):
    trainer = train(JOB, latents, tmp_path / "run")
    network = load_network(trainer.weights_file(6), MODEL, CODEC)
    assert network.ap_head is None
    averages = dict(trainer.state.ema.named_parameters())
    assert all(torch.equal(value, averages[name]) for name, value in network.named_parameters())


def test_latents_of_another_shape_are_refused(latents, tmp_path):
    other = dataclasses.replace(JOB, model=dataclasses.replace(MODEL, resolution=64))
    with pytest.raises(DataError, match=r"expected .*\(8, 16, 16\).* got \(8, 8, 8\)"):
        Trainer(other, latents, tmp_path)


def test_classes_without_images_are_refused_before_the_first_step(latents, tmp_path):
    more = dataclasses.replace(JOB, model=dataclasses.replace(MODEL, classes=17))
    with pytest.raises(DataError, match=r"all 17 classes .*train\.allow_unused_classes: true.* got 10"):
        Trainer(more, latents, tmp_path)
    allowed = dataclasses.replace(more, train=dataclasses.replace(TRAIN, allow_unused_classes=True))
    Trainer(allowed, latents, tmp_path)


@pytest.fixture
def sampler(train, latents, tmp_path):
    trainer = train(JOB, latents, tmp_path / "run")
    codec = load_codec(CODEC)

    def make(name, **changes):
        settings = {"steps": 3, "images": 20, "batch": 5, "shard": 8, "precision": "fp32", **changes}
        config = SampleJob(
            seed=0, codec=CODEC, model=MODEL, sample=SampleConfig(**settings), checkpoint=str(trainer.weights_file(6))
        )
        (tmp_path / name).mkdir()
        return Sampler(config, tmp_path / name, codec, CpuProcessGroup())

    return make


def test_samples_do_not_depend_on_batch_or_shard(sampler):
    one, two = sampler("one"), sampler("two", batch=7, shard=20)
    one.run()
    two.run()
    images = [np.load(s.out / "samples.npz")["arr_0"].astype(int) for s in (one, two)]
    assert images[0].shape == (20, 32, 32, 3)
    # Equal up to the order of summation inside a batched product, then truncated to uint8.
    assert np.abs(images[0] - images[1]).max() <= 1
    assert np.array_equal(np.load(one.out / "labels.npy"), np.load(two.out / "labels.npy"))


def test_interrupted_sampling_continues_to_the_same_file(sampler, monkeypatch):
    whole, parts = sampler("whole"), sampler("parts")
    whole.run()
    calls = iter([None, None, None])

    def stop_at_fourth_batch():
        if next(calls, "stop") == "stop":
            raise job.Stopped

    monkeypatch.setattr(job, "check_stop", stop_at_fourth_batch)
    with pytest.raises(job.Stopped):
        parts.run()
    assert not (parts.out / "samples.npz").exists()
    assert len(list((parts.out / "shards").glob("*.npz"))) == 1
    # What a kill leaves while the shards are merged would be gigabytes.
    (parts.out / ".samples.npz.0a1b2c3d").write_bytes(b"half")
    monkeypatch.setattr(job, "check_stop", lambda: None)
    parts.run()
    assert not list(parts.out.glob(".samples.npz.*"))
    arrays = [np.load(s.out / "samples.npz")["arr_0"] for s in (whole, parts)]
    assert np.array_equal(arrays[0], arrays[1])
    assert not (parts.out / "shards").exists()


def test_balanced_labels(sampler):
    config = sampler("x", labels="balanced").config
    assert torch.bincount(labels_of(config, torch.arange(100))).tolist() == [10] * 10


OTHERS = {
    "dit": (DIT, SraSettings(blocks=(1, 2), weight=0.04, weight_schedule="public-code")),
    "sra2": (MODEL, Sra2Settings(block=1, mlp_width=8, mlp_activation="gelu")),
    "dts-as": (MODEL, DtsAsSettings(blocks=(1, 2))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_train_resume_to_the_bit_and_are_sampled(train, name, latents, tmp_path, monkeypatch):
    model, align = OTHERS[name]
    config = dataclasses.replace(JOB, model=model, align=align)
    whole = train(config, latents, tmp_path / "whole")
    stops = iter([False, False, True])
    monkeypatch.setattr(job, "stop_requested", lambda: next(stops, False))
    with pytest.raises(job.Stopped):
        train(config, latents, tmp_path / "parts")
    parts = train(config, latents, tmp_path / "parts")
    for a, b in zip(whole.state.network.parameters(), parts.state.network.parameters(), strict=True):
        assert torch.equal(a, b)
    sampler = "ddpm" if model.family == "dit" else "heun"
    settings = SampleConfig(sampler=sampler, steps=3, images=4, batch=4, precision="fp32", cfg=1.5, cfg_channels=3)
    weights = str(whole.weights_file(6))
    (tmp_path / "images").mkdir()
    sampled = SampleJob(seed=0, codec=CODEC, model=model, sample=settings, checkpoint=weights)
    Sampler(sampled, tmp_path / "images", load_codec(CODEC), CpuProcessGroup()).run()
    assert np.load(tmp_path / "images" / "samples.npz")["arr_0"].shape == (4, 32, 32, 3)


def test_a_codec_works_in_parts_and_in_order(monkeypatch):
    codec = load_codec(CODEC)
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sizes = []
    codec.module.encoder.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    whole = codec.moments(images)
    pixels = codec.decode(whole[:, : CODEC.channels])
    monkeypatch.setattr("sra.model.vae.PIXELS_AT_A_TIME", 2 * 32 * 32)
    parts = codec.moments(images)
    assert sizes == [5, 2, 2, 1]
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)
    assert (codec.decode(whole[:, : CODEC.channels]).int() - pixels.int()).abs().max() <= 1
