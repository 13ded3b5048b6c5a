"""Nothing is lost and nothing is spoilt unseen: checkpoints, non-finite steps, logs, signs of life."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sra.common.errors import DataError, system_trouble
from sra.common.files import replacing, sweep
from sra.common.heartbeat import Heartbeat
from sra.common.npz import write_array
from sra.config import CodecConfig, ConfigError, ModelConfig, Size, SraSettings, TrainConfig, TrainJob
from sra.runtime import job
from sra.training import checkpoint, logbook
from sra.training.logbook import MIN_ROWS, LossWatch
from sra.training.nonfinite import NonFiniteError
from sra.training.train import Trainer

CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
MODEL = ModelConfig(size=Size(depth=2, width=16, heads=2), resolution=32, classes=10, convention="sra")
TRAIN = TrainConfig(
    steps=6, global_batch=8, lr=1e-3, precision="fp32", milestones=(3,), checkpoint_every=1, log_every=1, keep=2
)
JOB = TrainJob(seed=0, codec=CODEC, model=MODEL, train=TRAIN, align=SraSettings(blocks=(1, 2)))


def changed(**changes):
    return dataclasses.replace(JOB, train=dataclasses.replace(TRAIN, **changes))


def steps(out):
    return [int(p.name[-8:]) for p in sorted((out / "checkpoints").iterdir())]


def rows(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# -- checkpoints ------------------------------------------------------------------------------------------------


def test_the_newest_and_every_nth_checkpoint_stay(train, noise_latents, tmp_path):
    train(changed(keep_every=2), noise_latents, tmp_path)
    assert steps(tmp_path) == [2, 4, 5, 6]
    with pytest.raises(ConfigError, match=r"keep_every: expected a multiple of checkpoint_every .* got 6"):
        dataclasses.replace(TRAIN, checkpoint_every=4, keep_every=6)


def test_the_state_may_change_once_save_has_returned(tmp_path):
    tmp_path /= os.fsdecode(b"not \xff UTF-8")
    tmp_path.mkdir()
    writer = checkpoint.Writer(tmp_path, {}, checkpoint.Policy(keep=1))
    tensor = torch.zeros(1000)
    writer.save(1, {"a": [tensor], "b": {"c": tensor}})
    tensor += 1
    writer.join()
    state = checkpoint.load_newest(tmp_path, {})
    assert not state["a"][0].any()
    assert not state["b"]["c"].any()


def test_without_memory_for_a_copy_the_state_itself_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "free_memory", lambda: 3999)
    monkeypatch.setattr(checkpoint, "to_host", pytest.fail)
    writer = checkpoint.Writer(tmp_path, {}, checkpoint.Policy(keep=1))
    writer.save(1, {"a": [torch.ones(1000)]})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"], "before `save` returns"
    assert "step 1: expected 0.0 GB of free memory for a copy, got 0.0" in capsys.readouterr().out
    assert checkpoint.load_newest(tmp_path, {})["a"][0].all()
    writer.folder = tmp_path / "step-00000001" / "state.pt"
    with pytest.raises(NotADirectoryError):
        writer.save(2, {"a": [torch.ones(1000)]})


def test_a_checkpoint_is_read_as_a_mapped_file_that_training_lets_go(train, noise_latents, tmp_path):
    checkpoint.write(tmp_path / "other", 3, {"format": checkpoint.FORMAT, "settings": {}, "a": [torch.arange(1000.0)]})
    state = checkpoint.load_newest(tmp_path / "other", {})
    assert torch.equal(state["a"][0], torch.arange(1000.0))
    assert str(tmp_path / "other") in Path("/proc/self/maps").read_text()
    train(JOB, noise_latents, tmp_path / "run")
    trainer = Trainer(changed(steps=8), noise_latents, tmp_path / "run")
    trainer.resume()
    assert trainer.step == 6
    assert str(tmp_path / "run" / "checkpoints") not in Path("/proc/self/maps").read_text()


def test_a_disk_that_takes_a_part_at_a_time_gets_all(tmp_path):
    class Slow(io.RawIOBase):
        def __init__(self):
            self.content = b""

        def writable(self):
            return True

        def write(self, content):
            self.content += bytes(content[:7])
            return min(7, len(content))

    slow = Slow()
    hashing = checkpoint.HashingFile(slow)
    assert hashing.write(b"0123456789" * 5) == 50
    assert slow.content == b"0123456789" * 5
    assert hashing.digest.hexdigest() == hashlib.sha256(slow.content).hexdigest()


def test_a_save_leaves_what_it_took(tmp_path):
    writer = checkpoint.Writer(tmp_path / "checkpoints", {}, checkpoint.Policy(keep=1))
    writer.save(3, {"a": torch.zeros(1000)})
    writer.join()
    took = json.loads((tmp_path / "checkpoints.json").read_text())
    assert took["step"] == 3
    assert took["bytes"] == (tmp_path / "checkpoints" / "step-00000003" / "state.pt").stat().st_size
    assert took["seconds"] > 0


def test_another_runs_checkpoint_is_refused_and_a_longer_run_is_not(train, noise_latents, tmp_path):
    train(JOB, noise_latents, tmp_path)
    with pytest.raises(DataError, match=r"step-00000006: expected .* train\.lr 0\.002, got 0\.001"):
        train(changed(lr=2e-3), noise_latents, tmp_path)
    assert train(changed(steps=8, log_every=4, accumulate=2), noise_latents, tmp_path).step == 8


def test_a_longer_run_is_the_same_run(train, noise_latents, tmp_path):
    train(changed(steps=4, milestones=(), log_every=3), noise_latents, tmp_path / "extended")
    extended = train(changed(steps=6), noise_latents, tmp_path / "extended")
    whole = train(changed(steps=6), noise_latents, tmp_path / "whole")
    assert extended.weights_file(6).read_bytes() == whole.weights_file(6).read_bytes()
    assert extended.weights_file(3).read_bytes() == whole.weights_file(3).read_bytes()


def test_a_milestone_is_added_without_training_past_it_again(noise_latents, tmp_path, monkeypatch):
    Trainer(JOB, noise_latents, tmp_path).run()
    before, checkpoints = rows(tmp_path), steps(tmp_path)
    trainer = Trainer(changed(milestones=(2, 3)), noise_latents, tmp_path)
    trained, update = [], trainer.state.update
    monkeypatch.setattr(trainer.state, "update", lambda step, *rest: trained.append(step) or update(step, *rest))
    trainer.run()
    assert trained == [0, 1]
    assert (trainer.step, rows(tmp_path)) == (6, before)
    assert set(checkpoints) <= set(steps(tmp_path))
    Trainer(changed(steps=2, milestones=()), noise_latents, tmp_path / "short").run()
    short = tmp_path / "short" / "weights" / "step-00000002.safetensors"
    assert trainer.weights_file(2).read_bytes() == short.read_bytes()


def test_a_shorter_run_keeps_what_the_longer_one_left(train, noise_latents, tmp_path):
    train(JOB, noise_latents, tmp_path)
    before = rows(tmp_path)
    shorter = train(changed(steps=4, milestones=()), noise_latents, tmp_path)
    assert shorter.weights_file(4).is_file()
    assert (rows(tmp_path), {5, 6} <= set(steps(tmp_path))) == (before, True)
    again = train(changed(steps=8), noise_latents, tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == [*range(1, 9)]
    assert train(changed(steps=8), noise_latents, tmp_path / "whole").weights_file(8).read_bytes() == (
        again.weights_file(8).read_bytes()
    )


def test_a_checkpoint_is_read_wherever_the_codec_lies(train, noise_latents, tmp_path):
    train(JOB, noise_latents, tmp_path)
    moved = dataclasses.replace(JOB, codec=dataclasses.replace(CODEC, path="/elsewhere"))
    assert checkpoint.load_newest(tmp_path / "checkpoints", Trainer(moved, noise_latents, tmp_path).identity())


def test_a_checkpoint_of_another_format_is_refused(train, noise_latents, tmp_path, monkeypatch):
    train(JOB, noise_latents, tmp_path)
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    with pytest.raises(DataError, match="step-00000006: expected checkpoint format 2, got 1"):
        train(JOB, noise_latents, tmp_path)


def test_weights_that_have_gone_are_made_again(train, noise_latents, tmp_path):
    one = train(changed(keep_every=1), noise_latents, tmp_path)
    files = [one.weights_file(step) for step in (3, 6)]
    before = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    again = train(changed(keep_every=1), noise_latents, tmp_path)
    assert [path.read_bytes() for path in files] == before
    files[1].unlink()
    train(changed(keep_every=1), noise_latents, tmp_path)
    assert files[1].read_bytes() == before[1]
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert again.step == 6


def test_weights_that_are_there_stay(train, noise_latents, tmp_path):
    """On other hardware the same steps may be rounded differently: samples and weights of a step belong together."""
    first = train(JOB, noise_latents, tmp_path).weights_file(3)
    shutil.rmtree(tmp_path / "checkpoints")
    first.write_bytes(b"sampled")
    train(changed(steps=7), noise_latents, tmp_path)
    assert first.read_bytes() == b"sampled"


def test_every_damaged_checkpoint_is_refused(train, noise_latents, tmp_path):
    train(JOB, noise_latents, tmp_path)
    for place in (tmp_path / "checkpoints").iterdir():
        (place / "state.pt").write_bytes(b"")
    with pytest.raises(DataError, match="every checkpoint is damaged"):
        train(JOB, noise_latents, tmp_path)


def test_a_full_disk_ends_in_one_line_and_the_run_continues(train, noise_latents, tmp_path, monkeypatch):
    whole = train(JOB, noise_latents, tmp_path / "whole")
    written, write = [], checkpoint.HashingFile.write

    def full(self, content):
        written.append(len(content))
        if sum(written) > 3 * size:
            self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.error
        return write(self, content)

    size = next((tmp_path / "whole" / "checkpoints").rglob("state.pt")).stat().st_size
    monkeypatch.setattr(checkpoint.HashingFile, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        train(JOB, noise_latents, tmp_path / "parts")
    assert "no space left on the disk; nothing finished is lost" in system_trouble(caught.value)
    # Two whole checkpoints, and nothing of the one that failed.
    assert steps(tmp_path / "parts") == [2, 3]
    assert not list((tmp_path / "parts").rglob(".*"))
    monkeypatch.undo()
    parts = train(JOB, noise_latents, tmp_path / "parts")
    for a, b in zip(whole.state.network.parameters(), parts.state.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_a_killed_process_left_is_removed(tmp_path):
    with replacing(tmp_path / "shards" / "a.npz") as temporary:
        left = temporary.name
    (tmp_path / "shards" / left).write_text("half")
    (tmp_path / ".lock").write_text("1 host")
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".lock", "a.npz", "shards"]


def test_a_failed_write_names_the_file_and_keeps_its_message(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            write_array(tmp_path / "a.npy", np.zeros(2**14))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert system_trouble(failed.value).startswith(f"{tmp_path / 'a.npy'}: larger than the limit")
    with pytest.raises(OSError, match=r"^image file is truncated$"), replacing(tmp_path / "b.png"):
        raise OSError("image file is truncated")
    assert not list(tmp_path.iterdir())


# -- steps that are not finite ----------------------------------------------------------------------------------


def spoil(trainer, step, monkeypatch, part):
    """Let one step's losses or gradients be NaN."""
    forward = trainer.state.module.forward

    def spoilt(x, y, randoms, teacher, epoch):
        losses = forward(x, y, randoms, teacher, epoch)
        if trainer.step != step:
            return losses
        values = {"total": losses.total * float("nan")}
        if part == "generation":
            values["generation"] = losses.generation * torch.tensor([float("nan")] + [1.0] * 7)
        if part == "alignment":
            values["alignment"] = losses.alignment * float("inf")
        return dataclasses.replace(losses, **values)

    monkeypatch.setattr(trainer.state.module, "forward", spoilt)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("generation", r"generation loss is not finite: generation loss \S+ in \[.*\], 1 of 8 not finite"),
        ("alignment", "alignment loss is not finite: generation loss .* alignment loss of 1 values, none finite"),
        ("gradient", r"gradient is not finite: .*; gradient norm nan, not finite in \d+ of \d+ parameters"),
    ],
)
def test_which_part_is_not_finite(part, text, noise_latents, tmp_path, monkeypatch):
    trainer = Trainer(JOB, noise_latents, tmp_path)
    before = [p.clone() for p in trainer.state.network.parameters()]
    spoil(trainer, 0, monkeypatch, part)
    with pytest.raises(NonFiniteError, match=f"training step 1: {text}"):
        trainer.run()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.state.network.parameters(), strict=True))


def test_a_step_that_is_skipped_changes_nothing_and_is_counted(noise_latents, tmp_path, monkeypatch, capsys):
    trainer = Trainer(changed(on_nonfinite="skip"), noise_latents, tmp_path)
    spoil(trainer, 2, monkeypatch, "gradient")
    trainer.run()
    assert "step 3 is skipped, 1 so far: gradient norm nan" in capsys.readouterr().out
    assert [row["skipped"] for row in rows(tmp_path)] == [0, 0, 1, 1, 1, 1]
    assert all(bool(p.isfinite().all()) for p in trainer.state.network.parameters())
    state = checkpoint.load_newest(tmp_path / "checkpoints", trainer.identity())
    assert state["skipped"] == 1
    assert int(state["optimizer"]["state"][0]["step"]) == 5


def test_a_diverging_alignment_loss_is_warned_of_once():
    watch = LossWatch()
    found = [watch.warnings({"step": k, "alignment": 1.0 / (1 + k)}) for k in range(MIN_ROWS + 30)]
    assert not any(found)
    found = [watch.warnings({"step": k, "alignment": 0.3}) for k in range(100, 140)]
    assert sum(map(len, found)) == 1
    text = next(filter(None, found))[0]
    assert "training may be diverging: average alignment loss 0.0" in text
    assert text.endswith("now: alignment loss 0.3")
    assert not LossWatch().warnings({"step": 1, "alignment": None})


def test_norms_that_run_away_are_warned_of_once_with_the_numbers():
    """Growth in proportion to the steps is that of a sound training; an exponential is not."""
    watch = LossWatch()
    sound = [{"step": k, "alignment": 0.3, "student_norm": 20.0 + k, "teacher_norm": 24.0 + 2 * k} for k in range(400)]
    assert not any(watch.warnings(row) for row in sound)
    away = [{"step": k, "alignment": 0.3, "student_norm": 420 * 1.02 ** (k - 400)} for k in range(400, 520)]
    found = [text for row in away for text in watch.warnings(row)]
    assert len(found) == 1
    assert re.search(
        r"average norm of the student's features [\d.]+, at least 3 times that after half as many", found[0]
    )
    assert "now: alignment loss 0.3, norm of the student's features " in found[0]


def test_a_bounded_loss_below_zero_does_not_run_away():
    watch = LossWatch()
    assert not any(watch.warnings({"step": k, "alignment": -0.9 + min(k, 60) / 100}) for k in range(200))


def test_a_collapsed_loss_scale_is_warned_of_with_its_number():
    watch = LossWatch()
    scales = [65536.0, 1.0, 0.5, 0.25, 2.0, 0.5]
    found = [watch.warnings({"step": k, "loss_scale": scale}) for k, scale in enumerate(scales)]
    assert [len(w) for w in found] == [0, 0, 1, 0, 0, 1]
    assert found[2] == ["step 2: the fp16 loss scale has collapsed to 0.5"]


# -- logs and signs of life -------------------------------------------------------------------------------------


def test_the_log_is_the_mean_over_accumulated_parts(train, noise_latents, tmp_path):
    train(changed(steps=2, milestones=()), noise_latents, tmp_path / "one")
    train(changed(steps=2, milestones=(), accumulate=4), noise_latents, tmp_path / "four")
    for name in ("loss", "generation", "alignment"):
        one, four = ([row[name] for row in rows(tmp_path / place)] for place in ("one", "four"))
        assert one == pytest.approx(four, rel=1e-5)


def test_a_tracker_without_its_package_is_named(noise_latents, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"train\.trackers: wandb needs the Python package 'wandb', which is not"):
        Trainer(changed(trackers=("wandb",)), noise_latents, tmp_path)


def test_trackers_get_every_logged_row(noise_latents, tmp_path, monkeypatch):
    trainer = Trainer(changed(steps=2, milestones=()), noise_latents, tmp_path)
    seen = []
    monkeypatch.setattr(trainer.accelerator, "log", lambda values, step: seen.append((step, values)))
    trainer.run()
    assert [step for step, _ in seen] == [1, 2]
    numbers = {
        "loss",
        "generation",
        "alignment",
        "student_norm",
        "teacher_norm",
        "grad_norm",
        "lr",
        "skipped",
        "seconds",
    }
    assert set(seen[0][1]) - {"memory_bytes", "watts"} == numbers


def test_memory_is_that_of_the_runs_own_gpu(monkeypatch):
    peaks = {torch.device("cuda", 0): 10, torch.device("cuda", 1): 20}
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.update({device: 0}))
    assert logbook.memory_peak(torch.device("cuda", 1)) == {"memory_bytes": 20}
    logbook.reset_memory_peak(torch.device("cuda", 1))
    assert [logbook.memory_peak(device) for device in peaks] == [{"memory_bytes": 10}, {"memory_bytes": 0}]
    assert logbook.memory_peak(torch.device("cpu")) == {}


def test_a_job_leaves_a_heartbeat_and_its_end(tmp_path):
    code = """
import sys
from sra.common.errors import DataError
from sra.runtime import job
def main(arguments):
    progress = job.Progress("two", 4, " images")
    progress.update(4)
    if arguments[-1] == "--bad":
        raise DataError("x.png: not an image")
job.run(main)
"""
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "stage.json").write_text("{}")
    for extra, exit_code, state in (([], 0, "ended"), (["--bad"], 2, "failed")):
        command = [sys.executable, "-c", code, "--out", str(tmp_path / "one"), str(tmp_path / "two"), *extra]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path.cwd(), check=False)
        assert done.returncode == exit_code, done.stderr
        assert not (tmp_path / "one").exists()
        beat = json.loads((tmp_path / "two" / "heartbeat.json").read_text())
        assert (beat["state"], beat["step"], beat["total"], beat["unit"]) == (state, 4, 4, "images")
        assert beat["message"] == ("x.png: not an image" if extra else None)


def test_heartbeats_are_rare(tmp_path):
    heart = Heartbeat(tmp_path, 10, " steps")
    heart.beat(1, None)
    first = heart.path.read_text()
    heart.beat(2, 1.0)
    assert heart.path.read_text() == first
    heart.beat(10, 1.0)
    assert json.loads(heart.path.read_text())["step"] == 10


def test_a_job_whose_reader_died_goes_on_in_silence(tmp_path):
    code = (
        "import pathlib, time; from sra.runtime import job\n"
        "def main(arguments):\n"
        "    print('a', flush=True); time.sleep(1)\n"
        "    [print('b', flush=True) for _ in range(3)]; pathlib.Path(arguments[0]).touch()\n"
        "job.run(main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "done")], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert process.stdout.readline() == b"a\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "done").exists()


def test_a_worker_whose_launcher_has_gone_stops_at_once():
    code = "from sra.runtime import job; job.run(lambda arguments: print('worked'))"
    environment = {**os.environ, job.LAUNCHER_VARIABLE: "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 75
    assert "worked" not in done.stdout
