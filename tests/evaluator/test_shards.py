"""Tar and parquet shards: the same images and labels as a folder, and one line for what is no whole set."""

import contextlib
import io
import itertools
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq

from evaluator.images import parquet, shards
from evaluator.images.image_set import open_images
from evaluator.images.labels import labels_of
from sra.common.errors import DataError, EvaluatorError

PIXELS = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8)
CLASSES = np.arange(100) % 7


def png(image):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


FILES = [png(image) for image in PIXELS]


def tar(path, members, form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def web_dataset(numbers, *, classes=True, folder=""):
    for number in numbers:
        yield f"{folder}{number:05d}.png", FILES[number]
        if classes:
            yield f"{folder}{number:05d}.cls", b"%d" % CLASSES[number]


def table(numbers, **columns):
    images = [{"bytes": FILES[number], "path": None} for number in numbers]
    return pa.table({"image": images, "label": [int(CLASSES[number]) for number in numbers], **columns})


def pixels(images):
    return np.concatenate(list(images.batches()))


@pytest.fixture(params=["tar", "parquet"])
def folder(request, tmp_path):
    """100 images in shards of 40, 40 and 20."""
    for number, part in enumerate((range(40), range(40, 80), range(80, 100))):
        if request.param == "tar":
            tar(tmp_path / f"{number:03d}.tar", web_dataset(part))
        else:
            pq.write_table(table(part), tmp_path / f"train-{number:05d}-of-00003.parquet", row_group_size=15)
    (tmp_path / "README.md").write_text("Images.")
    return tmp_path


def test_a_folder_of_shards(folder):
    images = open_images(folder)
    assert (images.count, images.shape) == (100, (8, 8))
    # Batches are whole across the borders of shards: features depend on them in the last bits.
    assert [len(batch) for batch in images.batches()] == [64, 36]
    assert np.array_equal(pixels(images), PIXELS)
    assert np.array_equal(labels_of(folder, 100), CLASSES)
    assert images.warnings() == []


def test_one_file(folder):
    file = sorted(folder.glob("*0*.*"))[0]
    assert np.array_equal(pixels(open_images(file)), PIXELS[:40])
    assert np.array_equal(labels_of(file, 40), CLASSES[:40])


def test_a_missing_shard(folder):
    sorted(folder.glob("*0*.*"))[1].unlink()
    with pytest.raises(DataError, match="expected shards without a gap, got none with number 1"):
        open_images(folder)


def test_a_file_that_is_cut_off_anywhere(folder):
    file = sorted(folder.glob("*0*.*"))[1]
    whole = file.read_bytes()
    # At 40 places, and where a member of a tar ends; a tar is padded with zeros.
    last = len(whole.rstrip(b"\0"))
    for end in (*range(0, last, last // 40), 512 * 4):
        file.write_bytes(whole[:end])
        with pytest.raises(DataError, match=f"{file.name}: expected a whole") as caught:
            open_images(folder)
        assert "\n" not in str(caught.value)


def test_flipped_bytes_are_read_or_one_line(folder):
    file = sorted(folder.glob("*0*.*"))[0]
    whole, generator = file.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for place in generator.integers(0, len(content), 3):
            content[place] ^= int(generator.integers(1, 256))
        file.write_bytes(content)
        with contextlib.suppress(DataError, EvaluatorError):
            images = open_images(folder)
            labels_of(folder, images.count)
            pixels(images)


def test_images_win_over_shards_beside_them(folder):
    (folder / "class").mkdir()
    Image.fromarray(PIXELS[0]).save(folder / "class" / "a.png")
    assert open_images(folder).count == 1


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_as_programs_write_them(tmp_path, form):
    long = "x" * (90 if form == tarfile.USTAR_FORMAT else 300)
    tar(tmp_path / "a.tar", web_dataset(range(10), classes=False, folder=f"./{long}/"), form)
    images = open_images(tmp_path / "a.tar")
    assert np.array_equal(pixels(images), PIXELS[:10])
    assert labels_of(tmp_path / "a.tar", 10) is None


def test_what_lies_beside_images_is_told(tmp_path):
    tar(tmp_path / "a.tar", [*web_dataset(range(3)), ("0.json", b"{}"), ("._0.png", b"junk")])
    images = open_images(tmp_path / "a.tar")
    assert images.count == 3
    assert any("2 files or folders are not images" in warning for warning in images.warnings())


def link(path):
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)


def sized(path, size, kind=tarfile.REGTYPE):
    """A member that says it has another size than what follows."""
    info = tarfile.TarInfo("a.png")
    info.size, info.type = size, kind
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))


HOSTILE = {
    "link": link,
    "huge": lambda path: sized(path, 1 << 60),
    "above the limit": lambda path: sized(path, 1 << 31),
    "negative": lambda path: sized(path, -512),
    "long name": lambda path: sized(path, 1 << 40, tarfile.GNUTYPE_LONGNAME),
    "two of a name": lambda path: tar(path, [("a.png", FILES[0]), ("a.png", FILES[1])]),
    "two in one": lambda path: path.write_bytes(b"".join(tar(path, web_dataset([n])).read_bytes() for n in range(2))),
    "gzip": lambda path: tarfile.open(path, "w:gz").close(),
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no tar" * 1000),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_tar_that_is_none_or_hostile_is_one_line(tmp_path, make):
    make(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a\.tar: expected a whole tar file"):
        open_images(tmp_path / "a.tar")


def test_tar_headers_in_a_chain(tmp_path):
    pax = tarfile.TarInfo("p")
    pax.type = tarfile.XHDTYPE
    (tmp_path / "a.tar").write_bytes(pax.tobuf(tarfile.PAX_FORMAT) * 2000)
    with pytest.raises(DataError, match=r"a\.tar: expected a whole tar file"):
        open_images(tmp_path / "a.tar")


def test_parts_of_a_data_set_in_one_tar(tmp_path):
    tar(tmp_path / "a.tar", [*web_dataset(range(2), folder="train/"), *web_dataset(range(2), folder="val/")])
    with pytest.raises(DataError, match=r"expected one data set, got folders train, val"):
        open_images(tmp_path / "a.tar")


def test_classes_that_are_missing_or_none(tmp_path):
    tar(tmp_path / "a.tar", itertools.islice(web_dataset(range(3)), 5))
    with pytest.raises(DataError, match=r"00002\.cls: expected a class, .* got b'nothing'"):
        labels_of(tmp_path / "a.tar", 3)


@pytest.mark.parametrize("names", [("train-000.tar", "val-000.tar"), ("a.tar", "b.tar"), ("0.tar", "1.parquet")])
def test_shards_of_several_sets(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="expected numbered shards of one set"):
        open_images(tmp_path)


def test_columns_of_parquet_files(tmp_path):
    pq.write_table(pa.table({"id": [0, 1], "jpg": FILES[:2]}), tmp_path / "a.parquet")
    assert np.array_equal(pixels(open_images(tmp_path / "a.parquet")), PIXELS[:2])
    assert labels_of(tmp_path / "a.parquet", 2) is None
    refused = {
        "expected a column 'image' .* got id, text": pa.table({"id": [0], "text": ["a"]}),
        "expected a column 'image' .* got a, b": pa.table({"a": FILES[:1], "b": FILES[:1]}),
        "row 1: expected the bytes of an image, got none": pa.Table.from_pylist(
            [{"image": {"bytes": FILES[0], "path": None}}, {"image": {"bytes": None, "path": "a.png"}}]
        ),
        "row 1: expected a whole image": pa.table({"image": [FILES[0], b"none"]}),
        "expected images, got none": pa.table({"image": pa.array([], pa.binary())}),
    }
    for problem, made in refused.items():
        pq.write_table(made, tmp_path / "a.parquet")
        with pytest.raises(DataError, match=rf"a\.parquet: .*{problem}"):
            open_images(tmp_path / "a.parquet")


def test_a_parquet_file_that_would_become_absurdly_large(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "FREE_BYTES", 1 << 16)
    zeros = pa.table({"image": [bytes(1 << 20)] * 3})
    pq.write_table(zeros, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match="expected content of at most 200 times"):
        open_images(tmp_path / "a.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    pq.write_table(table(range(2)), tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "evaluator.images.parquet", None)
    with pytest.raises(DataError, match=r"expected pyarrow, .* sra-bench\[parquet\]"):
        shards.open_shards(tmp_path / "a.parquet")
