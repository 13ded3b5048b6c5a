"""`python -m sra.perf`: what it prints, keeps and refuses."""

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sra import embedded
from sra.common.errors import ConfigError, UserError
from sra.config import CodecConfig
from sra.data.latents import PackedLatents
from sra.perf import results
from sra.perf.__main__ import main, on_processes
from sra.perf.cases import align_of, mode_of, model_of
from sra.perf.workloads import TorchEngine
from sra.runtime.speed import Speed
from sra.training.batches import Batches
from sra.training.step import TrainState

SMALL = ["--model", "2x16x2/2", "--resolution", "64", "--batch", "2", "--steps", "2", "--warmup", "1"]
CODEC = CodecConfig()
ROOT = Path(__file__).parents[2]


def call(tmp_path, *arguments):
    main([*arguments, "--folder", str(tmp_path / "data"), "--out", str(tmp_path / "out.json")])
    return json.loads((tmp_path / "out.json").read_text())


def test_training_compares_two_modes(tmp_path, capsys):
    found = call(tmp_path, "train", *SMALL, "--blocks", "1", "2", "--compare")
    assert found["schema"] == 1
    assert found["machine"].keys() == {"device", "memory_bytes", "torch", "python", "system", "cores", "threads"}
    slow, fast = found["results"]
    assert set(fast["parts"]) == {"data", "student", "teacher", "backward", "optimizer", "ema", "host"}
    assert (slow["mode"], fast["mode"]) == ("reference", "fast")
    assert (slow["speed"]["teacher"], fast["speed"]["teacher"]) == ("whole", "needed")
    assert fast["images_per_second"] == pytest.approx(2e3 / fast["milliseconds"])
    # No peak is known for a CPU, and two subjects share its memory: neither is made up.
    assert fast["mfu"] is None
    assert fast["memory_bytes"] is None
    (ratio,) = found["ratios"]
    assert (ratio["slow"], ratio["fast"]) == ("reference sra", "fast sra")
    assert "fast sra is" in capsys.readouterr().out


def test_what_is_measured_takes_the_steps_of_the_job(train, small, digit_latents, tmp_path):
    trainer = train(small.job, digit_latents, tmp_path)
    speed = Speed().resolved("cpu")
    engine = TorchEngine("fp32", torch.device("cpu"), bucket_views=True)
    state = TrainState(small.job, engine, speed)
    batches = Batches(small.job, PackedLatents(digit_latents), engine, speed)
    for step in range(trainer.total):
        state.update(step, step / trainer.steps_per_epoch, batches.of_step(step))
    pairs = zip(state.ema.parameters(), trainer.state.ema.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_two_alignments_are_measured_in_turn(tmp_path):
    found = call(tmp_path, "train", *SMALL, "--blocks", "1", "2", "--align", "dts-as", "sra")
    assert [row["align"] for row in found["results"]] == ["dts-as", "sra"]
    assert found["ratios"][0]["slow"] == "fast dts-as"


def test_sampling_counts_its_evaluations(tmp_path):
    found = call(tmp_path, "sample", *SMALL, "--codec", "none", "--nfe", "4", "--compare")
    slow, fast = found["results"]
    # The step from t = 1 is outside of the interval.
    assert slow["evaluations_per_image"] == fast["evaluations_per_image"] == 7
    assert not fast["decoded"]


def test_latents_and_the_table_for_plans(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SRA_BENCH_PERF", str(tmp_path / "perf.json"))
    few = ["--batch", "4", "--steps", "2", "--warmup", "1"]
    found = call(tmp_path, "latents", "--count", "20", "--resolution", "64", "--compare", *few)
    assert [row["mode"] for row in found["results"]] == ["reference", "fast"]
    codec = ["--codec", str(embedded.CODEC)]
    with monkeypatch.context() as patch:
        patch.setattr("sra.perf.workloads.CODEC", dataclasses.replace(CODEC, factor=4))
        call(tmp_path, "latents", "--count", "20", "--resolution", "32", *few, *codec, "--save")
    for _ in range(2):
        call(tmp_path, "train", *SMALL, "--blocks", "1", "2", "--save")
    call(tmp_path, "sample", *SMALL, "--codec", "none", "--nfe", "3", "--save")
    table = json.loads((tmp_path / "perf.json").read_text())
    assert table.keys() == {"schema", "device", "device_bytes", "train", "sample", "latents"}
    (encoded,) = table["latents"]
    assert encoded.keys() == {"resolution", "seconds_per_image"}
    (train,) = table["train"]
    network = {"family": "sit", "size": "2x16x2", "patch": 2, "resolution": 64, "precision": "fp32"}
    assert network.items() <= train.items()
    measured = {"align", "images_per_device", "seconds_per_image", "memory_bytes", "keeps_gradients"}
    assert train.keys() - network.keys() == measured
    (sampled,) = table["sample"]
    assert sampled["seconds_per_evaluation"] > 0
    assert sampled.keys() - network.keys() == {"seconds_per_evaluation", "seconds_per_decode", "memory_bytes"}
    (tmp_path / "perf.json").write_text("{")
    with pytest.raises(UserError, match=r"perf\.json: expected a cost table"):
        results.save(results.Document(time="wall", machine={"device": "x"}))


def test_bad_arguments_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"--model: expected .*SIZE/PATCH.* got 'huge'"):
        call(tmp_path, "train", "--model", "huge")
    with pytest.raises(ConfigError, match="--compare: expected two modes"):
        call(tmp_path, "train", "--compare", "fast", "fast", "reference")
    with pytest.raises(ConfigError, match="--time: expected wall"):
        call(tmp_path, "train", *SMALL, "--time", "processor", "--save")
    with pytest.raises(ConfigError, match=r"align\.blocks"):
        call(tmp_path, "train", *SMALL, "--blocks", "1", "9")


def test_peaks_are_those_of_the_device_and_precision():
    assert results.peak_of("NVIDIA H100 80GB HBM3", "bf16") == 2 * results.peak_of("NVIDIA H100 80GB HBM3", "tf32")
    assert results.peak_of("NVIDIA H100 80GB HBM3", "fp32") is None
    assert results.peak_of("CPU", "fp16") is None


def test_it_needs_torch_and_little_more():
    """A machine with a GPU and nothing installed can measure: neither accelerate nor what the stages need."""
    heavy = "('accelerate', 'diffusers', 'safetensors', 'tensorflow', 'cleanfid', 'sklearn')"
    code = f"import sys; import sra.perf.__main__; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ast.literal_eval(done.stdout) == []


def test_a_size_without_published_blocks_is_aligned_where_b_is():
    found = {
        (family, size): align_of("sra", None, model_of(size, family, 256), mode_of("fast", "cpu")).blocks
        for family, size in (("sit", "S/2"), ("dit", "S/2"), ("sit", "XL/2"), ("sit", "2x16x2/2"))
    }
    assert list(found.values()) == [(3, 8), (3, 7), (8, 20), (1, 2)]


def test_a_process_that_fails_is_told_in_one_line(monkeypatch):
    stderr = "Traceback\n[rank1]: RuntimeError: the sum is wrong\nE1130 failed (exitcode: 1)\n=====\n"
    done = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(UserError, match=r"^sra\.perf in 2 processes: RuntimeError: the sum is wrong$"):
        on_processes(2, "sra.perf")


@pytest.mark.slow
def test_scaling_starts_processes_that_train_together(tmp_path):
    found = call(tmp_path, "scaling", *SMALL, "--blocks", "1", "2", "--processes", "2", "--repeats", "1")
    (row,) = found["scaling"]
    assert (row["processes"], row["efficiency"]) == (2, 1)
    assert found["network"]["processes"] == 2
    assert found["network"]["images_per_second"] == row["images_per_second"]
