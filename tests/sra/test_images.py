"""Data sets of images as users have them, and the images stage: layouts, refusals, resuming."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from sra.common.errors import DataError
from sra.config import DataConfig, ImagesJob
from sra.data import images
from sra.data.images import Part, prepare
from sra.data.labels import parse_labels
from sra.data.source import KAGGLE_TRAIN, Reader, open_source
from sra.runtime import job


def png(shade=0, size=(20, 24)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def place(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def pack(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


KAGGLE = {
    f"{KAGGLE_TRAIN}/n02/b.JPEG": png(2),
    f"{KAGGLE_TRAIN}/n01/a.JPEG": png(1),
    f"{KAGGLE_TRAIN}/n01/._a.JPEG": b"finder",
    "ILSVRC/Data/CLS-LOC/val/x.JPEG": png(3),
    "ILSVRC/Annotations/CLS-LOC/train/n01/a.xml": b"<xml/>",
    "__MACOSX/ILSVRC/Data/CLS-LOC/train/n03/._c.JPEG": b"finder",
}


@pytest.mark.parametrize("make", [place, pack])
def test_imagenet_as_kaggle_ships_it(tmp_path, make):
    source = open_source(DataConfig(images=str(make(tmp_path / "kaggle", KAGGLE))), 16)
    assert source.names == [f"{KAGGLE_TRAIN}/n01/a.JPEG", f"{KAGGLE_TRAIN}/n02/b.JPEG"]
    assert source.labels == [0, 1]
    assert source.reader.image(source.names[1]).getpixel((0, 0)) == (2, 0, 0)


def test_the_train_folder_itself_is_the_same_data_set(tmp_path):
    root = place(tmp_path, KAGGLE)
    source = open_source(DataConfig(images=str(root / KAGGLE_TRAIN)), 16)
    assert (source.names, source.labels) == (["n01/a.JPEG", "n02/b.JPEG"], [0, 1])


def test_the_zip_of_a_mac(tmp_path):
    files = {"cat/1.png": png(), "dog/2.png": png(), "__MACOSX/cat/._1.png": b"x", "dog/.DS_Store": b"x"}
    source = open_source(DataConfig(images=str(pack(tmp_path / "a.zip", files))), 16)
    assert (source.names, source.labels) == (["cat/1.png", "dog/2.png"], [0, 1])


@pytest.mark.parametrize(
    "junk", [".DS_Store", "cat/.DS_Store", "cat/._1.png", ".ipynb_checkpoints/1.png", "Thumbs.db", "__MACOSX/cat/2.png"]
)
@pytest.mark.parametrize("make", [place, pack])
def test_what_systems_leave_behind_is_no_data(tmp_path, make, junk):
    root = make(tmp_path / "set", {"cat/1.png": png(), "dog/2.png": png(), junk: png()})
    source = open_source(DataConfig(images=str(root)), 16)
    assert (source.names, source.labels) == (["cat/1.png", "dog/2.png"], [0, 1])
    assert "1 files or folders" in source.note


def test_each_real_folder_counts_once_through_links(tmp_path):
    elsewhere = place(tmp_path / "elsewhere", {"3.png": png()})
    root = place(tmp_path / "set", {"cat/1.png": png(), "cat/2.png": png()})
    (root / "ape").symlink_to(elsewhere)  # a linked class folder
    (root / "also-cat").symlink_to("cat")  # the same folder again
    (root / "cat" / "up").symlink_to("..")  # a loop
    source = open_source(DataConfig(images=str(root)), 16)
    assert (source.names, source.labels) == (["ape/3.png", "cat/1.png", "cat/2.png"], [0, 1, 1])


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    root = place(tmp_path / "set", {"cat/1.png": png()})
    (root / "cat" / "2.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"cat/2\.png: .*gone\.png"):
        open_source(DataConfig(images=str(root)), 16)


def test_parts_of_a_data_set_are_not_classes(tmp_path):
    root = place(tmp_path / "set", {"train/1.png": png(), "val/2.png": png()})
    with pytest.raises(DataError, match=r"class folders, got train, val \(did you mean .*/train\?\)"):
        open_source(DataConfig(images=str(root)), 16)


def test_counts_of_imagenet_are_checked_before_any_work(tmp_path):
    data = DataConfig(images=str(place(tmp_path / "in", KAGGLE)), split="imagenet-train")
    with pytest.raises(DataError, match=r"expected 1281167 images in 1000 classes .*imagenet-train.*got 2 in 2"):
        prepare(ImagesJob(data=data, resolution=16), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "expected JSON"),
        ("[1]", "labels: .*got nothing"),
        ('{"labels": null}', "labels: .*got nothing"),
        ('{"labels": {"a.png": 1}}', "labels: .*got dict"),
        ('{"labels": [["a.png"]]}', r'labels: .*got \["a.png"\]'),
        ('{"labels": [["a.png", "cat"]]}', "class index from 0"),
        ('{"labels": [["a.png", 1.5]]}', "class index from 0"),
        ('{"labels": [["a.png", true]]}', "class index from 0"),
        ('{"labels": [["a.png", -1]]}', "class index from 0"),
        ('{"labels": [["a.png", 1], ["a.png", 2]]}', "labels: .*a.png twice"),
        ('{"labels": [["b.png", 1]]}', r"a label .* for a.png \(1 in all\)"),
        ('{"labels": [["a.png", 1], ["b.png", 1]]}', r"expected the file .* b.png \(1 in all\)"),
    ],
)
@pytest.mark.parametrize("make", [place, pack])
def test_a_bad_listing_is_one_line(tmp_path, make, text, problem):
    root = make(tmp_path / "set", {"a.png": png(), "dataset.json": text.encode()})
    with pytest.raises(DataError, match=problem) as caught:
        open_source(DataConfig(images=str(root)), 16)
    assert len(str(caught.value).splitlines()) == 1


def test_labels_keep_the_listing_order():
    assert list(parse_labels('{"labels": [["b", 1], ["a", 0]]}', "x").items()) == [("b", 1), ("a", 0)]


@pytest.mark.parametrize("content", [png()[:50], b"", b"GIF89a", png()[:20]], ids=["cut", "empty", "gif", "header"])
@pytest.mark.parametrize("make", [place, pack])
def test_what_is_not_a_whole_image_is_named(tmp_path, make, content):
    root = make(tmp_path / "set", {"zero/bad.png": content})
    with pytest.raises(DataError, match=r"zero/bad\.png: expected a whole image") as caught:
        prepare(ImagesJob(data=DataConfig(images=str(root)), resolution=16), tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1


def test_a_mode_without_a_way_to_rgb_is_named(tmp_path):
    class Odd(Reader):
        def image(self, name):
            return Image.new("La", (20, 20))

    with pytest.raises(DataError, match=r"a\.png: .*La"):
        Part(0, ("a.png",), Odd("here", 16), tmp_path).make()


def test_neither_folder_nor_zip(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"a\.zip: expected a folder or a zip file"):
        open_source(DataConfig(images=str(tmp_path / "a.zip")), 16)


def contents(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_an_interrupted_stage_does_not_redo_finished_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "PART", 4)
    files = {f"{'ab'[i % 2]}/{i:02d}.png": png(i) for i in range(10)}
    config = ImagesJob(data=DataConfig(images=str(place(tmp_path / "set", files))), resolution=16)
    prepare(config, tmp_path / "whole")
    read = []
    original = Reader.image
    monkeypatch.setattr(Reader, "image", lambda self, name: (read.append(name), original(self, name))[1])
    asked = iter([None] * 6)

    def stop_at_seventh_image():
        if next(asked, "stop") == "stop":
            raise job.Stopped

    monkeypatch.setattr(job, "check_stop", stop_at_seventh_image)
    with pytest.raises(job.Stopped):
        prepare(config, tmp_path / "parts")
    assert not (tmp_path / "parts" / "images" / "dataset.json").exists()
    monkeypatch.setattr(job, "check_stop", lambda: None)
    first = len(read)
    prepare(config, tmp_path / "parts")
    assert len(read) - first == 6
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")


def test_all_cores_make_the_same_files(tmp_path, monkeypatch):
    files = {f"{'ab'[i % 2]}/{i:04d}.png": png(i % 256, (8, 8)) for i in range(1003)}
    config = ImagesJob(data=DataConfig(images=str(pack(tmp_path / "set.zip", files))), resolution=8)
    prepare(config, tmp_path / "one")
    monkeypatch.setattr(images, "POOL_FROM", 1)
    monkeypatch.setattr(images.os, "sched_getaffinity", lambda _: {0, 1})
    prepare(config, tmp_path / "many")
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert len(contents(tmp_path / "one")) == 1003 + 2
    listed = json.loads((tmp_path / "one" / "images" / "dataset.json").read_text())["labels"]
    assert listed[1002] == ["00001/img00001002.png", 1]


def test_a_fault_in_a_worker_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "POOL_FROM", 1)
    monkeypatch.setattr(images.os, "sched_getaffinity", lambda _: {0, 1})
    root = place(tmp_path / "set", {"zero/bad.png": b"no image"})
    with pytest.raises(DataError, match=r"zero/bad\.png: expected a whole image"):
        prepare(ImagesJob(data=DataConfig(images=str(root)), resolution=16), tmp_path / "out")


def test_lossless_at_the_lower_effort(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.fromarray(noise).save(tmp_path / "set" / "a" / "1.png")
    prepare(ImagesJob(data=DataConfig(images=str(tmp_path / "set")), resolution=16), tmp_path / "out")
    found = np.asarray(Image.open(tmp_path / "out" / "images" / "00000" / "img00000000.png"))
    assert np.array_equal(found, noise)
