"""Copies of training images: the formulas written out, copies that are found, coverage of the intervals."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from evaluator.images.image_set import open_images
from evaluator.metrics import distances
from evaluator.metrics.memorisation import Training
from evaluator.tools import adm_protocol
from sra.common.errors import EvaluatorError

GENERATOR = np.random.default_rng(5)
NAMES = ("authenticity", "copying")


def draw(generator, count, width=6):
    return generator.chisquare(2, (count, width)).astype(np.float32)


def distances_of(a, b):
    return np.linalg.norm(a[:, None].astype(float) - b, axis=2)


@pytest.mark.parametrize("tile", [16, 2000])
def test_the_formulas(monkeypatch, tile):
    monkeypatch.setattr(distances, "TILE", tile)
    training, validation, samples = draw(GENERATOR, 70), draw(GENERATOR, 40), draw(GENERATOR, 50)
    samples[3], samples[4], training[9] = training[7], training[8], training[8]
    found = Training(training, validation).copies(samples)
    to_training = distances_of(samples, training)
    order = np.argsort(to_training, axis=1, kind="stable")[:, :3]
    own = distances_of(training, training) + np.diag(np.full(70, np.inf))
    nearest, gaps = to_training.min(axis=1), own.min(axis=1)[order[:, 0]]
    np.testing.assert_allclose(np.sqrt(found.distances), np.take_along_axis(to_training, order, 1), rtol=1e-6)
    assert found.ratios[3] == found.ratios[4] == 0  # a copy of an image of which there are two, too
    apart = gaps > 0
    np.testing.assert_allclose(found.ratios[apart], (nearest[apart] / gaps[apart]), rtol=1e-6)
    assert found.authenticity()[0] == pytest.approx((nearest > gaps).mean())
    held_out = distances_of(validation, training).min(axis=1)
    pairs = held_out[:, None] > nearest
    assert found.copying()[0] == pytest.approx(pairs.mean())


def test_copies_are_found_and_images_of_the_same_kind_are_not():
    training, validation, samples = draw(GENERATOR, 400), draw(GENERATOR, 400), draw(GENERATOR, 400)
    sets = Training(training, validation)
    honest = sets.copies(samples)
    low, high = honest.copying()[1]
    assert low < 0.5 < high
    copied = samples.copy()
    copied[:200] = training[GENERATOR.permutation(400)[:200]] + GENERATOR.normal(0, 0.01, (200, 6)).astype(np.float32)
    found = sets.copies(copied)
    assert found.authenticity()[0] < honest.authenticity()[0] / 2 + 0.05
    assert found.copying()[1][0] > 0.7
    assert set(np.argsort(found.ratios)[:150]) <= set(range(200))
    assert sets.copies(training[:300]).copying() == (1.0, pytest.approx((0.98, 1.0), abs=0.02))


def test_intervals_hold_the_expected_metric():
    """Samples differ for authenticity; samples and validation images for copying."""
    training, held = draw(np.random.default_rng(0), 200), {name: [] for name in NAMES}
    for number in range(150):
        generator = np.random.default_rng([1, number])
        samples, validation = draw(generator, 120), draw(generator, 100)
        samples[:30] = training[:30] + generator.normal(0, 0.1, (30, 6)).astype(np.float32)
        found = Training(training, validation).copies(samples)
        for name in NAMES:
            held[name].append(getattr(found, name)())
    for name, results in held.items():
        truth = np.mean([value for value, _ in results])
        assert np.mean([low <= truth <= high for _, (low, high) in results]) >= 0.9, name


@pytest.fixture
def sets(tmp_path):
    """Training, validation and samples; the first sample is training image 4, whose file is `4.png`."""
    images = GENERATOR.integers(0, 256, (3, 60, 8, 8, 3), dtype=np.uint8)
    training, validation, samples = images
    samples[0] = training[4]
    folder = tmp_path / "training"
    folder.mkdir()
    for number, pixels in enumerate(training):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    np.savez(tmp_path / "validation.npz", arr_0=validation)
    return open_images(folder), open_images(tmp_path / "validation.npz"), samples


def test_the_record_names_the_samples_nearest_to_training_images(task, projection, sets, tmp_path):
    training, validation, samples = sets
    scored = task([samples], samples[::-1].copy(), metrics=NAMES, views=[tmp_path / "views"])
    scored = dataclasses.replace(scored, training=training, validation=validation)
    (result,) = adm_protocol.score(scored, projection, "adm")
    assert set(NAMES) <= set(result.metrics)
    assert set(NAMES) <= set(result.intervals)
    first = result.copies[0]
    assert (first.sample, first.training, first.name, first.distance, first.ratio) == (0, 4, "4.png", 0.0, 0.0)
    assert [one.ratio for one in result.copies] == sorted(one.ratio for one in result.copies)
    assert (tmp_path / "views" / "copies.png").is_file()
    assert result.views.copies == str(tmp_path / "views" / "copies.png")
    assert result.warnings == ()
    np.savez(tmp_path / "overlapping.npz", arr_0=np.stack([samples[0], samples[0], *samples[2:]]))
    scored = dataclasses.replace(scored, validation=open_images(tmp_path / "overlapping.npz"))
    (result,) = adm_protocol.score(scored, projection, "adm")
    assert result.warnings == ("validation: at least 2 of 60 images have the features of a training image",)


@pytest.mark.parametrize(("given", "missing"), [((), "training"), (("training",), "validation")])
def test_sets_that_a_metric_needs_are_asked_for_before_any_feature(task, projection, sets, given, missing):
    scored = dataclasses.replace(task([sets[2]], sets[2], metrics=("copying",)), **dict.fromkeys(given, sets[0]))
    with pytest.raises(EvaluatorError, match=f"--metrics copying: expected --{missing} IMAGES, got none"):
        adm_protocol.score(scored, projection, "adm")
    assert projection.given == 0


def test_a_training_set_of_three_images_is_refused(task, projection, sets):
    images = sets[0].first(3)
    scored = dataclasses.replace(task([sets[2]], sets[2], metrics=("authenticity",)), training=images)
    with pytest.raises(EvaluatorError, match="training: expected more than 3 images, got 3"):
        adm_protocol.score(scored, projection, "adm")
