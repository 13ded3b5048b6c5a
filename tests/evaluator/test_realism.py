"""Views of coverage: which samples are worst and best, what lies beside them, which classes there are."""

import json

import numpy as np
import pytest
from PIL import Image

from evaluator.images.image_set import open_images
from evaluator.tools import realism

GENERATOR = np.random.default_rng(0)


def image_set(folder, name, pixels):
    path = folder / f"{name}.npz"
    np.savez(path, arr_0=pixels)
    return open_images(path)


@pytest.fixture
def sides(tmp_path):
    """120 references around the origin; 100 samples: the first far away, the second a copy of reference 7."""
    references, samples = (GENERATOR.normal(size=(n, 6)).astype(np.float32) for n in (120, 100))
    samples[0] += 40
    samples[1] = references[7]
    pictures = [GENERATOR.integers(0, 256, (n, 8, 12, 3), dtype=np.uint8) for n in (120, 100)]
    return (
        realism.Side(image_set(tmp_path, "reference", pictures[0]), references),
        realism.Side(image_set(tmp_path, "samples", pictures[1]), samples),
        pictures,
    )


def test_realism_against_a_plain_computation(sides):
    reference, samples, _ = sides
    r, s = (side.features.astype(np.float64) for side in (reference, samples))
    radii = np.array([np.sort(np.linalg.norm(r - x, axis=1))[3] for x in r])
    kept = radii <= np.median(radii)
    found = realism.realism(reference.features, samples.features)
    assert np.isinf(found[1])
    for place in (0, 2, 50, 99):
        plain = max(radii[kept] / np.linalg.norm(r[kept] - s[place], axis=1))
        assert found[place] == pytest.approx(plain, rel=1e-6)


def test_a_copy_is_found_even_of_a_reference_whose_ball_is_left_out():
    references = np.concatenate([GENERATOR.normal(size=(50, 4)), [[1000.0, 0, 0, 0]]]).astype(np.float32)
    assert np.isinf(realism.realism(references, references[-1:]))[0]


def test_a_sample_inside_a_ball_has_realism_of_at_least_one(sides):
    reference, samples, _ = sides
    r, s = reference.features, samples.features
    radii = np.array([np.sort(np.linalg.norm(r - x, axis=1))[3] for x in r])
    kept = radii <= np.median(radii)
    inside = [(np.linalg.norm(r[kept] - x, axis=1) <= radii[kept] * (1 + 1e-9)).any() for x in s]
    np.testing.assert_array_equal(realism.realism(r, s) >= 1, inside)


def test_the_record_and_the_files(sides, tmp_path):
    reference, samples, _ = sides
    weights = GENERATOR.normal(size=(6, 5)).astype(np.float32)
    found = realism.write(reference, samples, weights, tmp_path / "views")
    assert found.worst[0].sample == 0
    assert found.best[0].sample == 1
    assert found.best[0].realism is None
    assert found.best[0].references[0] == 7
    assert found.best[0].distances[0] == 0
    assert found.equal_to_a_reference == 1
    assert len(found.worst) == len(found.best) == 16
    json.dumps(found.model_dump(), allow_nan=False)
    counts = json.loads((tmp_path / "views" / "classes.json").read_text())
    expected = np.bincount((samples.features @ weights).argmax(1), minlength=5)
    assert counts["samples"] == expected.tolist()
    assert sum(counts["reference"]) == 120
    assert found.largest_class_share == expected.max() / 100
    assert sorted(path.name for path in (tmp_path / "views").iterdir()) == ["classes.json", "nearest.png"]


def test_classes_without_samples():
    weights = np.eye(3, dtype=np.float32)
    assert realism.histogram(np.eye(3, dtype=np.float32)[[0, 0, 2]], weights) == [2, 0, 1]


def test_the_grid_shows_the_pixels_of_the_chosen(sides):
    reference, samples, (references, pictures) = sides
    scores = realism.realism(reference.features, samples.features)
    order = np.argsort(scores)
    worst, best = (realism.nearest(reference.features, samples.features, scores, o) for o in (order[:3], order[-1:]))
    canvas = np.asarray(realism.grid(reference.images, samples.images, {"worst": worst, "best": best}, "realism"))
    x, y = realism.GAP, realism.TITLE + realism.CAPTION
    shown = canvas[y : y + realism.TILE, x : x + realism.TILE]
    scale = realism.TILE // 12
    # Small images are enlarged by a whole factor, in the middle of their tile.
    top = (realism.TILE - 8 * scale) // 2
    np.testing.assert_array_equal(shown[top + scale // 2 :: scale][:8, scale // 2 :: scale], pictures[0])
    beside = x + realism.TILE + 2 * realism.GAP
    tile = canvas[y : y + realism.TILE, beside : beside + realism.TILE]
    expected = references[worst.references[0, 0]]
    np.testing.assert_array_equal(tile[top + scale // 2 :: scale][:8, scale // 2 :: scale], expected)


def test_large_images_are_reduced_to_a_tile():
    assert realism._tile(np.zeros((256, 512, 3), np.uint8)).size == (realism.TILE, realism.TILE)


def test_pick_stops_when_it_has_all(tmp_path):
    pixels = GENERATOR.integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
    found = realism.pick(image_set(tmp_path, "a", pixels), {0, 63, 64, 199})
    assert found.keys() == {0, 63, 64, 199}
    for place, image in found.items():
        np.testing.assert_array_equal(image, pixels[place])


def test_the_picture_opens(sides, tmp_path):
    reference, samples, _ = sides
    realism.write(reference, samples, np.eye(6, dtype=np.float32), tmp_path)
    with Image.open(tmp_path / "nearest.png") as image:
        assert image.size[0] == 2 * (4 * (realism.TILE + realism.GAP) + 3 * realism.GAP) + realism.GAP
