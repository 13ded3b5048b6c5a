"""Readers: formats, order, and one clear line for each fault."""

import hashlib
import io
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from evaluator.features import statistics
from evaluator.images.image_set import open_images
from evaluator.inception.graph import resolve
from sra.common.errors import DataError, EvaluatorError

PIXELS = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3), dtype=np.uint8)


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_npz_and_folder_and_zip_give_the_same_images(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(folder / f"{i}.png")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    sets = [open_images(p) for p in (npz(tmp_path / "a.npz", arr_0=PIXELS), folder, tmp_path / "all.zip")]
    for images in sets:
        batches = list(images.batches())
        assert [len(b) for b in batches] == [64, 64, 2]
        np.testing.assert_array_equal(np.concatenate(batches), PIXELS)
    assert len({images.sha256() for images in sets}) == 1


def test_compressed_npz_is_streamed(tmp_path):
    np.savez_compressed(tmp_path / "c.npz", arr_0=PIXELS)
    np.testing.assert_array_equal(np.concatenate(list(open_images(tmp_path / "c.npz").batches())), PIXELS)


def test_copies_are_counted(tmp_path):
    images = open_images(npz(tmp_path / "a.npz", arr_0=np.concatenate([PIXELS, PIXELS[:5]])))
    assert images.warnings() == ["5 of 135 images are copies of others"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "'arr_0', got images"),
        ({"arr0": PIXELS, "labels": np.zeros(3)}, r"'arr_0', got arr0, labels \(did you mean 'arr0'"),
        ({"arr_0": PIXELS / 255.0}, r"arr_0: .* got float64 in \[0, 1\]"),
        ({"arr_0": PIXELS / 127.5 - 1}, r"arr_0: .* got float64 in \[-1, 1\]"),
        ({"arr_0": PIXELS.astype(np.float32)}, "arr_0: .* got float32 from 0 to 255"),
        ({"arr_0": np.full((4, 8, 8, 3), np.nan, np.float32)}, "arr_0: .* got float32 with NaN or infinity"),
        ({"arr_0": np.asfortranarray(PIXELS)}, "Fortran order"),
        ({"arr_0": PIXELS[..., :1]}, r"arr_0: .* got \(130, 8, 8, 1\)"),
        ({"arr_0": PIXELS[:0]}, r"arr_0: .* got \(0, 8, 8, 3\)"),
    ],
)
def test_wrong_arrays(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        open_images(npz(tmp_path / "a.npz", **arrays))


def test_truncated_npz(tmp_path):
    path = npz(tmp_path / "a.npz", arr_0=PIXELS)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"a\.npz: "):
        open_images(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_with_a_flipped_byte(tmp_path, save):
    save(tmp_path / "a.npz", arr_0=PIXELS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[9000] ^= 255
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: arr_0 is (damaged|truncated)"):
        open_images(tmp_path / "a.npz").sha256()


def test_an_array_shorter_than_its_header_says(tmp_path):
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (130, 8, 8, 3)}
    np.lib.format.write_array_header_1_0(header, described)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("arr_0.npy", header.getvalue() + PIXELS[:100].tobytes())
    with pytest.raises(DataError, match="arr_0 is truncated"):
        open_images(tmp_path / "a.npz").sha256()


@pytest.mark.parametrize("largest", [0, 1])
def test_images_without_values_above_1_are_refused(tmp_path, largest):
    images = open_images(npz(tmp_path / "a.npz", arr_0=np.minimum(PIXELS, largest)))
    with pytest.raises(DataError, match=f"got no value above {largest}"):
        images.sha256()


def test_black_images_of_a_folder_are_named(tmp_path):
    for number, image in enumerate((PIXELS[0], np.zeros((8, 8, 3), np.uint8), PIXELS[1])):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    assert open_images(tmp_path).warnings() == ["1 of 3 images are all black; the first is 1.png"]


def test_shards_are_one_set_in_batches_across_their_borders(tmp_path):
    for start, stop in ((0, 50), (50, 127), (127, 130)):
        npz(tmp_path / f"{start:08d}.npz", arr_0=PIXELS[start:stop], labels=np.zeros(stop - start))
    images = open_images(tmp_path)
    batches = list(images.batches())
    assert [len(batch) for batch in batches] == [64, 64, 2]
    np.testing.assert_array_equal(np.concatenate(batches), PIXELS)
    assert images.sha256() == open_images(npz(tmp_path / "all.npz", arr_0=PIXELS)).sha256()


def test_the_first_images_alone(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (150, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "all.npz", images)
    np.savez(tmp_path / "some.npz", images[:130])
    first, some = open_images(tmp_path / "all.npz").first(130), open_images(tmp_path / "some.npz")
    assert [len(batch) for batch in first.batches()] == [64, 64, 2]
    assert (first.count, first.sha256()) == (130, some.sha256())
    # Their cached features are those of the whole set, but for the last file's.
    names = [next(images.chunks(128)).name for images in (first, open_images(tmp_path / "all.npz"))]
    assert names[0] == names[1]
    with pytest.raises(DataError, match="at least 131 images, got 130"):
        some.first(131)


def test_a_missing_shard_and_a_stray_file_are_refused(tmp_path):
    for start in (0, 100):
        npz(tmp_path / f"{start:08d}.npz", arr_0=PIXELS[start : start + 30])
    with pytest.raises(DataError, match=r"starts at image 30, got 00000100\.npz"):
        open_images(tmp_path)
    npz(tmp_path / "samples.npz", arr_0=PIXELS)
    with pytest.raises(DataError, match=r"expected shards .* got samples\.npz"):
        open_images(tmp_path)


def test_the_hash_is_of_the_pixels(tmp_path):
    expected = hashlib.sha256(PIXELS.tobytes()).hexdigest()
    images = open_images(npz(tmp_path / "a.npz", arr_0=PIXELS))
    assert images.sha256() == expected
    assert [chunk.count for chunk in images.chunks(128)] == [128, 2]
    assert images.sha256() == expected


def test_an_error_of_the_reader_reaches_who_asks_for_batches(tmp_path):
    for number in range(70):
        Image.fromarray(PIXELS[number]).save(tmp_path / f"{number}.png")
    (tmp_path / "66.png").write_bytes((tmp_path / "66.png").read_bytes()[:80])
    images = open_images(tmp_path)
    batches = images.batches()
    assert len(next(batches)) == 64
    with pytest.raises(DataError, match=r"66\.png: expected a whole image"):
        next(batches)


def test_an_abandoned_pass_finds_nothing(tmp_path):
    images = open_images(npz(tmp_path / "a.npz", arr_0=PIXELS))
    assert len(next(images.batches())) == 64
    assert images.sha256() == hashlib.sha256(PIXELS.tobytes()).hexdigest()


def test_pickled_objects_are_not_loaded(tmp_path):
    path = npz(tmp_path / "a.npz", arr_0=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"arr_0: .* got object"):
        open_images(path)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_modes_are_refused_by_name(tmp_path, mode):
    Image.new(mode, (8, 8)).save(tmp_path / "odd.png")
    with pytest.raises(DataError, match=rf"odd\.png: expected RGB, got {mode}"):
        open_images(tmp_path)


def test_names_of_files_are_no_folders(tmp_path):
    for number in (1, 2):
        Image.fromarray(PIXELS[number]).save(tmp_path / f"ILSVRC2012_val_0000000{number}.JPEG")
    assert open_images(tmp_path).count == 2


def test_mixed_sizes_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    Image.new("RGB", (9, 8)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"1\.png: expected \(8, 8\) .* got \(8, 9\)"):
        open_images(tmp_path)


@pytest.mark.parametrize("make_zip", [False, True])
@pytest.mark.parametrize(
    ("odd", "problem"),
    [
        (Image.new("RGB", (9, 8)), r"expected \(8, 8\) .* got \(8, 9\) \(2 of 70"),
        (Image.new("L", (8, 8)), r"expected RGB, got L \(2 of 70"),
        (Image.fromarray(np.zeros((8, 8), np.uint16)), r"expected RGB, got 16-bit I;16 \(2 of 70"),
        (None, "expected a whole image"),
    ],
)
def test_an_odd_image_is_found_from_its_header(tmp_path, odd, problem, make_zip):
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(70):
        Image.fromarray(PIXELS[number]).save(folder / f"{number}.png")
    for name in ("0.png", "67.png"):
        odd.save(folder / name) if odd else (folder / name).write_bytes(b"no image")
    if make_zip:
        shutil.make_archive(str(folder), "zip", folder)
    with pytest.raises(DataError, match=rf"0\.png: {problem}"):
        open_images(folder.with_suffix(".zip") if make_zip else folder)


def test_an_orientation_is_counted_and_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), "red").save(tmp_path / "0.jpg", exif=exif)
    images = open_images(tmp_path)
    assert images.shape == (4, 8)
    assert "1 of 1 images have an EXIF orientation, which is not applied" in images.warnings()


def test_missing_paths(tmp_path):
    with pytest.raises(DataError, match="not found"):
        open_images(tmp_path / "no.npz")
    with pytest.raises(DataError, match="found no images"):
        open_images(tmp_path)
    with pytest.raises(EvaluatorError, match=r"--graph: .* got 'no\.pb'"):
        resolve("no.pb")


def test_stored_statistics_must_be_complete(tmp_path):
    assert statistics.read(npz(tmp_path / "plain.npz", arr_0=PIXELS)) is None
    with pytest.raises(EvaluatorError, match=r"part\.npz: .* got mu$"):
        statistics.read(npz(tmp_path / "part.npz", arr_0=PIXELS, mu=np.zeros(3)))
    whole = {"mu": np.zeros(3), "sigma": np.eye(3), "mu_s": np.zeros(2), "sigma_s": np.eye(2)}
    assert statistics.read(npz(tmp_path / "whole.npz", **whole)).spatial.covariance.shape == (2, 2)
    with pytest.raises(EvaluatorError, match=r"mu_s, sigma_s: .* got \(2,\), \(3, 3\)"):
        statistics.read(npz(tmp_path / "odd.npz", **whole | {"sigma_s": np.eye(3)}))
    with pytest.raises(EvaluatorError, match=r"sigma: .* finite"):
        statistics.read(npz(tmp_path / "nan.npz", **whole | {"sigma": np.full((3, 3), np.nan)}))


def test_linked_folders_count_once_and_junk_not_at_all(tmp_path):
    for name in ("b.png", ".hidden.png", "._b.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / "again").symlink_to(".")
    images = open_images(tmp_path)
    assert images.count == 1
    assert any("3 files or folders are not images" in text for text in images.warnings())
