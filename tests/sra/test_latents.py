"""Latents: both layouts, conversion, faults by name, encoding that resumes, mirrored copies."""

import dataclasses
import json
import shutil
import threading

import numpy as np
import pytest
import torch

from sra.common.errors import DataError
from sra.common.files import write_json
from sra.config import DataConfig, LatentsJob
from sra.data import labels, latents, public_layout
from sra.data.latents import PackedLatents, encode, use_existing
from sra.data.packed import PackedFolder, PackedWriter
from sra.model.vae import Codec, load_codec
from sra.runtime import job
from sra.training.train import Trainer


@pytest.fixture
def latents_job(small):
    def make(**changes):
        data = DataConfig(**{"images": "unused", **changes.pop("data", {})})
        return LatentsJob(data=data, codec=small.codec, resolution=32, **changes)

    return make


@pytest.fixture
def public(digit_latents, tmp_path):
    """The sixty digits in the authors' layout."""
    public_layout.convert(digit_latents, tmp_path / "public", "public")
    return tmp_path / "public"


def named(path):
    return {"images": None, "latents": str(path)}


def test_public_layout_and_back(digit_latents, public, tmp_path):
    packed = PackedFolder(digit_latents)
    listed = json.loads((public / "vae-sd" / "dataset.json").read_text())["labels"]
    assert listed[7] == ["00000/img-mean-std-00000007.npy", int(packed.labels[7])]
    one = np.load(public / "vae-sd" / listed[7][0])
    assert one.dtype == np.float32
    assert np.array_equal(one, packed.moments[7])
    for source in (public, public / "vae-sd"):
        out = tmp_path / f"back-{source.name}"
        public_layout.convert(source, out, "packed")
        back = PackedFolder(out)
        assert np.array_equal(back.moments, packed.moments)
        assert np.array_equal(back.labels, packed.labels)
        assert back.facts["moments_sha256"] == packed.facts["moments_sha256"]


def test_half_precision_is_an_option(public, tmp_path, digit_latents):
    public_layout.main([str(public), str(tmp_path / "half"), "--to", "packed", "--dtype", "float16"])
    half = PackedLatents(tmp_path / "half")
    assert (half.moments.dtype, half.facts["dtype"]) == (np.float16, "float16")
    found, expected = half.batch(np.arange(60))[0], PackedLatents(digit_latents).batch(np.arange(60))[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=2**-11, atol=1e-7)


def test_conversion_refuses_what_makes_no_sense(digit_latents, public, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, problem in (
        ((digit_latents, tmp_path / "x", "packed"), "packed: expected another layout than 'packed'"),
        ((public, tmp_path / "x", "public"), "expected another layout than 'public'"),
        ((tmp_path / "empty", tmp_path / "x", "packed"), "empty: expected latents.json"),
        ((digit_latents, public / "vae-sd" / "dataset.json", "public"), "dataset.json: expected a folder"),
    ):
        with pytest.raises(DataError, match=problem):
            public_layout.convert(*arguments)
    assert not (tmp_path / "x").exists()


def test_packed_latents_are_linked_not_copied(latents_job, digit_latents, tmp_path):
    use_existing(latents_job(data=named(digit_latents)), tmp_path / "out")
    assert (tmp_path / "out" / "moments.npy").samefile(digit_latents / "moments.npy")
    assert not (tmp_path / "out" / "flipped.npy").exists()
    assert PackedLatents(tmp_path / "out").count == 60
    use_existing(latents_job(data=named(digit_latents), flipped=True), tmp_path / "mirrored")
    assert PackedLatents(tmp_path / "mirrored").flipped is not None


def test_links_across_file_systems_are_symbolic(latents_job, digit_latents, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("sra.data.packed.os.link", refuse)
    use_existing(latents_job(data=named(digit_latents)), tmp_path / "out")
    assert (tmp_path / "out" / "moments.npy").is_symlink()
    assert PackedLatents(tmp_path / "out").count == 60


def test_public_latents_are_packed_once(latents_job, public, digit_latents, tmp_path, capsys):
    write_json(tmp_path / "stage.json", {"config": dataclasses.asdict(latents_job(data=named(public)))})
    arguments = ["--config", str(tmp_path / "stage.json"), "--out", str(tmp_path / "out")]
    latents.main(arguments)
    assert np.array_equal(PackedLatents(tmp_path / "out").moments, PackedFolder(digit_latents).moments)
    latents.main(arguments)
    assert "latents are complete" in capsys.readouterr().out


def damage(folder, kind):
    """One of the faults that users bring, in a copy of a data set."""
    public_layout = (folder / "vae-sd").is_dir()
    file = folder / ("vae-sd/00000/img-mean-std-00000003.npy" if public_layout else "moments.npy")
    listing = folder / "vae-sd" / "dataset.json"
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif kind == "other shape":
        np.save(file, np.load(file)[..., :4])
    elif kind == "missing label" and public_layout:
        listing.write_text(json.dumps({"labels": json.loads(listing.read_text())["labels"][1:]}))
    elif kind == "missing label":
        np.save(folder / "labels.npy", np.load(folder / "labels.npy")[1:])
    elif kind == "unknown class":
        np.save(folder / "labels.npy", np.load(folder / "labels.npy") * 2)
    elif kind in ("i4", ">f4"):
        np.save(file, np.load(file).astype(kind))
    elif kind == "missing file":
        file.unlink()
    return folder


@pytest.mark.parametrize(
    ("layout", "kind", "problem"),
    [
        ("public", "truncated", r"00000003\.npy: expected a whole array"),
        ("public", "other shape", r"00000003\.npy: .*\(8, 8, 4\)"),
        ("public", "missing label", r"a label .* for 00000/img-mean-std-00000000\.npy \(1 in all\)"),
        ("public", "missing file", r"expected the file .* 00000/img-mean-std-00000003\.npy"),
        ("packed", "truncated", "copy: expected a whole folder of packed latents"),
        ("packed", "other shape", r"expected .*\(8, 8, 8\) .*got \(8, 8, 4\)"),
        ("packed", "missing label", "60 .*59"),
        ("packed", "missing file", "copy: expected a whole folder of packed latents"),
        ("packed", "unknown class", r"labels\.npy: expected classes below 10 \(latents\.json\), got 18"),
        ("packed", "i4", r"moments\.npy: expected float32 or float16, got int32"),
        ("packed", ">f4", r"moments\.npy: expected float32 or float16, got >f4"),
    ],
)
def test_faults_are_named(latents_job, digit_latents, public, tmp_path, layout, kind, problem):
    shutil.copytree({"public": public, "packed": digit_latents}[layout], tmp_path / "copy")
    (tmp_path / "copy" / "flipped.npy").unlink(missing_ok=True)
    config = latents_job(data=named(damage(tmp_path / "copy", kind)))
    with pytest.raises(DataError, match=problem) as caught:
        use_existing(config, tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out" / "latents.json").exists()


@pytest.mark.parametrize("layout", ["public", "packed"])
def test_latents_of_another_codec_or_split_are_refused(latents_job, digit_latents, public, tmp_path, layout):
    path = {"public": public, "packed": digit_latents}[layout]
    with pytest.raises(DataError, match=r"expected .*\(8, 16, 16\).*\(8, 8, 8\)"):
        use_existing(dataclasses.replace(latents_job(data=named(path)), resolution=64), tmp_path / "out")
    with pytest.raises(DataError, match=r"imagenet-train.*60 in 10"):
        use_existing(latents_job(data={**named(path), "split": "imagenet-train"}), tmp_path / "out")
    with pytest.raises(DataError, match=r"expected latents\.json"):
        use_existing(latents_job(data=named(tmp_path)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_of_a_split_that_is_not_known_are_not_counted():
    labels.check_split("train", 3, 2, "here")


def stop_after(monkeypatch, count):
    asked = iter([None] * count)

    def check():
        if next(asked, "stop") == "stop":
            raise job.Stopped

    monkeypatch.setattr(job, "check_stop", check)


def test_interrupted_encoding_continues_to_the_same_bits(
    latents_job, digit_images, digit_latents, tmp_path, monkeypatch
):
    encoded = []
    original = Codec.moments
    monkeypatch.setattr(Codec, "moments", lambda self, x: (encoded.append(len(x)), original(self, x))[1])
    config = latents_job(batch=16, flipped=True)
    stop_after(monkeypatch, 2)
    with pytest.raises(job.Stopped):
        encode(config, digit_images, tmp_path / "out")
    assert not (tmp_path / "out" / "latents.json").exists()
    with pytest.raises(DataError):
        PackedLatents(tmp_path / "out")
    stop_after(monkeypatch, 10)
    encode(config, digit_images, tmp_path / "out")
    assert encoded == [16, 16, 16, 16, 16, 16, 12, 12]
    encode(config, digit_images, tmp_path / "again")
    found, again = PackedLatents(tmp_path / "out"), PackedLatents(tmp_path / "again")
    assert found.facts == again.facts
    np.testing.assert_allclose(found.moments, PackedFolder(digit_latents).moments, rtol=1e-4, atol=1e-5)


def test_interrupted_packing_continues(public, digit_latents, tmp_path, monkeypatch):
    monkeypatch.setattr(public_layout, "BATCH", 16)
    stop_after(monkeypatch, 2)
    with pytest.raises(job.Stopped):
        public_layout.convert(public, tmp_path / "out", "packed")
    state = json.loads((tmp_path / "out" / "progress.json").read_text())
    assert state["done"] == 32
    monkeypatch.setattr(job, "check_stop", lambda: None)
    public_layout.convert(public, tmp_path / "out", "packed")
    assert np.array_equal(PackedFolder(tmp_path / "out").moments, PackedFolder(digit_latents).moments)
    assert not (tmp_path / "out" / "progress.json").exists()


def test_other_settings_start_anew(tmp_path):
    row = np.ones((2, 2, 1, 1), np.float32)
    with PackedWriter(tmp_path, (4, 2, 1, 1), "float32") as writer:
        writer.write(row)
    assert PackedWriter(tmp_path, (4, 2, 1, 1), "float32").done == 2
    assert PackedWriter(tmp_path, (4, 2, 1, 1), "float16").done == 0


def test_mirrored_latents_are_those_of_the_mirrored_image(small, digit_latents, digit_images):
    packed = PackedLatents(digit_latents)
    codec = load_codec(small.codec)
    pixels = next(latents._read_batches(digit_images / "images", ["00000/img00000005.png"], 1))
    assert not torch.equal(pixels, pixels.flip(2))
    torch.testing.assert_close(torch.from_numpy(packed.flipped[5].copy()), codec.moments(pixels.flip(2))[0])
    mirrored = np.array([False, True])
    found = packed.batch(np.array([5, 5]), mirrored)[0].numpy()
    assert np.array_equal(found[0], packed.moments[5])
    assert np.array_equal(found[1], packed.flipped[5])


def test_flips_belong_to_positions(small, digit_latents, tmp_path):
    def trainer(**changes):
        config = dataclasses.replace(small.job, train=dataclasses.replace(small.train, flip=True, **changes))
        return Trainer(config, digit_latents, tmp_path)

    whole = trainer()
    flips = np.concatenate([whole.batches._choose(step)[1] for step in range(70)])
    assert 0.4 < flips.mean() < 0.6
    halves = trainer(accumulate=2)
    assert np.array_equal(flips, np.concatenate([halves.batches._choose(part)[1] for part in range(140)]))
    plain = Trainer(small.job, digit_latents, tmp_path)
    for number in range(3):
        assert plain.batches._choose(number)[1] is None
        assert np.array_equal(plain.batches._choose(number)[0], whole.batches._choose(number)[0])


def test_flips_without_mirrored_latents_are_refused(small, latents_job, digit_latents, public, tmp_path):
    use_existing(latents_job(data=named(digit_latents)), tmp_path / "plain")
    config = dataclasses.replace(small.job, train=dataclasses.replace(small.train, flip=True))
    with pytest.raises(DataError, match=r"expected mirrored latents for train\.flip"):
        Trainer(config, tmp_path / "plain", tmp_path)
    with pytest.raises(DataError, match=r"flipped\.npy for train\.flip"):
        use_existing(latents_job(data=named(tmp_path / "plain"), flipped=True), tmp_path / "out")
    with pytest.raises(DataError, match=r"flipped\.npy for train\.flip"):
        use_existing(latents_job(data=named(public), flipped=True), tmp_path / "out")


@pytest.mark.parametrize("flat", [True, False])
def test_encoding_on_a_cpu_is_as_exact_as_float32(flat):
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    module = AutoencoderKL(block_out_channels=(32,), norm_num_groups=32, latent_channels=4)
    exact = AutoencoderKL.from_config(module.config).double()
    exact.load_state_dict(module.state_dict())
    shape = (1, 72, 72, 3)
    images = torch.full(shape, 77, dtype=torch.uint8) if flat else torch.randint(0, 256, shape, dtype=torch.uint8)
    found = Codec(module, 1.0, "cpu").moments(images)
    with torch.no_grad():
        posterior = exact.encode(images.permute(0, 3, 1, 2).double() / 127.5 - 1).latent_dist
    torch.testing.assert_close(found.double(), torch.cat([posterior.mean, posterior.std], 1), atol=1e-5, rtol=0)


def test_several_devices_encode_in_turn_to_the_same_bits(small, digit_images, digit_latents, tmp_path, monkeypatch):
    """With a thread each, and the batches in order; their products are as exact as the authors'."""
    threads = set()
    plain = latents._moments

    def moments(config, codec, pixels):
        threads.add(threading.get_ident())
        return plain(config, codec, pixels)

    monkeypatch.setattr(latents, "_moments", moments)
    monkeypatch.setattr(latents, "_devices", lambda: ["cpu"] * 3)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config = LatentsJob(data=DataConfig(images="unused"), codec=small.codec, resolution=32, batch=7, flipped=True)
    latents.encode(config, digit_images, tmp_path)
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    assert torch.backends.cudnn.allow_tf32
    mine, theirs = PackedLatents(tmp_path), PackedLatents(digit_latents)
    for a, b in ((mine.moments, theirs.moments), (mine.flipped, theirs.flipped)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
