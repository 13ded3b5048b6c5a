"""With several processes on a machine, one compiles the training step and the others, which wait, find its code."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import distributed as dist

from sra.config import CodecConfig, ModelConfig, Size, SraSettings, TrainConfig, TrainJob
from sra.perf.workloads import TorchEngine
from sra.runtime.distributed import CpuProcessGroup
from sra.runtime.random_streams import Randoms
from sra.runtime.speed import parse_speed
from sra.training.step import TrainState

CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
MODEL = ModelConfig(size=Size(depth=2, width=16, heads=2), resolution=32, classes=10, convention="sra")
TRAIN = TrainConfig(steps=1, global_batch=8, precision="fp32", accumulate=2)
JOB = TrainJob(seed=0, codec=CODEC, model=MODEL, train=TRAIN, align=SraSettings(blocks=(1, 2)))
PROCESSES = 2


def process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    began, compilations = [], []

    def backend(graph, inputs):
        began.append(time.time())
        time.sleep(0.2)
        compilations.append(time.time())
        return graph.forward

    compile_module = torch.nn.Module.compile
    torch.nn.Module.compile = lambda module, **options: compile_module(module, backend=backend, **options)
    state = TrainState(
        JOB, TorchEngine("fp32", torch.device("cpu"), bucket_views=True), parse_speed("compile=on").resolved("cpu")
    )
    CpuProcessGroup().one_per_machine_first(state.rehearse)
    rehearsed = len(began)
    positions = torch.arange(2)
    batch = (torch.ones(2, 4, 8, 8), positions, Randoms(0, positions))
    result = state.update(0, 0.0, [batch, batch])
    found = {"began": began, "ended": compilations, "rehearsed": rehearsed, "norm": float(result.norm)}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_one_process_compiles_before_the_others(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    environment["WORLD_SIZE"] = str(PROCESSES)
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)], env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(PROCESSES)
    ]
    assert [process.wait(timeout=300) for process in running] == [0] * PROCESSES
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(PROCESSES))
    assert len(first["began"]) == len(second["began"]) == 2  # with gradients, and the teacher's
    assert (first["rehearsed"], second["rehearsed"]) == (2, 0)
    assert max(first["ended"]) < min(second["began"])
    assert first["norm"] == second["norm"]


def test_a_training_run_begins_with_it(small, noise_latents, train, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setenv("SRA_BENCH_SPEED", "compile=on")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: None)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(CpuProcessGroup, "one_per_machine_first", lambda _, work: begun.append(work.__name__))
    train(small.job, noise_latents, tmp_path)
    assert begun == ["rehearse"]


def test_a_rehearsal_changes_nothing():
    def trained(rehearse):
        job = dataclasses.replace(JOB, train=dataclasses.replace(TRAIN, accumulate=1, global_batch=2))
        engine = TorchEngine("fp32", torch.device("cpu"), bucket_views=True)
        state = TrainState(job, engine, parse_speed("compile=off").resolved("cpu"))
        if rehearse:
            state.rehearse()
        positions = torch.arange(2)
        state.update(0, 0.0, [(torch.ones(2, 4, 8, 8), positions, Randoms(0, positions))])
        return [*state.module.parameters(), *state.ema.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(trained(rehearse=True), trained(rehearse=False), strict=True))


if __name__ == "__main__":
    process(int(os.environ["RANK"]), Path(sys.argv[1]))
