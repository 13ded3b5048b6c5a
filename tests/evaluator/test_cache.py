"""The feature cache: computed once, continued, never half-written; features are those of batches of 64."""

import errno
import itertools
import os
import threading

import numpy as np
import pytest

from evaluator.features import CHUNK_IMAGES
from evaluator.features.cache import FeatureCache, Rows, feature_cache
from evaluator.images.image_set import open_images
from sra.common.errors import EvaluatorError

PIXELS = np.random.default_rng(0).integers(0, 256, (3 * CHUNK_IMAGES + 70, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def images(tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=PIXELS)
    return lambda: open_images(tmp_path / "a.npz")


def test_features_are_those_of_batches_of_64_with_a_short_tail(tmp_path, images, projection):
    found = FeatureCache(tmp_path / "cache").features(images(), projection, projection.widths)
    parts = [projection(PIXELS[start : start + 64]) for start in range(0, len(PIXELS), 64)]
    plain = np.concatenate(parts)
    assert found.pool.shape == (len(PIXELS), 12)
    assert found.spatial.shape == (len(PIXELS), 9)
    np.testing.assert_array_equal(found.pool[0 : len(PIXELS)], plain[:, :12])
    np.testing.assert_array_equal(found.spatial[0 : len(PIXELS)], plain[:, 12:])
    for rows in (slice(250, 260), slice(256, 512), slice(800, None), slice(5, 5), slice(0, 1)):
        np.testing.assert_array_equal(found.pool[rows], plain[rows, :12])


def test_batches_are_shared_by_several_networks(tmp_path, images, projection):
    one = FeatureCache(tmp_path / "one").features(images(), projection, projection.widths)
    both, turns = threading.Barrier(2, timeout=60), itertools.count()

    def waits(batch):
        # Of the twelve batches of whole files, nothing comes back before two are worked on.
        if next(turns) < 12:
            both.wait()
        return projection(batch)

    two = FeatureCache(tmp_path / "two", at_once=2).features(images(), waits, projection.widths)
    np.testing.assert_array_equal(one.pool[0 : len(PIXELS)], two.pool[0 : len(PIXELS)])
    np.testing.assert_array_equal(one.spatial[0 : len(PIXELS)], two.spatial[0 : len(PIXELS)])


def test_the_second_time_nothing_is_computed_and_pixels_are_still_examined(tmp_path, images, projection):
    cache = FeatureCache(tmp_path / "cache")
    first = cache.features(images(), projection, projection.widths)
    given = projection.given
    again = images()
    second = cache.features(again, projection, projection.widths)
    assert projection.given == given
    assert again._findings is not None
    np.testing.assert_array_equal(first.pool[0 : len(PIXELS)], second.pool[0 : len(PIXELS)])


def test_pixels_are_read_once(tmp_path, images, projection):
    found, passes = images(), []
    read = found._read
    found._read = lambda: passes.append(1) or read()
    FeatureCache(tmp_path / "cache").features(found, projection, projection.widths)
    assert len(found.sha256()) == 64
    assert found.warnings() == []
    assert len(passes) == 1


def test_a_stopped_extraction_continues(tmp_path, images, projection):
    cache = FeatureCache(tmp_path / "cache")

    def stops(batch):
        if projection.given >= 2 * CHUNK_IMAGES:
            raise KeyboardInterrupt
        return projection(batch)

    with pytest.raises(KeyboardInterrupt):
        cache.features(images(), stops, projection.widths)
    done = projection.given
    assert done == 2 * CHUNK_IMAGES
    cache.features(images(), projection, projection.widths)
    assert projection.given == len(PIXELS)


def test_changed_pixels_find_nothing_from_there_on(tmp_path, images, projection):
    cache = FeatureCache(tmp_path / "cache")
    cache.features(images(), projection, projection.widths)
    given = projection.given
    changed = PIXELS.copy()
    changed[CHUNK_IMAGES, 0, 0, 0] ^= 1
    np.savez(tmp_path / "b.npz", arr_0=changed)
    found = cache.features(open_images(tmp_path / "b.npz"), projection, projection.widths)
    assert projection.given - given == len(PIXELS) - CHUNK_IMAGES
    expected = np.concatenate([projection(changed[s : s + 64]) for s in range(0, len(changed), 64)])
    np.testing.assert_array_equal(found.pool[0 : len(changed)], expected[:, :12])


def test_the_same_bytes_in_another_shape_are_other_images(tmp_path, projection):
    np.savez(tmp_path / "tall.npz", arr_0=PIXELS[:64].reshape(64, 16, 4, 3))
    np.savez(tmp_path / "square.npz", arr_0=PIXELS[:64])
    cache = FeatureCache(tmp_path / "cache")
    for name in ("tall", "square"):
        cache.features(open_images(tmp_path / f"{name}.npz"), projection, projection.widths)
    assert projection.given == 128


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"not an array", None])
def test_a_damaged_file_is_made_again(tmp_path, images, projection, content):
    cache = FeatureCache(tmp_path / "cache")
    whole = cache.features(images(), projection, projection.widths).pool[0:CHUNK_IMAGES]
    file = next(path for path in sorted(cache.folder.iterdir()) if len(np.load(path)) == CHUNK_IMAGES)
    file.write_bytes(file.read_bytes()[:-40] if content is None else content)
    given = projection.given
    again = cache.features(images(), projection, projection.widths)
    assert projection.given - given == CHUNK_IMAGES
    np.testing.assert_array_equal(again.pool[0:CHUNK_IMAGES], whole)


def test_a_full_disk_gives_one_line_and_leaves_no_half_file(tmp_path, images, projection, monkeypatch):
    cache, written = FeatureCache(tmp_path / "cache"), []

    def full(descriptor):
        written.append(descriptor)
        if len(written) == 5:  # file and folder are synced for each
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*cache.*\.npy"):
        cache.features(images(), projection, projection.widths)
    assert [len(np.load(path)) for path in cache.folder.iterdir()] == [CHUNK_IMAGES, CHUNK_IMAGES]


def test_a_graph_that_gives_nan_is_refused(tmp_path, images, projection):
    def broken(batch):
        return projection(batch) * np.float32("nan")

    with pytest.raises(EvaluatorError, match=r"a\.npz: expected finite features"):
        FeatureCache(tmp_path / "cache").features(images(), broken, projection.widths)
    assert not (tmp_path / "cache").exists()


def test_without_a_cache_features_are_gone_afterwards(images, projection):
    with feature_cache(None, "adm", 1) as cache:
        found = cache.features(images(), projection, projection.widths)
        assert isinstance(found.pool, Rows)
        assert found.pool[0:5].shape == (5, 12)
    assert not cache.folder.exists()
