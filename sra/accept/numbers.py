"""Stages `numbers` and `parity`: the same arithmetic as on a CPU in float32, and the golden numbers."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from sra.accept.stage import NotTested, Stage, distance, fill_zeros
from sra.config import AlignSettings, CodecConfig, DtsAsSettings, EmaConfig, SraSettings, TrainConfig
from sra.model.transformer import DiffusionTransformer, compile_blocks, initialise
from sra.parity.compare import ROUNDING, Mode, limit_of
from sra.parity.folder import check_folder
from sra.parity.golden import open_golden
from sra.perf.cases import model_of
from sra.runtime.device import autocast, set_tf32
from sra.runtime.random_streams import Randoms, RandomSource
from sra.training.ema import update_ema
from sra.training.losses import TrainingModule

WIDE, SMALL = "4x1152x16/2", "4x144x2/2"
"""Networks with the heads of XL, 72 channels: with its width on a GPU, a small one on a CPU."""
GRADIENTS = 5.0
"""Limit of a parameter's gradient in units of the loss's: gradients are sums that cancel."""
LOSS_SCALE = 1024.0
"""Of fp16, whose gradients would underflow."""


class Copied:
    """Random numbers drawn on the CPU and copied to a device."""

    def __init__(self, randoms: RandomSource, device: torch.device) -> None:
        self.randoms, self.device = randoms, device

    def uniform(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """See `Randoms`."""
        return self.randoms.uniform(name, shape).to(self.device)

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """See `Randoms`."""
        return self.randoms.normal(name, shape).to(self.device)


def numbers(stage: Stage) -> None:
    """Random streams, optimizer flags, and losses and gradients in every precision, eager and compiled."""
    stage.attempt("random streams", _streams, stage)
    stage.attempt("flags", _flags, stage)
    aligns = (SraSettings(kind="sra", blocks=(1, 2)), DtsAsSettings(kind="dts-as", blocks=(1, 2)))
    for align in aligns:
        case = _Case(stage, align)
        for compiled in (False, True) if stage.gpu else (False,):
            for precision in ROUNDING if stage.gpu else ("fp32", "bf16"):
                label = f"{align.kind} {precision}{' compiled' if compiled else ''}"
                stage.attempt(label, case.check, label, precision, compiled)


def _streams(stage: Stage) -> None:
    here, there = Randoms(3, torch.arange(64)), Randoms(3, torch.arange(64, device=stage.device))
    equal = torch.equal(here.uniform("u", (1000,)), there.uniform("u", (1000,)).cpu())
    stage.note("uniform numbers equal", str(equal), ok=equal)
    a, b = here.normal("n", (4096,)), there.normal("n", (4096,)).cpu()
    most = float((a - b).abs().max())
    different = int((a != b).sum())
    stage.note(
        "normal numbers that differ", different, f"of {a.numel()}", ok=most < 1e-5, note=f"by {most:.1e} at most"
    )


def _flags(stage: Stage) -> None:
    """The flag of a non-finite step holds EMA and optimizer without the host."""
    average, weights = (torch.nn.Linear(99, 99).to(stage.device) for _ in range(2))
    before = copy.deepcopy(average)
    update_ema(average, weights, EmaConfig(), 0, hold=torch.tensor(True, device=stage.device))
    held = torch.equal(average.weight, before.weight)
    stage.note("held EMA keeps its bits", str(held), ok=held)
    parameter = torch.nn.Parameter(torch.ones(9, device=stage.device))
    optimizer = torch.optim.AdamW([parameter], lr=1.0, fused=True)
    parameter.grad = torch.ones_like(parameter)
    optimizer.found_inf = torch.ones((), device=stage.device)  # type: ignore[attr-defined]
    optimizer.step()
    held = bool((parameter == 1).all())
    stage.note("held AdamW keeps its bits", str(held), ok=held)


class _Case:
    """One alignment: the step on the CPU in float32, and its comparison with other ways to compute it."""

    def __init__(self, stage: Stage, align: AlignSettings) -> None:
        self.stage, images = stage, 8 if stage.gpu else 2
        model = model_of(WIDE if stage.gpu else SMALL, "sit", 256 if stage.gpu else 64)
        codec = CodecConfig()
        self.module = TrainingModule(model, codec, TrainConfig(steps=1), align.resolved(model, codec))
        initialise(self.module.network, 0)
        fill_zeros(self.module)
        self.teacher = copy.deepcopy(self.module.network).eval().requires_grad_(False)
        self.randoms = Randoms(0, torch.arange(images))
        side = model.resolution // codec.factor
        self.x = self.randoms.normal("x", (codec.channels, side, side))
        self.y = torch.arange(images)
        set_tf32("fp32")
        self.expected = self._step(self.module, self.teacher, torch.device("cpu"), "fp32")

    def _step(
        self, module: TrainingModule, teacher: DiffusionTransformer, device: torch.device, precision: str
    ) -> dict[str, Tensor]:
        """Losses and gradients by name."""
        scale = LOSS_SCALE if precision == "fp16" else 1.0
        with autocast(precision, device.type):
            losses = module(self.x.to(device), self.y.to(device), Copied(self.randoms, device), teacher)
        (losses.total * scale).backward()
        named = module.network.named_parameters()
        gradients = {f"gradient of {name}": p.grad / scale for name, p in named if p.grad is not None}
        return {"generation loss": losses.generation, "alignment loss": losses.alignment, **gradients}

    def check(self, label: str, precision: str, compiled: bool) -> None:
        """Compare one way to compute the step with the CPU."""
        device = self.stage.device
        set_tf32(precision)
        module, teacher = copy.deepcopy(self.module).to(device), copy.deepcopy(self.teacher).to(device)
        module.zero_grad()
        if compiled:
            torch.compiler.reset()
            compile_blocks(module.network, fixed_shapes=True)
            compile_blocks(teacher, fixed_shapes=True)
        found = self._step(module, teacher, device, precision)
        limit = limit_of(device.type, precision, compiled=compiled)
        limits = {name: limit * (GRADIENTS if name.startswith("gradient") else 1) for name in self.expected}
        errors = {name: distance(found[name], value) for name, value in self.expected.items()}
        worst = max(errors, key=lambda name: float("inf") if math.isnan(errors[name]) else errors[name] / limits[name])
        note = f"{worst}; {limits[worst]:.1e} allowed"
        self.stage.note(f"{label} differs by", errors[worst], ok=errors[worst] <= limits[worst], note=note)


def parity(stage: Stage) -> None:
    """Every golden number in every precision."""
    if not (stage.golden / "config.json").is_file():
        raise NotTested(f"no golden folder {stage.golden}; give one with --golden")
    golden = open_golden(stage.golden)
    for precision in ROUNDING if stage.gpu else ("fp32",):
        mode = Mode(stage.device, precision)
        mode.start()
        report = check_folder(golden, mode)
        failed = ", ".join(item.item for item in report.failed[:3])
        count, of = len(report.failed), f"of {len(report.items)}"
        stage.note(f"golden numbers in {precision} that differ", count, of, ok=count == 0, note=failed)
