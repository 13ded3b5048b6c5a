"""Writes `loss_trace.json`: run it only when the losses are meant to change, and say why in the commit.

`python tests/sra/make_loss_trace.py`
"""

import copy
import json
import re
from pathlib import Path

import torch

from sra.config import CodecConfig, EmaConfig, ModelConfig, Size, SraSettings, TrainConfig
from sra.model.transformer import initialise
from sra.runtime.random_streams import Randoms
from sra.training.ema import update_ema
from sra.training.losses import TrainingModule
from sra.training.optimizer import learning_rate, make_optimizer

FILE = Path(__file__).with_name("loss_trace.json")
CODEC = CodecConfig(path="embedded:digits", scale=1.0, factor=4)
MODEL = ModelConfig(
    size=Size(depth=3, width=24, heads=3),
    resolution=32,
    classes=10,
    convention="sra",
    label_init_std=0.5,
    time_scale=1000.0,
)
TRAIN = TrainConfig(
    steps=8, global_batch=8, lr=2e-3, warmup_steps=2, precision="fp32", ema=EmaConfig(decay=0.99, schedule="ramp")
)


def trace(align: SraSettings | None) -> list[list[str]]:
    """Generation loss, alignment loss and gradient norm of every step, to the last bit."""
    module = TrainingModule(MODEL, CODEC, TRAIN, align).train()
    initialise(module.network, 0)
    ema = copy.deepcopy(module.network).eval().requires_grad_(False)
    optimizer = make_optimizer(module, TRAIN)
    rows = []
    for step in range(8):
        randoms = Randoms(0, torch.arange(step * 8, step * 8 + 8))
        x, y = randoms.normal("trace.x", (4, 8, 8)), torch.arange(8)
        optimizer.param_groups[0]["lr"] = learning_rate(TRAIN, step)
        optimizer.zero_grad()
        losses = module(x, y, randoms, ema, 0.0)
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), TRAIN.clip)
        optimizer.step()
        update_ema(ema, module.network, TRAIN.ema, step)
        alignment = torch.zeros(()) if losses.alignment is None else losses.alignment
        rows.append([float(v.detach().mean()).hex() for v in (losses.generation, alignment, norm)])
    return rows


def traces() -> dict[str, list[list[str]]]:
    """Both traces, on one thread: the order of a sum depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {"baseline": trace(None), "sra": trace(SraSettings(blocks=(1, 2)))}
    finally:
        torch.set_num_threads(threads)


def machine() -> str:
    """What decides the last bits besides the program: torch's version, the processor and its vectors."""
    processor = Path("/proc/cpuinfo")
    text = processor.read_text() if processor.is_file() else ""
    found = [re.search(rf"^{key}\s*: (.+)", text, re.MULTILINE) for key in ("vendor_id", "cpu family", "model")]
    model = " ".join(match.group(1) for match in found if match)
    return f"torch {torch.__version__.split('+')[0]}, {model}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    FILE.write_text(json.dumps({"machine": machine(), "traces": traces()}, indent=1) + "\n")
