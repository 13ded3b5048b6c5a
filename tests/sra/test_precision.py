"""What `precision` lets a GPU do to float32 numbers: one meaning for every job. Torch's switches need no GPU."""

import dataclasses
import json

import pytest
import torch

from sra.common.errors import ConfigError
from sra.config import SampleConfig, SampleJob, StandInJob
from sra.interop.standin import make_weights
from sra.model.vae import load_codec
from sra.parity.compare import Mode
from sra.perf.__main__ import main as perf
from sra.runtime.distributed import CpuProcessGroup
from sra.sampling.sample import Sampler
from sra.training.train import Trainer

ALLOWED = {"fp32": False, "tf32": True}


BACKENDS = (torch.backends.cuda.matmul, torch.backends.cudnn)


@pytest.fixture(params=ALLOWED)
def precision(request):
    """The switches stand on the wrong side when a job starts, and where they stood when the test ends."""
    before = [backend.allow_tf32 for backend in BACKENDS]
    for backend in BACKENDS:
        backend.allow_tf32 = not ALLOWED[request.param]
    yield request.param
    for backend, value in zip(BACKENDS, before, strict=True):
        backend.allow_tf32 = value


def check(precision):
    assert [backend.allow_tf32 for backend in BACKENDS] == [ALLOWED[precision]] * 2


def test_training(precision, small, digit_latents, tmp_path):
    job = dataclasses.replace(small.job, train=dataclasses.replace(small.train, precision=precision))
    Trainer(job, digit_latents, tmp_path)
    check(precision)
    record = json.loads((tmp_path / "speed.json").read_text())
    assert record["precision"] == "fp32"  # a CPU has no TF32
    assert record["attention_kernel"] == "flashforcpu"


def test_fp16_is_not_trained_in_float32(small, digit_latents, tmp_path):
    job = dataclasses.replace(small.job, train=dataclasses.replace(small.train, precision="fp16"))
    with pytest.raises(ConfigError, match=r"train\.precision: expected .*without a GPU, got 'fp16'"):
        Trainer(job, digit_latents, tmp_path)


def test_sampling(precision, small, tmp_path):
    settings = SampleConfig(steps=2, images=2, batch=2, precision=precision)
    make_weights(StandInJob(seed=0, codec=small.codec, model=small.model), tmp_path)
    weights = str(tmp_path / "weights.pt")
    job = SampleJob(seed=0, codec=small.codec, model=small.model, sample=settings, checkpoint=weights)
    Sampler(job, tmp_path, load_codec(small.codec), CpuProcessGroup()).run()
    check(precision)
    record = json.loads((tmp_path / "samples.json").read_text())
    assert record["precision"] == "fp32"
    assert record["attention_kernel"] == "flashforcpu"


def test_parity(precision):
    Mode(torch.device("cpu"), precision).start()
    check(precision)


@pytest.mark.parametrize("arguments", [["train"], ["sample", "--codec", "none", "--nfe", "2"]], ids=["train", "sample"])
def test_perf(precision, arguments, tmp_path):
    network = ["--model", "2x16x2/2", "--resolution", "64", "--batch", "2", "--steps", "1", "--warmup", "1"]
    where = ["--folder", str(tmp_path / "data"), "--out", str(tmp_path / "out.json")]
    align = ["--align", "none"] if arguments == ["train"] else []
    perf([*arguments, *network, *align, "--precision", precision, *where])
    check(precision)
    assert {row["precision"] for row in json.loads((tmp_path / "out.json").read_text())["results"]} == {"fp32"}
