"""Stages `numbers` and `parity`: the same arithmetic as on a CPU in float32, and the golden numbers."""

from __future__ import annotations

import copy

import torch

from sra.accept.stage import NotTested, Stage
from sra.config import EmaConfig
from sra.parity.compare import ROUNDING, Mode, Report
from sra.parity.folder import check_once
from sra.parity.golden import open_golden
from sra.parity.wide import check_wide
from sra.runtime.random_streams import Randoms
from sra.training.ema import update_ema


def numbers(stage: Stage) -> None:
    """Random streams, optimizer flags, and a step of wide networks in every precision, eager and compiled."""
    stage.attempt("random streams", _streams, stage)
    stage.attempt("flags", _flags, stage)
    if not stage.gpu:
        stage.note("wide networks", None, note="not tested: they are compared with this processor")
        return
    for compiled in (False, True):
        for precision in ROUNDING:
            stage.attempt(f"wide networks in {precision}", _wide, stage, Mode(stage.device, precision, compiled))


def _streams(stage: Stage) -> None:
    here, there = Randoms(3, torch.arange(64)), Randoms(3, torch.arange(64, device=stage.device))
    equal = torch.equal(here.uniform("u", (1000,)), there.uniform("u", (1000,)).cpu())
    stage.note("uniform numbers equal", str(equal), ok=equal)
    a, b = here.normal("n", (4096,)), there.normal("n", (4096,)).cpu()
    different, most = int((a != b).sum()), float((a - b).abs().max())
    stage.note("normal numbers that differ", different, "of 262144", ok=most < 1e-5, note=f"by {most:.1e} at most")


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


def _wide(stage: Stage, mode: Mode) -> None:
    mode.start()
    report = Report(mode.limit)
    check_wide(mode, report)
    how = f"{mode.precision}{', compiled' if mode.compiled else ''}"
    note_report(stage, f"numbers of wide networks in {how} that differ", report)


def note_report(stage: Stage, name: str, report: Report) -> None:
    """Record how many items of a comparison are outside their tolerance, and the first ones."""
    count, of = len(report.failed), f"of {len(report.items)}"
    stage.note(name, count, of, ok=count == 0, note=", ".join(item.item for item in report.failed[:3]))


def parity(stage: Stage) -> None:
    """Every golden number in every precision."""
    if not (stage.golden / "config.json").is_file():
        raise NotTested(f"no golden folder {stage.golden}; give one with --golden")
    golden = open_golden(stage.golden)
    for precision in ROUNDING if stage.gpu else ("fp32", "bf16"):
        mode = Mode(stage.device, precision)
        mode.start()
        note_report(stage, f"golden numbers in {precision} that differ", check_once(golden, mode))
