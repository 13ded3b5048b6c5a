"""What every tool checks before it runs: one clear line, exit code 2, no record; and what a record says."""

import errno
import os
import sys

import numpy as np
import pytest

from evaluator.tools.base import Result, silent_stderr
from evaluator.tools.score_record import AdmSettings, FeatureWidths
from sra.common.errors import ToolError

PIXELS = np.random.default_rng(0).integers(0, 256, (130, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def files(tmp_path):
    """A sample set and a reference."""
    np.savez(tmp_path / "samples.npz", arr_0=PIXELS[:100])
    np.savez(tmp_path / "reference.npz", arr_0=PIXELS[30:])
    return ["--samples", tmp_path / "samples.npz", "--reference", tmp_path / "reference.npz"]


SETTINGS = AdmSettings(
    stored_statistics=False, trusted_sample_statistics=False, widths=FeatureWidths(pool=64, spatial=343, classes=10)
)


def scores(task):
    return [Result(metrics={"fid": 1.0}, settings=SETTINGS) for _ in task.samples]


def test_a_record(run_tool, files):
    code, record, _ = run_tool(scores, *files)
    assert code == 0
    assert record.metrics == {"fid": 1.0}
    assert record.intervals == {}
    assert record.settings == SETTINGS
    assert record.samples.count == record.reference.count == 100
    assert len(record.graph.sha256) == 64
    assert record.graph.name == "embedded:digits"
    assert record.warnings == ()
    assert record.error is None


def test_intervals_of_a_tool_that_estimates_them(run_tool, files):
    code, record, _ = run_tool(
        lambda task: [Result(metrics={"fid": 1.0}, settings=None, intervals={"fid": (0.5, 1.5)})], *files
    )
    assert code == 0
    assert record.intervals == {"fid": (0.5, 1.5)}


def test_another_number_of_images(run_tool, files):
    code, record, line = run_tool(scores, *files, "--expect-images", 50_000)
    assert code == 2
    assert record is None
    assert "samples.npz: expected 50000 images" in line
    assert run_tool(scores, *files, "--expect-images", 100)[0] == 0


def test_every_sample_set_has_its_own_number(run_tool, files, tmp_path):
    np.savez(tmp_path / "few.npz", arr_0=np.load(files[1])["arr_0"][:60])
    sets = ["--samples", files[1], tmp_path / "few.npz", "--json", tmp_path / "a.json", tmp_path / "b.json"]
    both = [*sets, *files[2:], "--expect-images"]
    results = [Result(metrics={"fid": 1.0}, settings=None)] * 2
    assert run_tool(lambda task: results, *both, 100, 60)[0] == 0
    code, _, line = run_tool(lambda task: results, *both, 100, 100)
    assert code == 2
    assert "few.npz: expected 100 images" in line
    code, _, line = run_tool(lambda task: results, *both, 100, 60, 100)
    assert code == 2
    assert "--expect-images: expected 1 or 2 numbers, got 3" in line


def test_a_reference_of_another_resolution(run_tool, files, tmp_path):
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((20, 16, 16, 3), np.uint8) + 7)
    wrong = [*files[:3], tmp_path / "large.npz"]
    code, record, line = run_tool(scores, *wrong)
    assert code == 2
    assert record is None
    assert "large.npz: expected images of the samples' size 8 x 8" in line
    assert line.endswith("got 16 x 16")
    code, record, _ = run_tool(scores, *wrong, "--allow-other-size")
    assert code == 0
    assert any("samples are 8 x 8, reference images 16 x 16" in warning for warning in record.warnings)


def test_pickled_statistics_are_refused_unread(run_tool, files, tmp_path):
    (tmp_path / "stats.pt").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    code, record, line = run_tool(scores, *files[:3], tmp_path / "stats.pt")
    assert (code, record) == (2, None)
    assert "stats.pt: expected an .npz file, got a pickle" in line


def test_suspicious_images_are_warned_of(run_tool, tmp_path):
    broken = PIXELS.copy()
    broken[[40, 70, 71]] = 0
    np.savez(tmp_path / "a.npz", arr_0=broken)
    _, record, _ = run_tool(scores, "--samples", tmp_path / "a.npz", "--reference", tmp_path / "a.npz")
    expected = ["2 of 130 images are copies of others", "3 of 130 images are all black; the first is number 40"]
    assert record.warnings == (*expected, *(f"reference: {text}" for text in expected))


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


def test_a_tool_that_cannot_run_leaves_its_reason(run_tool, files):
    def fails(_task):
        raise ToolError("no weights")

    code, record, _ = run_tool(fails, *files)
    assert code == 0
    assert record.error == "no weights"
    assert record.metrics == {}
    assert record.settings is None


def lose_and_fail() -> None:
    with silent_stderr():
        os.write(2, b"lost")
        raise ImportError


def test_only_what_is_written_to_stderr_within_is_lost(capfd):
    os.write(2, b"before ")
    with pytest.raises(ImportError):
        lose_and_fail()
    os.write(2, b"after")
    print(" and", file=sys.stderr)
    assert capfd.readouterr().err == "before after and\n"
