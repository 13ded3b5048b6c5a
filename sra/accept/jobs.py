"""Stages `job`, `score`, `processes` and `disk`: whole jobs as a run starts them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from sra.accept.stage import NotTested, Stage, distance
from sra.common.errors import STOPPED, UserError
from sra.common.files import write_json
from sra.config import (
    CodecConfig,
    ModelConfig,
    SampleConfig,
    SampleJob,
    Size,
    SraSettings,
    TrainConfig,
    TrainJob,
    to_plain,
)
from sra.model.transformer import build
from sra.perf.__main__ import measure_scaling, on_processes
from sra.perf.cases import CODEC, mode_of, model_of
from sra.perf.workloads import make_latents

DIGITS = CodecConfig(path="embedded:digits", scale=1.0, factor=4, channels=4)
LATENTS = 1000
CHECKPOINT_COPIES = 4
"""Float32 copies of the weights in a checkpoint: network, EMA, two moments of AdamW."""


def _run(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-m", *arguments], stdout=file, stderr=subprocess.STDOUT)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no output"


def job(stage: Stage) -> None:
    """A training job that is stopped and continued, beside one that is not; sampling from its weights."""
    if find_spec("accelerate") is None:
        raise NotTested("training jobs need accelerate")
    model = ModelConfig(size=Size(depth=2, width=48, heads=3), resolution=32, convention="sra", classes=1000)
    make_latents(stage.folder, mode_of("fast", stage.device.type), (8, 8, 8), LATENTS)
    latents = stage.folder / f"{LATENTS}x8x8x8-packed"
    precision: Literal["bf16", "fp32"] = "bf16" if stage.gpu else "fp32"
    training = TrainConfig(steps=40, global_batch=8, precision=precision, log_every=1, checkpoint_every=10)
    align = SraSettings(kind="sra", blocks=(1, 2))
    config = TrainJob(seed=0, codec=DIGITS, model=model, train=training, align=align)
    whole, stopped = (_train(stage, name, config, latents) for name in ("whole", "stopped"))
    found = torch.tensor([stopped.get(step, torch.nan) for step in whole])
    error = distance(found, torch.tensor(list(whole.values())))
    # On a GPU, sums by atomic additions round differently every time.
    limit = 0.05 if stage.gpu else 0.0
    stage.note("continued training differs by", error, ok=error <= limit, note=f"relative, over {len(whole)} losses")
    if find_spec("diffusers") is None:
        stage.note("sampling", None, note="not tested: needs diffusers")
        return
    weights = sorted((stage.folder / "whole" / "weights").glob("*.safetensors"))[-1]
    settings = SampleConfig(steps=5, images=20, batch=8, shard=10, cfg=1.8, precision=precision)
    sampling = SampleJob(seed=0, codec=DIGITS, model=model, sample=settings, checkpoint=str(weights))
    out, log = _stage_folder(stage, "sampled", sampling)
    code = _run(["sra.sampling.sample", "--config", str(out / "stage.json"), "--out", str(out)], log).wait()
    done = (out / "samples.npz").is_file()
    stage.note("sampling job ends with", code, ok=code == 0 and done, note=_last_line(log))


def _stage_folder(stage: Stage, name: str, config: Any) -> tuple[Path, Path]:
    out = stage.folder / name
    out.mkdir()
    write_json(out / "stage.json", {"config": to_plain(config)})
    return out, out / "log.txt"


def _train(stage: Stage, name: str, config: TrainJob, latents: Path) -> dict[int, float]:
    """Losses by step of one training job; `stopped` gets SIGTERM after its first steps, and is started again."""
    out, log = _stage_folder(stage, name, config)
    command = ["sra.training.train", "--config", str(out / "stage.json"), "--latents", str(latents), "--out", str(out)]
    process = _run(command, log)
    if name == "stopped":
        while process.poll() is None and len(_losses(out)) < 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
        stage.note("stopped training ends with", code, ok=code in (0, STOPPED), note=f"{STOPPED} expected")
        process = _run(command, log)
    code = process.wait()
    if code != 0:
        raise UserError(f"training {name} ended with {code}: {_last_line(log)}")
    return _losses(out)


def _losses(out: Path) -> dict[int, float]:
    path = out / "log.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {row["step"]: row["loss"] for row in rows}


def score(stage: Stage) -> None:
    """The ADM protocol in torch on the golden images."""
    golden = stage.golden / "adm"
    if not (golden / "expected.json").is_file():
        raise NotTested(f"no golden images {golden}; give a folder with --golden")
    out, log = stage.folder / "scores.json", stage.folder / "score.txt"
    files = {"samples": "samples.npz", "reference": "reference.npz", "graph": "classify_image_graph_def.pb"}
    options = [text for name, file in files.items() for text in (f"--{name}", str(golden / file))]
    began = time.monotonic()
    code = _run(["evaluator.tools.adm_torch", *options, "--no-intervals", "--json", str(out)], log).wait()
    if code != 0:
        raise UserError(f"scoring ended with {code}: {_last_line(log)}")
    stage.note("scoring", time.monotonic() - began, "s")
    found, expected = json.loads(out.read_text())["metrics"], json.loads((golden / "expected.json").read_text())
    for name, key in {"fid": "fid", "sfid": "sfid", "is": "inception_score"}.items():
        error = abs(found[name] / expected[key] - 1)
        stage.note(f"{name} differs by", error, ok=error < 1e-3, note=f"relative; {expected[key]:.6g} expected")
    for name, side in {"precision": "samples", "recall": "reference"}.items():
        # Float16 distances of the protocol round with the order of their sums.
        error = abs(found[name] - expected[name]) * expected["images"][side]
        stage.note(f"{name} differs by", error, "images", ok=error < 2.5, note=f"{expected[name]:.6g} expected")


def processes(stage: Stage) -> None:
    """Sums over processes, and training on all GPUs beside one."""
    size = torch.cuda.device_count() if stage.gpu else 2
    if size < 2:
        raise NotTested("one GPU")
    megabytes = 1024 if stage.gpu else 4
    rate = float(on_processes(size, "sra.accept.collectives", str(megabytes)))
    stage.note(f"sum over {size} processes", rate, "GB/s", note=f"sent by each, {megabytes} MiB")
    if stage.gpu:
        options = ["--model", stage.model, "--batch", str(stage.batches[0]), "--steps", "5", "--precision", "bf16"]
        for row in measure_scaling([1, size], 1, options)[1]:
            note = f"efficiency {row.efficiency:.2f}"
            stage.note(f"training on {row.processes}", row.images_per_second, "images/s", note=note)


def disk(stage: Stage) -> None:
    """Rate at which a checkpoint reaches the disk, and whether there is room for some."""
    model = model_of(stage.model, "sit", stage.resolution)
    with torch.device("meta"):
        size = CHECKPOINT_COPIES * 4 * sum(p.numel() for p in build(model, CODEC).parameters())
    written = min(size, (2**30 if stage.gpu else 2**24))
    block = os.urandom(2**20)
    path = stage.folder / "checkpoint"
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(written // len(block) + 1):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    rate = path.stat().st_size / (time.perf_counter() - began)
    path.unlink()
    stage.note("disk", rate / 1e6, "MB/s", note=f"a checkpoint of {size / 1e9:.2f} GB: {size / rate:.0f} s")
    free = shutil.disk_usage(stage.folder).free
    stage.note("room for checkpoints", free // size, ok=free > 3 * size, note="two are kept, one is written")
