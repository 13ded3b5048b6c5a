"""Count kernels, copies, waits and memory of one training step and of one sampled batch; runs on `runtime.c` only.

`python count.py train|sample FOLDER MODEL` prints a JSON object; MODEL is XL/2, or `smoke`, the smoke manifest's with
SRA.
"""

import ctypes
import dataclasses
import json
import sys
from pathlib import Path

import torch

from benchmark.manifest.schema import load
from sra.config import SampleJob, TrainJob
from sra.perf.cases import CODEC, align_of, mode_of, model_of
from sra.perf.workloads import NoCodec, Sampling, Training

ROOT = Path(__file__).parents[2]
DEVICE = torch.device("cuda", 0)
COUNTERS = ("triton", "kernels", "products", "copies", "fills", "waits", "graphs")
SHORT = [
    "train.warmup_steps=0",
    "train.ema=0.9999",
    "train.precision=bf16",
    "sample.precision=bf16",
    "sample.steps=4",
    "sample.batch=64",
]


def counters() -> list[int]:
    runtime = ctypes.CDLL(None)
    return [ctypes.c_long.in_dll(runtime, f"count_{name}").value for name in COUNTERS]


def subject(what: str, folder: Path, model: str):
    (run,) = load(ROOT / "manifests" / "smoke.yaml", SHORT, ["sra"]).runs
    mode = mode_of("fast", "cuda")
    if model != "smoke":
        network = model_of(model, "sit", 256)
        run = dataclasses.replace(run, model=network, codec=CODEC, align=align_of("sra", None, network, mode))
    if what == "train":
        job = TrainJob(seed=0, codec=run.codec, model=run.model, train=run.train, align=run.align)
        return Training(job, mode, folder, DEVICE)
    job = SampleJob(seed=0, codec=run.codec, model=run.model, sample=run.sample, checkpoint="")
    return Sampling(job, mode, NoCodec(DEVICE), folder)


def main(what: str, folder: str, model: str) -> None:
    # cuDNN asks the driver for more than there is.
    torch.backends.cudnn.enabled = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    work = subject(what, Path(folder), model)
    rounds = []
    for number in range(5):  # `graph=step` records the third
        before = counters()
        if what == "train":  # without the flag that is read at logged steps
            work.state.update(number, 0.0, work.batches.of_step(number))
        else:
            work.run(1)
        rounds.append([after - b for after, b in zip(counters(), before, strict=True)])
        if number == 1:  # until here, it has compiled, which takes memory of its own
            torch.cuda.reset_peak_memory_stats()
    found = dict(zip(COUNTERS, rounds[-1], strict=True))
    print(json.dumps({**found, "memory": torch.cuda.max_memory_allocated() / 2**20}))


if __name__ == "__main__":
    main(*sys.argv[1:])
