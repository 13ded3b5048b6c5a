"""Data sets of images as users have them, and the images stage: layouts, refusals, resuming."""

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

from evaluator.images.image_set import open_images
from sra import data
from sra.common.errors import DataError
from sra.common.listing import IMAGE_FORMATS, KAGGLE_TRAIN, list_folder, natural, order_note
from sra.common.processes import _quotas, _room
from sra.config import DataConfig, ImagesJob
from sra.data import archive, images
from sra.data.images import Part, prepare
from sra.data.labels import check_split, parse_labels
from sra.data.source import Reader, open_source
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


def test_a_pipe_is_no_data(tmp_path):
    place(tmp_path / "set", {"a/1.png": png()})
    os.mkfifo(tmp_path / "set" / "a" / "2.png")
    listing = list_folder(tmp_path / "set")
    assert (listing.names, listing.junk) == ({"a/1.png"}, 1)


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    root = place(tmp_path / "set", {"cat/1.png": png()})
    (root / "cat" / "2.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"cat/2\.png: .*gone\.png"):
        open_source(DataConfig(images=str(root)), 16)


@pytest.mark.parametrize(
    ("names", "likely"),
    [
        (("train/1.png", "val/2.png"), "train"),
        (("train/a/1.png", "val/a/2.png", "meta/3.png"), "train"),
        (("Training Set/1.png", "Test/2.png", "extra/3.png"), "Training Set"),
        (("TRAIN/a/1.png", "TRAIN/b/1.png", "other/2.png"), "TRAIN"),
        (("seg_train/1.png", "seg_test/2.png"), "seg_train"),
    ],
)
def test_parts_of_a_data_set_are_not_classes(tmp_path, names, likely):
    root = place(tmp_path / "set", dict.fromkeys(names, png()))
    for read in (lambda: open_source(DataConfig(images=str(root)), 16), lambda: open_images(root)):
        with pytest.raises(DataError, match=rf"one data set, got folders .* \(did you mean .*/{likely}\?\)"):
            read()


def test_a_class_may_be_named_as_a_part(tmp_path):
    root = place(tmp_path / "set", dict.fromkeys(("train/1.png", "train/2.png", "bus/1.png", "test tube/1.png"), png()))
    assert open_source(DataConfig(images=str(root)), 16).class_names == {0: "bus", 1: "test tube", 2: "train"}
    assert open_images(place(tmp_path / "samples", {"test/1.png": png()})).count == 1


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
    monkeypatch.setattr(images, "IMAGES_PER_FOLDER", 4)
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
    monkeypatch.setattr(images, "usable_cores", lambda: 2)
    prepare(config, tmp_path / "many")
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert len(contents(tmp_path / "one")) == 1003 + 2
    listed = json.loads((tmp_path / "one" / "images" / "dataset.json").read_text())["labels"]
    assert listed[1002] == ["00001/img00001002.png", 1]


def test_a_fault_in_a_worker_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "POOL_FROM", 1)
    monkeypatch.setattr(images, "usable_cores", lambda: 2)
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


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def test_formats_are_all_that_pillow_reads_under_these_names():
    Image.init()
    for kind, suffixes in IMAGE_FORMATS.items():
        assert kind in Image.OPEN
        for suffix in suffixes:
            assert Image.EXTENSION[suffix] in (kind, "MPO", "BMP")


@pytest.mark.parametrize("make", [place, pack])
def test_a_class_of_rarer_formats_keeps_its_label(tmp_path, make):
    colour = Image.new("RGB", (8, 8), (9, 0, 0))
    kinds = {"gif": "GIF", "jfif": "JPEG", "jpe": "JPEG", "ppm": "PPM", "tif": "TIFF", "TIFF": "TIFF", "webp": "WEBP"}
    files = {f"{i}/a.{suffix}": saved(colour, kind) for i, (suffix, kind) in enumerate(kinds.items())}
    source = open_source(DataConfig(images=str(make(tmp_path / "set", files))), 8)
    assert source.labels == list(range(len(kinds)))


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"cat/1.png": png(), "dog/2.heic": b"x"}, r"dog/2\.heic: .*not read"),
        ({"cat/1.png": png(), "dog/readme.txt": b"x"}, "images in each class folder, got none in dog"),
        ({"in/cat/1.png": png(), "in/dog/2.png": png()}, r"got folders in \(did you mean .*set.*/in\?\)"),
        ({"TRAIN/1.png": png(), "val2017/2.png": png()}, r"did you mean .*/TRAIN\?"),
        ({"n01.tar": b"x"}, r"found no images, but n01\.tar"),
    ],
)
@pytest.mark.parametrize("make", [place, pack])
def test_labels_that_would_move_are_refused(tmp_path, make, files, problem):
    with pytest.raises(DataError, match=problem):
        open_source(DataConfig(images=str(make(tmp_path / "set", files))), 16)


def test_an_empty_class_folder_is_refused(tmp_path):
    root = place(tmp_path, {"cat/1.png": png()})
    (root / "ape").mkdir()
    with pytest.raises(DataError, match="got none in ape"):
        open_source(DataConfig(images=str(root)), 16)


def test_the_order_of_numbered_folders_is_said_and_the_classes_are_written(tmp_path, capsys):
    files = {f"{name}/1.png": png() for name in (1, 2, 10)}
    prepare(ImagesJob(data=DataConfig(images=str(place(tmp_path / "set", files))), resolution=16), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "images.json").read_text())["class_names"] == {"0": "1", "1": "10", "2": "2"}
    assert "label 1 is '10', not '2'" in capsys.readouterr().out
    assert order_note(["n01440764", "n01443537"]) is None
    assert natural("a\u00b2") == [(1, 0, "a\u00b2")]


def test_a_listing_names_classes_only_where_folders_are_classes(tmp_path):
    listing = json.dumps({"labels": [["a/1.png", 3], ["b/2.png", 5]]}).encode()
    root = place(tmp_path / "same", {"a/1.png": png(), "b/2.png": png(), "dataset.json": listing})
    assert open_source(DataConfig(images=str(root)), 16).class_names == {3: "a", 5: "b"}
    listing = json.dumps({"labels": [["a/1.png", 0], ["a/2.png", 1]]}).encode()
    root = place(tmp_path / "other", {"a/1.png": png(), "a/2.png": png(), "dataset.json": listing})
    assert open_source(DataConfig(images=str(root)), 16).class_names == {}


@pytest.mark.parametrize(
    ("images", "folders", "reason"),
    [
        (50_000, 1000, "validation"),
        (1_281_166, 1000, "1 are missing"),
        (1_281_168, 1000, "1 too many"),
        (1_279_867, 999, "no images of the classes n01440764"),
        (2_000, 0, "not named as ImageNet"),
    ],
)
def test_a_wrong_count_of_imagenet_names_the_likely_reason(images, folders, reason):
    synsets = (Path(data.__file__).parent / "imagenet_classes.txt").read_text().split()
    names = synsets[len(synsets) - folders :] or ["cat", "dog"]
    with pytest.raises(DataError, match=rf"got {images} in {len(names)}; .*{reason}.*; x was left out"):
        check_split("imagenet-train", images, len(names), "here", names, "x was left out")


def png_of_16_bits(kind, *values):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, kind, 0, 0, 0))
    pixel = zlib.compress(b"\0" + struct.pack(f">{len(values)}H", *values))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PALETTE = Image.new("P", (1, 1))
PALETTE.putpalette([7, 8, 9] * 256)
KINDS = {
    "gray16.png": (png_of_16_bits(0, 0x80FF), (128, 128, 128), ["16 bits, upper 8 kept", "I;16"]),
    "gray16.pgm": (b"P5 1 1 65535\n\x80\xff", (128, 128, 128), ["16 bits, upper 8 kept", "I"]),
    "rgb16.png": (png_of_16_bits(2, 0x80FF, 0xFFFF, 0), (128, 255, 0), ["16 bits, upper 8 kept"]),
    "gray.png": (saved(Image.new("L", (1, 1), 5)), (5, 5, 5), ["L"]),
    "bit.png": (saved(Image.new("1", (1, 1), 1)), (255, 255, 255), ["1"]),
    "palette.png": (saved(PALETTE), (7, 8, 9), ["P"]),
    "hole.png": (saved(PALETTE, transparency=0), (7, 8, 9), ["P, transparency dropped"]),
    "la.png": (saved(Image.new("LA", (1, 1), (5, 0))), (5, 5, 5), ["LA, transparency dropped"]),
    "rgba.png": (saved(Image.new("RGBA", (1, 1), (1, 2, 3, 0))), (1, 2, 3), ["RGBA, transparency dropped"]),
    "cmyk.tif": (saved(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), "TIFF"), (0, 255, 255), ["CMYK"]),
    "turned.png": (
        saved(Image.new("RGB", (1, 1), (1, 2, 3)), exif=turned()),
        (1, 2, 3),
        ["EXIF orientation, not applied"],
    ),
    "plain.png": (saved(Image.new("RGB", (1, 1), (1, 2, 3))), (1, 2, 3), []),
    "named.jpg": (saved(Image.new("RGB", (1, 1), (1, 2, 3))), (1, 2, 3), ["named otherwise, is PNG"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_pixels_has_one_rule_and_a_count(tmp_path, name, capsys):
    content, expected, kinds = KINDS[name]
    root = place(tmp_path / "set", {f"a/{name}": content})
    prepare(ImagesJob(data=DataConfig(images=str(root)), resolution=1), tmp_path / "out")
    found = Image.open(tmp_path / "out" / "images" / "00000" / "img00000000.png")
    assert found.getpixel((0, 0)) == expected
    assert json.loads((tmp_path / "out" / "images.json").read_text())["converted"] == dict.fromkeys(kinds, 1)
    said = capsys.readouterr().out
    assert all(f"1 x {kind}" in said for kind in kinds)


def test_the_first_of_several_frames_is_kept(tmp_path):
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    root = place(tmp_path / "set", {"a/1.gif": saved(first, "GIF", save_all=True, append_images=[second])})
    prepare(ImagesJob(data=DataConfig(images=str(root)), resolution=4), tmp_path / "out")
    assert Image.open(tmp_path / "out" / "images" / "00000" / "img00000000.png").getpixel((0, 0)) == (255, 0, 0)
    converted = json.loads((tmp_path / "out" / "images.json").read_text())["converted"]
    assert converted["several frames, first kept"] == 1


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_white_are_refused(tmp_path, mode):
    root = place(tmp_path / "set", {"a/1.tif": saved(Image.new(mode, (4, 4), 1), "TIFF")})
    with pytest.raises(DataError, match=rf"a/1\.tif: .*{mode}"):
        prepare(ImagesJob(data=DataConfig(images=str(root)), resolution=4), tmp_path / "out")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_zip_is_listed_once_for_all_parts(tmp_path, monkeypatch, method):
    monkeypatch.setattr(images, "IMAGES_PER_FOLDER", 4)
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        for i in range(10):
            file.writestr(f"a/{i:02d}.png", png(i))
    source = open_source(DataConfig(images=str(path)), 16)
    if method != zipfile.ZIP_LZMA:
        monkeypatch.setattr(zipfile, "ZipFile", None)
    for number, part in enumerate(images._parts(source, tmp_path)):
        for index, name in enumerate(part.names):
            assert part.reader.image(name).getpixel((0, 0)) == (4 * number + index, 0, 0)
            assert (part.reader.members[name].method < 0) == (method == zipfile.ZIP_LZMA)
    assert source.places.nbytes == 10 * 40


def test_a_member_too_large_for_an_image_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(archive.archives, "MAX_MEMBER_BYTES", 50)
    with pytest.raises(DataError, match=r"a/1\.png: expected at most 50 bytes"):
        open_source(DataConfig(images=str(pack(tmp_path / "set.zip", {"a/1.png": png()}))), 16)


def test_damage_inside_a_zip_is_named(tmp_path):
    path = pack(tmp_path / "set.zip", {"a/1.png": png(1, (64, 64))})
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)
    names, reader = open_source(DataConfig(images=str(path)), 16).part(0, 1)
    with pytest.raises(DataError, match=r"a/1\.png: .*checksum"):
        reader.image(names[0])


@pytest.mark.parametrize(
    ("groups", "files", "quotas"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, [1.5]),
        ("0::/host/path\n", {"cpu.max": "200000 100000"}, [2.0]),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"}, [0.5]),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, []),
        ("0::/\n", {}, []),
    ],
)
def test_workers_follow_the_quota_of_the_control_group(tmp_path, groups, files, quotas):
    (tmp_path / "membership").write_text(groups)
    place(tmp_path, {name: text.encode() for name, text in files.items()})
    assert list(_quotas(tmp_path, tmp_path / "membership")) == quotas


@pytest.mark.parametrize(
    ("groups", "files", "room"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "1000"}, 1000 - 700 + 30),
        ("0::/host\n", {"memory.max": "500"}, 500 - 700 + 30),
    ],
)
def test_memory_follows_the_limit_of_the_control_group(tmp_path, groups, files, room):
    (tmp_path / "membership").write_text(groups)
    used = {"memory.current": "700\n", "memory.stat": "anon 5\nactive_file 10\ninactive_file 20\n"}
    more = {str(Path(name).parent / other): text for name in files for other, text in used.items()}
    place(tmp_path, {name: text.encode() for name, text in {**files, **more}.items()})
    assert list(_room(tmp_path, tmp_path / "membership")) == [room]


def test_memory_follows_the_limit_of_the_first_version(tmp_path):
    (tmp_path / "membership").write_text("7:memory:/x\n")
    stat = "inactive_file 1\ntotal_active_file 10\ntotal_inactive_file 20\n"
    files = {"limit_in_bytes": "1000\n", "usage_in_bytes": "700\n", "stat": stat}
    place(tmp_path, {f"memory/x/memory.{name}": text.encode() for name, text in files.items()})
    assert list(_room(tmp_path, tmp_path / "membership")) == [330]
