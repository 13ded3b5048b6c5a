"""Readers: formats, order, and one clear line for each fault."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from evaluator.errors import EvaluatorError
from evaluator.graphs import resolve
from evaluator.samples import open_images, statistics

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
    assert len({images.examine() for images in sets}) == 1


def test_compressed_npz_is_streamed(tmp_path):
    np.savez_compressed(tmp_path / "c.npz", arr_0=PIXELS)
    np.testing.assert_array_equal(np.concatenate(list(open_images(tmp_path / "c.npz").batches())), PIXELS)


def test_copies_are_counted(tmp_path):
    images = open_images(npz(tmp_path / "a.npz", arr_0=np.concatenate([PIXELS, PIXELS[:5]])))
    assert images.warnings() == ["5 of 135 images are copies of others"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "no array 'arr_0'; found images"),
        ({"arr_0": PIXELS / 255.0}, r"arr_0 is float64 in \[0, 1\], uint8 in \[0, 255\]"),
        ({"arr_0": PIXELS[..., :1]}, r"\(130, 8, 8, 1\), \(N, H, W, 3\)"),
        ({"arr_0": PIXELS[:0]}, r"shape \(0, 8, 8, 3\)"),
    ],
)
def test_wrong_arrays(tmp_path, arrays, message):
    with pytest.raises(EvaluatorError, match=message):
        open_images(npz(tmp_path / "a.npz", **arrays))


def test_truncated_npz(tmp_path):
    path = npz(tmp_path / "a.npz", arr_0=PIXELS)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(EvaluatorError, match="not a whole"):
        open_images(path)


def test_pickled_objects_are_not_loaded(tmp_path):
    path = npz(tmp_path / "a.npz", arr_0=np.array([{"a": 1}], dtype=object))
    with pytest.raises(EvaluatorError, match="arr_0 is object"):
        open_images(path)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_modes_are_refused_by_name(tmp_path, mode):
    Image.new(mode, (8, 8)).save(tmp_path / "odd.png")
    with pytest.raises(EvaluatorError, match=rf"odd\.png is {mode}, RGB is needed"):
        open_images(tmp_path)


def test_mixed_sizes_are_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    Image.new("RGB", (9, 8)).save(tmp_path / "1.png")
    with pytest.raises(EvaluatorError, match=r"1\.png is \(8, 9\), the first image \(8, 8\)"):
        list(open_images(tmp_path).batches())


def test_missing_paths(tmp_path):
    with pytest.raises(EvaluatorError, match="not found"):
        open_images(tmp_path / "no.npz")
    with pytest.raises(EvaluatorError, match="found no images"):
        open_images(tmp_path)
    with pytest.raises(EvaluatorError, match="embedded:digits is needed"):
        resolve("no.pb")


def test_stored_statistics_must_be_complete(tmp_path):
    assert statistics(npz(tmp_path / "plain.npz", arr_0=PIXELS)) is None
    with pytest.raises(EvaluatorError, match="has mu, but not sigma, mu_s, sigma_s"):
        statistics(npz(tmp_path / "part.npz", arr_0=PIXELS, mu=np.zeros(3)))
