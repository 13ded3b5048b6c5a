"""What every tool checks before it runs: one clear line, exit code 2, no record; and what a record says."""

import errno
import os

import numpy as np
import pytest

PIXELS = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def files(tmp_path):
    """A sample set and a reference."""
    np.savez(tmp_path / "samples.npz", arr_0=PIXELS[:100])
    np.savez(tmp_path / "reference.npz", arr_0=PIXELS[30:])
    return ["--samples", tmp_path / "samples.npz", "--reference", tmp_path / "reference.npz"]


def scores(task):
    return [({"fid": 1.0}, {"how": "so"}) for _ in task.samples]


def test_a_record(run_tool, files):
    code, record, _ = run_tool(scores, *files)
    assert code == 0
    assert record["schema"] == 1
    assert record["metrics"] == {"fid": 1.0}
    assert record["intervals"] == {}
    assert record["settings"] == {"how": "so"}
    assert record["samples"]["count"] == record["reference"]["count"] == 100
    assert len(record["graph"]["sha256"]) == 64
    assert record["graph"]["name"] == "embedded:digits"
    assert record["warnings"] == []


def test_intervals_of_a_tool_that_estimates_them(run_tool, files):
    code, record, _ = run_tool(lambda task: [({"fid": 1.0}, {}, {"fid": [0.5, 1.5]})], *files)
    assert code == 0
    assert record["intervals"] == {"fid": [0.5, 1.5]}


def test_another_number_of_images(run_tool, files):
    code, record, line = run_tool(scores, *files, "--expect-images", 50_000)
    assert code == 2
    assert record is None
    assert line.endswith("samples.npz: 100 images, --expect-images 50000")
    assert run_tool(scores, *files, "--expect-images", 100)[0] == 0


def test_every_sample_set_has_its_own_number(run_tool, files, tmp_path):
    np.savez(tmp_path / "few.npz", arr_0=np.load(files[1])["arr_0"][:60])
    sets = ["--samples", files[1], tmp_path / "few.npz", "--json", tmp_path / "a.json", tmp_path / "b.json"]
    both = [*sets, *files[2:], "--expect-images"]
    results = [({"fid": 1.0}, {})] * 2
    assert run_tool(lambda task: results, *both, 100, 60)[0] == 0
    code, _, line = run_tool(lambda task: results, *both, 100, 100)
    assert code == 2
    assert line.endswith("few.npz: 60 images, --expect-images 100")
    code, _, line = run_tool(lambda task: results, *both, 100, 60, 100)
    assert code == 2
    assert "2 sample sets, 3 --expect-images" in line


def test_a_reference_of_another_resolution(run_tool, files, tmp_path):
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((20, 16, 16, 3), np.uint8) + 7)
    wrong = [*files[:3], tmp_path / "large.npz"]
    code, record, line = run_tool(scores, *wrong)
    assert code == 2
    assert record is None
    assert "large.npz: images are 16 x 16, those of" in line
    assert "8 x 8; a reference of the samples' size is needed, or --allow-other-size" in line
    code, record, _ = run_tool(scores, *wrong, "--allow-other-size")
    assert code == 0
    assert any("the samples are 8 x 8, the reference 16 x 16" in warning for warning in record["warnings"])


def test_suspicious_images_are_warned_of(run_tool, tmp_path):
    broken = PIXELS.copy()
    broken[[40, 70, 71]] = 0
    np.savez(tmp_path / "a.npz", arr_0=broken)
    _, record, _ = run_tool(scores, "--samples", tmp_path / "a.npz", "--reference", tmp_path / "a.npz")
    expected = ["2 of 130 images are copies of others", "3 of 130 images are all black; the first is number 40"]
    assert record["warnings"] == [*expected, *(f"reference: {text}" for text in expected)]


def test_a_full_disk_for_the_record(run_tool, files, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, record, line = run_tool(scores, *files)
    assert code == 2
    assert record is None
    assert ("scores.json: no space left on the disk") in line


def test_a_fault_of_one_set_leaves_no_record(run_tool, files, tmp_path):
    (tmp_path / "bad.npz").write_bytes((tmp_path / "samples.npz").read_bytes()[:9000])
    code, record, line = run_tool(scores, *files[:1], tmp_path / "bad.npz", *files[2:])
    assert code == 2
    assert record is None
    assert "bad.npz: expected a whole .npz file" in line
