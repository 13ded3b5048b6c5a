"""Stages `train` and `sample`: speed of training, sampling and decoding, as `sra-bench perf` measures it."""

from __future__ import annotations

import re

import torch
from torch.profiler import ProfilerActivity, profile

from sra.accept.stage import Stage
from sra.perf.results import Result, line
from sra.perf.session import Session, parser
from sra.perf.timing import Subject, synchronize

KERNELS = (
    ("attention", r"flash|fmha|sdpa|cudnn.*(mha|attn)"),
    ("optimizer", r"adam|multi_tensor|lpnorm|lerp|sgd"),
    ("products", r"gemm|nvjet|cutlass|xmma|sm90_|cublas"),
    ("triton", r"^triton"),
    ("copies", r"memcpy|memset"),
)
"""Kinds of kernels and the names that they have; the first that matches counts."""


def train(stage: Stage) -> None:
    """Training steps in the precisions and batches of runs, `fast` and `reference`."""
    usual, *others = stage.batches
    cases = [("fast", "fp32", usual), ("reference", "fp32", usual)]
    if stage.gpu:
        cases = [("fast", "bf16", usual), ("fast", "fp16", usual), ("reference", "fp16", usual)]
        cases += [("fast", "bf16", batch) for batch in others]
    rows = []
    for mode, precision, batch in cases:
        rows += _measure(stage, "train", mode, precision, batch)
    _compare(stage, rows)


def sample(stage: Stage) -> None:
    """Sampling in the precisions of runs, with Stable Diffusion's decoder where diffusers is installed."""
    batch = 64 if stage.gpu else 2
    cases = [("fast", "bf16"), ("fast", "tf32"), ("reference", "tf32")] if stage.gpu else [("fast", "fp32")]
    rows = []
    for mode, precision in cases:
        rows += _measure(stage, "sample", mode, precision, batch)
    _compare(stage, rows)


def _measure(stage: Stage, what: str, mode: str, precision: str, batch: int) -> list[Result]:
    """One subject of `sra-bench perf`; where the memory does not hold the batch, half of it."""
    few = ["--steps", "5"] if stage.gpu else ["--steps", "2", "--warmup", "1"]
    options = [what, "--mode", mode, "--precision", precision, "--model", stage.model, *few]
    options += ["--resolution", str(stage.resolution), "--device", stage.device.type]
    if not stage.gpu:
        options += ["--codec", "none", "--nfe", "2"] if what == "sample" else []
    while batch:
        session = Session(parser().parse_args([*options, "--batch", str(batch)]), stage.folder)
        if stage.gpu and what == "train":
            session.after = lambda subject: _profile(stage, f"{mode} {precision} {batch}", subject)  # noqa: B023
        try:
            getattr(session, what)()
        except torch.OutOfMemoryError:
            stage.note(f"{what} {mode} {precision}", f"out of memory at {batch} images", note="half of it is tried")
            batch //= 2
            torch.cuda.empty_cache()
            continue
        for row in session.document.results:
            stage.result(row)
            name, _, value = line(row).partition(": ")
            stage.note(name, value)
            stage.note("  parts", ", ".join(f"{part} {ms:.2f}" for part, ms in row.parts.items()), "ms")
        return session.document.results
    stage.note(f"{what} {mode} {precision}", None, ok=False, note="out of memory at 1 image")
    return []


def _profile(stage: Stage, label: str, subject: Subject) -> None:
    """Device milliseconds and launches of a step by kind of kernel."""
    rounds = 2
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            subject.run(rounds)
            synchronize(stage.device)
    except RuntimeError as error:
        stage.note(f"{label}: kernels", None, note=f"not allowed to profile: {str(error).splitlines()[0][:80]}")
        return
    sums: dict[str, tuple[float, int]] = {}
    for event in found.key_averages():
        kind = next((name for name, pattern in KERNELS if re.search(pattern, event.key, re.IGNORECASE)), "other")
        ms, launches = sums.get(kind, (0.0, 0))
        sums[kind] = ms + event.self_device_time_total / 1e3 / rounds, launches + event.count // rounds
    rows = sorted(sums.items(), key=lambda item: -item[1][0])
    text = ", ".join(f"{kind} {ms:.2f} ms in {count}" for kind, (ms, count) in rows)
    stage.note(f"{label}: kernels of a step", text or "the profiler saw none")


def _compare(stage: Stage, rows: list[Result]) -> None:
    """Images per second of every mode over those of `reference` at the same batch; not measured in turn."""
    reference = next((row for row in rows if row.mode == "reference"), None)
    for row in rows:
        if reference is not None and row is not reference and row.batch == reference.batch:
            ratio = row.images_per_second / reference.images_per_second
            stage.note(f"{row.mode} {row.precision} over reference {reference.precision}", ratio, "times")
