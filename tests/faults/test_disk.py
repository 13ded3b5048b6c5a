"""A full disk and missing data: one line of error, nothing lost, the same command continues."""

from pathlib import Path

SMALL, MIDDLE = 50_000, 5_000_000
"""Bytes: less than a shard of samples; less than a checkpoint, more than anything before it."""


def test_full_disk_and_vanished_data(suite, uninterrupted: Path, copy) -> None:
    out = copy("stages/latents-*", "stages/train-*", "stages/sample-*", "stages/score-*", "cache")

    picture = next(out.glob("stages/images-*/images/00000/*.png"))
    picture.rename(picture.with_suffix(".away"))
    line = suite.Attempt(out).refused()
    assert line.startswith("error: stage latents: ")
    assert picture.name in line
    picture.with_suffix(".away").rename(picture)

    line = suite.Attempt(out, file_limit=MIDDLE).refused()
    assert "state.pt: larger than the limit on a file's size; nothing finished is lost" in line
    assert line.startswith("error: stage train-sra: ")
    assert not list(out.glob("stages/train-*/checkpoints/*"))
    suite.Attempt(out, "--until", "train").succeeds()

    # A latent that is cut short is noticed and made anew; training, which is done, is not asked again.
    moments = next(out.glob("stages/latents-*/moments.npy"))
    moments.write_bytes(moments.read_bytes()[:1000])
    attempt = suite.Attempt(out, "--until", "latents")
    attempt.succeeds()
    assert "[latents] to run: its outputs are missing or damaged" in attempt.text()

    line = suite.Attempt(out, file_limit=SMALL).refused()
    assert "larger than the limit on a file's size" in line
    assert line.startswith("error: stage sample: ")
    suite.Attempt(out, "--until", "sample").succeeds()

    line = suite.Attempt(out, file_limit=SMALL).refused()
    assert line.startswith("error: stage score-")
    suite.Attempt(out).succeeds()
    assert suite.results(out) == suite.results(uninterrupted)
