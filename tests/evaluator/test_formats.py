"""Files as other tools write them: read, or one line; a metric that cannot be computed is absent with its reason."""

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluator.features import statistics
from evaluator.features.cache import FeatureCache
from evaluator.images.image_set import open_images
from evaluator.metrics.frechet import Gaussian, frechet_distance, gaussian
from evaluator.metrics.inception_score import inception_score
from evaluator.tools import adm_protocol, score_record
from evaluator.tools.base import Result
from sra.common.errors import DataError, EvaluatorError
from sra.common.npz import read_arrays, read_labels

PIXELS = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3), dtype=np.uint8)
SHARES = {"precision", "recall", "precision_exact", "recall_exact"}


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def archive(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as handle:
        for name, content in members.items():
            with handle.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(content)
    return path


def patched(path, method=None, flags=None):
    """The archive with another compression method or other flags in its local and central headers."""
    content = bytearray(path.read_bytes())
    for magic, flags_at, method_at in ((b"PK\3\4", 6, 8), (b"PK\1\2", 8, 10)):
        at = content.find(magic)
        while at >= 0:
            if flags is not None:
                struct.pack_into("<H", content, at + flags_at, flags)
            if method is not None:
                struct.pack_into("<H", content, at + method_at, method)
            at = content.find(magic, at + 4)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("member", ["arr_0", "arr_0.npy"])
def test_images_by_either_name_and_any_compression_of_python(tmp_path, member, method):
    images = open_images(archive(tmp_path / "a.npz", {member: npy(PIXELS)}, method))
    np.testing.assert_array_equal(np.concatenate(list(images.batches())), PIXELS)


@pytest.mark.parametrize("version", [(2, 0), (3, 0)])
def test_arrays_of_later_versions_of_the_format(tmp_path, version):
    content = io.BytesIO()
    np.lib.format.write_array(content, PIXELS, version)
    assert open_images(archive(tmp_path / "a.npz", {"arr_0.npy": content.getvalue()})).count == len(PIXELS)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(tmp_path):
    path = archive(tmp_path / "a.npz", {"arr_0.npy": npy(PIXELS), "arr_0": npy(PIXELS[:1])})
    with pytest.raises(DataError, match=r"arr_0: expected one member of this name, got arr_0\.npy and arr_0$"):
        open_images(path)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        file.writestr("arr_0.npy", npy(PIXELS))
        file.writestr("arr_0.npy", npy(PIXELS[:1]))
    with pytest.raises(DataError, match=r"b\.npz: expected each member once, got arr_0\.npy twice"):
        open_images(tmp_path / "b.npz")


@pytest.mark.parametrize("name", ["a.npz", "a.zip", "a"])
def test_a_pipe_is_no_archive(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: expected a whole \.?\w+ file"):
        open_images(tmp_path / name)


def test_shards_are_named_by_numbers(tmp_path):
    for name in ("0.npz", "²64.npz"):
        archive(tmp_path / name, {"arr_0.npy": npy(PIXELS)})
    with pytest.raises(DataError, match=r"expected shards .* got ²64"):
        open_images(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": 9}, "arr_0: .* got deflate64"),
        ({"method": 93}, "arr_0: .* got zstd"),
        ({"method": 77}, "arr_0: .* got method 77"),
        ({"flags": 1}, "arr_0: expected no encryption"),
    ],
)
def test_members_that_python_cannot_read(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        open_images(patched(archive(tmp_path / "a.npz", {"arr_0.npy": npy(PIXELS)}), **change))
    mixed = {"arr_0.npy": npy(PIXELS), **{f"{k}.npy": npy(np.eye(2)) for k in statistics.KEYS}}
    with pytest.raises(DataError, match=message.partition(":")[2]):
        statistics.read(patched(archive(tmp_path / "b.npz", mixed), **change))


@pytest.mark.parametrize("change", [{"method": 93}, {"flags": 1}])
def test_zips_of_images_that_python_cannot_read(tmp_path, change):
    content = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(content, "PNG")
    with pytest.raises(DataError, match=r"a\.zip: 0\.png: expected a whole image, got "):
        open_images(patched(archive(tmp_path / "a.zip", {"0.png": content.getvalue()}), **change))


def test_arrays_of_either_order_and_byte_order(tmp_path):
    sigma = np.arange(12.0).reshape(3, 4)
    labels = np.arange(5)
    path = tmp_path / "a.npz"
    np.savez(path, sigma=np.asfortranarray(sigma.astype(">f8")), labels=labels.astype(">i4"))
    found = read_arrays(path, ["sigma", "absent"])
    assert list(found) == ["sigma"]
    assert found["sigma"].dtype == np.dtype("=f8")
    np.testing.assert_array_equal(found["sigma"], sigma)
    np.testing.assert_array_equal(read_labels(path), labels)


@pytest.mark.parametrize("shape", ["(-1, 8, 8, 3)", "(10000000000000, 8, 8, 3)", "(" * 900 + ")" * 900, "'x'"])
def test_headers_of_strangers(tmp_path, shape):
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + PIXELS.tobytes()
    with pytest.raises(DataError, match=r"a\.npz: arr_0"):
        open_images(archive(tmp_path / "a.npz", {"arr_0.npy": content})).sha256()
    with pytest.raises(DataError, match=r"a\.npz: arr_0"):
        read_arrays(tmp_path / "a.npz", ["arr_0"])


def gaussians():
    generator = np.random.default_rng(5)
    x = generator.normal(size=(40, 3))
    return {"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)}


@pytest.mark.parametrize("dtype", ["<f4", "<f2", ">f8", ">f4"])
def test_stored_statistics_of_other_dtypes(tmp_path, dtype):
    plain = gaussians()
    np.savez(tmp_path / "a.npz", **{key: array.astype(dtype) for key, array in plain.items()})
    found = statistics.read(tmp_path / "a.npz")
    assert found.spatial is None
    assert found.pool.covariance.dtype == np.dtype("=f8")
    exact = Gaussian(plain["mu"], plain["sigma"])
    assert frechet_distance(found.pool, exact) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (-np.eye(3), "sigma: .* positive semi-definite"),
        (np.diag([1.0, 1.0, -0.01]), "sigma: .* positive semi-definite"),
        (np.eye(3) + np.triu(np.ones((3, 3))), "sigma: .* symmetric"),
        (np.eye(3, dtype=int), "sigma: .* got int64"),
        (np.eye(2), r"mu, sigma: .* got \(3,\), \(2, 2\)"),
    ],
)
def test_matrices_that_are_no_covariance(tmp_path, sigma, message):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=sigma)
    with pytest.raises(EvaluatorError, match=message):
        statistics.read(tmp_path / "a.npz")


def test_a_reference_of_mean_and_covariance_alone_gives_fid_and_is(projection, run_tool, tmp_path):
    found = projection(PIXELS)[:, :12]
    np.savez(tmp_path / "reference.npz", mu=found.mean(0), sigma=np.cov(found, rowvar=False).astype(">f4"))
    np.savez(tmp_path / "samples.npz", arr_0=PIXELS)
    sets = ["--samples", tmp_path / "samples.npz", "--reference", tmp_path / "reference.npz"]

    def score(task):
        task.options.views, task.options.metrics, task.options.differences = [tmp_path / "views"], (), None
        return adm_protocol.score(task, projection, "adm")

    code, record, line = run_tool(score, *sets)
    assert (code, line) == (0, "")
    assert set(record.metrics) == {"fid", "is"}
    assert record.metrics["fid"] == pytest.approx(0, abs=1e-4)
    assert set(record.intervals) == {"fid", "is"}
    assert set(record.absent) == {"sfid", *SHARES}
    assert "no images" in record.absent["recall"]
    assert record.reference.count == 0
    # A tool that needs the images says so.
    code, record, _ = run_tool(lambda task: task.require_images(), *sets)
    assert code == 0
    assert "reference.npz: expected images in the reference" in record.error


def test_numbers_that_are_not_finite_are_absent_with_the_reason(run_tool, tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=PIXELS)
    metrics = {"fid": 1.0, "is": float("inf"), "recall": float("nan")}
    intervals = {"fid": (0.5, float("inf")), "is": (1.0, 2.0)}
    result = Result(metrics=metrics, settings=None, intervals=intervals)
    sets = ["--samples", tmp_path / "a.npz", "--reference", tmp_path / "a.npz"]
    code, record, _ = run_tool(lambda task: [result], *sets)
    assert code == 0
    assert record.metrics == {"fid": 1.0}
    assert record.absent == {"is": "not finite: inf", "recall": "not finite: nan"}
    assert "fid" not in record.intervals
    json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)


def test_inception_score_of_classifiers_that_are_sure():
    logits = np.random.default_rng(1).normal(size=(300, 10)).astype(np.float32)
    # The least probability above zero, in one image: the class's mean underflows.
    logits[0] = [-100, 0, 3, 3, 3, 3, 3, 3, 3, 3]
    logits[1:, 0] = -1e4
    found = inception_score(logits)
    logits[:, 0] = -1e4
    assert found == pytest.approx(inception_score(logits), rel=1e-6)
    assert 1 < inception_score(1000 * np.random.default_rng(1).normal(size=(300, 10)).astype(np.float32)) <= 10


def test_two_singular_covariances_have_the_distance_of_an_exact_root():
    """24 images of 512 features; the sum of the singular values of X Y^T was computed with 40 digits (mpmath)."""
    generator = np.random.default_rng(0)
    mixing = generator.integers(0, 4, (48, 512))
    codes = generator.integers(0, 8, (24, 48)) ** 2
    others = codes + generator.integers(0, 4, codes.shape)
    x, y = ((side @ mixing / 1024).astype(np.float32) for side in (codes, others))
    assert frechet_distance(gaussian(x), gaussian(y)) == pytest.approx(5.4639956931967876503, rel=1e-7)


def test_a_20000_pixel_image_is_one_line(tmp_path):
    content = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(content, "PNG")
    # Width and height stand in the header, after 16 bytes, and a checksum of it 9 bytes later.
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + content.getvalue()[24:29]
    large = content.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + content.getvalue()[33:]
    (tmp_path / "large.png").write_bytes(large)
    with pytest.raises(DataError, match=r"large\.png: expected a whole image, got .*pixels"):
        open_images(tmp_path)


def test_a_name_that_is_not_utf8_in_a_warning(run_tool, tmp_path):
    folder = os.fsencode(tmp_path) + b"/im\xff"
    Path(os.fsdecode(folder)).mkdir()
    for number, image in enumerate((PIXELS[0], np.zeros((8, 8, 3), np.uint8))):
        path = tmp_path / f"{number}.png"
        Image.fromarray(image).save(path)
        path.rename(os.fsdecode(folder + b"/\xe9%d.png" % number))
    place = os.fsdecode(folder)
    result = Result(metrics={"fid": 1.0}, settings=None)
    code, record, _ = run_tool(lambda task: [result], "--samples", place, "--reference", place)
    assert code == 0
    assert r"the first is \xe91.png" in record.warnings[0]
    assert record.samples.path.endswith(r"/im\xff")


def test_cached_features_with_flipped_bytes_are_computed_again(tmp_path, projection, capsys):
    np.savez(tmp_path / "a.npz", arr_0=PIXELS)
    cache = FeatureCache(tmp_path / "cache")

    def found():
        return cache.features(open_images(tmp_path / "a.npz"), projection, projection.widths).pool[0:130]

    whole = found().copy()
    (file,) = cache.folder.iterdir()
    content = bytearray(file.read_bytes())
    content[500] ^= 64
    file.write_bytes(content)
    np.testing.assert_array_equal(found(), whole)
    assert projection.given == 260
    assert f"{file}: cached features are damaged" in capsys.readouterr().out
    # Those of version 0.1.0 have no checksum and count as they are.
    np.save(file, np.load(file))
    np.testing.assert_array_equal(found(), whole)
    assert projection.given == 260


def test_damaged_cached_statistics_are_computed_again(tmp_path, task, projection, capsys):
    make = task([PIXELS], PIXELS[::-1], cache=tmp_path / "cache")
    first = adm_protocol.score(make, projection, "adm")
    for file in (tmp_path / "cache" / "adm").glob("statistics-*"):
        content = bytearray(file.read_bytes())
        content[300] ^= 255
        file.write_bytes(content)
    assert adm_protocol.score(make, projection, "adm") == first
    assert "cached statistics are damaged" in capsys.readouterr().out


def test_the_schema_before_is_read(tmp_path, run_tool):
    np.savez(tmp_path / "a.npz", arr_0=PIXELS)
    result = Result(metrics={"fid": 1.0}, settings=None)
    _, record, _ = run_tool(lambda task: [result], "--samples", tmp_path / "a.npz", "--reference", tmp_path / "a.npz")
    before = score_record.dump(record) | {"schema": 2}
    del before["absent"]
    (tmp_path / "before.json").write_text(json.dumps(before))
    assert score_record.read(tmp_path / "before.json") == record
