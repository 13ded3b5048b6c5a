"""Training on one, two and four real processes through the launcher: one trace, one checkpoint format, elastic."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from sra.common.errors import Stopped, UserError
from sra.config import (
    CodecConfig,
    ConfigError,
    DispersiveSettings,
    ModelConfig,
    Size,
    SraSettings,
    TrainConfig,
    TrainJob,
    to_plain,
)
from sra.model.weights import load_network
from sra.runtime import distributed, job, launch
from sra.runtime.distributed import CpuProcessGroup, check_processes
from sra.training.train import Trainer

ROOT = Path(__file__).parents[2]
CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
MODEL = ModelConfig(size=Size(depth=2, width=16, heads=2), resolution=32, classes=10, convention="sra")
STEPS = 120
TRAIN = TrainConfig(
    steps=STEPS, global_batch=16, lr=1e-4, precision="fp32", milestones=(3,), checkpoint_every=1000, log_every=1
)
JOB = TrainJob(seed=0, codec=CODEC, model=MODEL, train=TRAIN, align=SraSettings(blocks=(1, 2)))


@pytest.fixture(scope="module")
def alone(noise_latents, tmp_path_factory):
    """The uninterrupted run of one process."""
    out = tmp_path_factory.mktemp("alone")
    Trainer(JOB, noise_latents, out).run()
    return out


def start(latents, out, processes, **changes):
    out.mkdir(exist_ok=True)
    changed = dataclasses.replace(JOB, train=dataclasses.replace(TRAIN, **changes))
    (out / "stage.json").write_text(json.dumps({"config": to_plain(changed)}))
    command = [
        sys.executable,
        "-m",
        "sra.runtime.launch",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "-m",
        "sra.training.train",
    ]
    command += ["--config", str(out / "stage.json"), "--latents", str(latents), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--processes", str(processes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def rows(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def same(out, alone):
    """The same trace and weights within rounding: sums over processes are taken in another order."""
    mine, theirs = rows(out), rows(alone)
    assert [row["step"] for row in mine] == list(range(1, STEPS + 1))
    for name in ("loss", "generation", "alignment", "grad_norm"):
        assert [row[name] for row in mine] == pytest.approx([row[name] for row in theirs], rel=2e-3)
    for step in (3, STEPS):
        name = f"weights/step-{step:08d}.safetensors"
        pairs = [load_network(place / name, MODEL, CODEC).parameters() for place in (out, alone)]
        for a, b in zip(*pairs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_stopped_on_two_processes_continues_on_one_and_on_four(noise_latents, alone, tmp_path):
    """The two keep their parts of the optimizer's state; the checkpoint has all of it."""
    two, four = tmp_path / "two", tmp_path / "four"
    process = start(noise_latents, two, 2, shard="optimizer")
    while process.poll() is None and not (two / "weights").is_dir():
        time.sleep(0.02)
    # To the launcher, as Slurm would; torchrun's own agent dies of this signal.
    process.send_signal(signal.SIGUSR1)
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 75, text
    stopped = rows(two)[-1]["step"]
    assert 3 <= stopped < STEPS
    assert [p.name for p in (two / "checkpoints").iterdir()] == [f"step-{stopped:08d}"]
    shutil.copytree(two, four)

    Trainer(JOB, noise_latents, two).run()
    same(two, alone)

    process = start(noise_latents, four, 4, accumulate=2)
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 0, text
    assert f"continues at step {stopped} of {STEPS}" in text
    same(four, alone)


def test_another_number_of_processes_than_planned_is_refused(noise_latents, tmp_path):
    with pytest.raises(ConfigError, match=r"--processes: expected 2 .* got 1"):
        Trainer(JOB, noise_latents, tmp_path, processes=2)
    check_processes(None, 3)
    check_processes(3, 3)


def test_a_batch_that_cannot_be_shared_is_refused(noise_latents, tmp_path):
    odd = dataclasses.replace(JOB, train=dataclasses.replace(TRAIN, global_batch=15, accumulate=2))
    with pytest.raises(Exception, match=r"train\.global_batch: .* 1 processes x accumulate 2, got 15"):
        Trainer(odd, noise_latents, tmp_path)
    local = dataclasses.replace(JOB, align=DispersiveSettings(block=2, local_batch=3))
    with pytest.raises(ConfigError, match=r"align\.local_batch: .* 16, .* got 3"):
        Trainer(local, noise_latents, tmp_path)


@pytest.mark.parametrize(
    ("codes", "stop_requested", "expected"),
    [
        ({0: 75, 1: 75}, False, 75),
        ({0: 75, 1: -15}, True, 75),
        ({0: -15, 1: -15}, True, 75),
        ({0: 2, 1: 1}, False, 2),
        ({0: 1, 1: -9}, False, 2),
        ({0: -15, 1: -9}, True, 2),
        ({0: 1, 1: -15}, False, 1),
        ({0: -15}, False, 2),
    ],
)
def test_the_launchers_code_is_its_workers(codes, stop_requested, expected):
    code, line = launch.exit_code(codes, stop_requested=stop_requested)
    assert code == expected
    if -9 in codes.values():
        assert line == "error: process 1 was killed by SIGKILL; the same command continues"


@pytest.mark.parametrize(
    ("cores", "given", "threads"), [(96, None, "12"), (4, None, "1"), (512, None, "32"), (96, "3", "3")]
)
def test_processes_share_the_cores_to_compile(cores, given, threads, monkeypatch):
    for name in (launch.LAUNCHER_VARIABLE, launch.COMPILE_THREADS):
        monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv(launch.COMPILE_THREADS)
    monkeypatch.setattr(launch, "usable_cores", lambda: cores)
    monkeypatch.setattr(launch.signal, "signal", lambda *_: None)
    seen = []
    monkeypatch.setattr(launch, "run", lambda _options: seen.append(os.environ[launch.COMPILE_THREADS]))
    launch.main(["--standalone", "--nproc-per-node", "8", "-m", "x"])
    assert seen == [threads]


TWO = """
import torch
from torch import distributed as dist

from sra.config import TrainConfig
from sra.runtime.distributed import CpuProcessGroup, make_state
from sra.runtime.speed import parse_speed
from sra.training.losses import StepLosses
from sra.training.nonfinite import NonFiniteError, NonFiniteGuard

make_state(2)
processes = CpuProcessGroup()
assert processes.broadcast_from_main(["rank", processes.rank]) == ["rank", 0]
module = torch.nn.Linear(1, 1)
speed = parse_speed("losses=logged,optimizer=fused").resolved("cpu")
guard = NonFiniteGuard(module, TrainConfig(steps=9, global_batch=2), speed, scaled=True)
optimizer = torch.optim.AdamW(module.parameters(), fused=True)
guard.read()
loss = torch.tensor(torch.nan if processes.rank == 1 else 1.0)
losses = [StepLosses(total=loss, generation=loss[None], alignment=None, weight=0.0)]
guard.begin(7)
guard.must_skip(losses, torch.tensor(2.0), optimizer)
guard.begin(8)
guard.must_skip(losses, torch.tensor(3.0), optimizer)
try:
    guard.read()
except NonFiniteError as error:
    assert "training step 8: loss nan, gradient norm 2:" in str(error), error
else:
    raise AssertionError("not raised")
processes.barrier()
dist.destroy_process_group()
"""


def test_every_process_hears_what_one_of_them_saw(tmp_path):
    """A list of files that only the first process saw; a loss that was no number on the second one."""
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "two.py")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


NODE = ["--nnodes", "2", "--node-rank", "0", "--master-addr", "127.0.0.1", "--nproc-per-node", "1"]


def test_a_port_that_is_taken_is_named(monkeypatch):
    monkeypatch.setenv("SRA_LAUNCHER", "")
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port}: in use"):
            launch.main([*NODE, "--master-port", str(port), "-m", "sra.training.train"])


def test_a_node_whose_peers_do_not_come_ends_on_request():
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "sra.runtime.launch",
        *NODE,
        "--master-port",
        str(port),
        "-m",
        "sra.training.train",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.2)
    process.terminate()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 75
    assert errors.splitlines()[-1] == "stopped; the same command continues"


@pytest.fixture
def two(monkeypatch):
    """The main process of two, whose signals are forgotten afterwards."""
    group = CpuProcessGroup()
    group.size = 2
    monkeypatch.setattr(job, "_stop_requested", False)
    return group


def test_the_main_process_leaves_a_barrier_to_which_nobody_comes(two, monkeypatch):
    left = threading.Event()
    monkeypatch.setattr(distributed, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(job, "leave_at_once", left.set)

    def nobody_comes(group):
        os.kill(os.getpid(), signal.SIGTERM)
        assert left.wait(30)

    monkeypatch.setattr(torch.distributed, "barrier", nobody_comes)
    two.barrier()
    left.clear()
    monkeypatch.setattr(torch.distributed, "barrier", lambda group: None)
    two.barrier()  # asked before, but the others came
    assert not left.wait(0.3)


def test_the_end_of_the_others_is_a_stop_if_one_was_asked_for(two, monkeypatch):
    def closed(group):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "barrier", closed)
    with pytest.raises(RuntimeError, match="closed"):
        two.barrier()
    monkeypatch.setattr(job, "_stop_requested", True)
    with pytest.raises(Stopped):
        two.barrier()
