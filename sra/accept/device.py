"""Stages `machine` and `ceilings`: what the machine is, and the rates that nothing on it exceeds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sra.accept.stage import Stage, distance, milliseconds
from sra.common.processes import usable_cores
from sra.perf.results import peak_of
from sra.runtime.device import HALF, set_tf32

LEAST_OF_PEAK = 0.5
"""Of the data sheet's rate, in the largest product: healthy cards reach 0.7 to 0.8, throttled or shared ones do not."""
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def machine(stage: Stage) -> None:
    """Hardware, driver, compiler; whether the device computes at all."""
    stage.note("cores", usable_cores())
    stage.note("memory", psutil.virtual_memory().total / 2**30, "GiB")
    stage.note("free disk", shutil.disk_usage(stage.folder).free / 2**30, "GiB", note=str(stage.folder))
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if devices and not stage.gpu:
        note = f"torch {torch.__version__} is built for CUDA {torch.version.cuda}: is the driver older than that?"
        stage.note("GPUs that torch sees", 0, ok=False, note=f"{len(devices)} in /dev; {note}")
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    note = "" if compiler else "torch.compile needs one; or set SRA_BENCH_SPEED=compile=off"
    stage.note("C compiler", compiler, ok=bool(compiler) if stage.gpu else None, note=note)
    if not stage.gpu:
        return
    about = torch.cuda.get_device_properties(stage.device)
    stage.note("GPUs that torch sees", torch.cuda.device_count(), note=about.name)
    stage.note("GPU memory", about.total_memory / 2**30, "GiB", note=f"compute capability {about.major}.{about.minor}")
    stage.note("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")  # type: ignore[no-untyped-call]
    if shutil.which("nvidia-smi"):
        columns = "driver_version,power.limit,clocks.max.sm,temperature.gpu"
        query = ["nvidia-smi", f"--query-gpu={columns}", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        stage.note(columns, done.stdout.strip().replace("\n", "; ") or done.stderr.strip())
    x = torch.randn(256, 256)
    error = distance(x.to(stage.device) @ x.T.to(stage.device), x @ x.T)
    stage.note("a product on the GPU differs by", error, ok=error < 1e-2)


def ceilings(stage: Stage) -> None:
    """Rates of copies, of matrix products at the network's shapes, and of every attention backend."""
    n = 2**28 if stage.gpu else 2**22
    a, b = torch.ones(n, device=stage.device), torch.empty(n, device=stage.device)
    stage.note("copy", 8 * n / milliseconds(lambda: b.copy_(a), stage.device) / 1e6, "GB/s", note="read and written")

    sizes = [(8192, 8192, 8192), (8192, 3456, 1152), (8192, 4608, 1152), (8192, 1152, 4608), (65536, 4608, 1152)]
    for precision in ("bf16", "fp16", "tf32", "fp32") if stage.gpu else ("fp32",):
        for size in sizes if precision == "bf16" else sizes[:2] if stage.gpu else [(512, 384, 384)]:
            stage.attempt(f"product {precision}", _product, stage, size, precision)
    for tokens in (256, 1024) if stage.gpu else (64,):
        for precision in ("bf16", "fp32"):
            _attention(stage, 32 if stage.gpu else 2, tokens, precision)


def _product(stage: Stage, size: tuple[int, int, int], precision: str) -> None:
    """Rate of x W^T at (rows, outputs, inputs)."""
    rows, outputs, inputs = size
    set_tf32(precision)
    dtype = HALF.get(precision, torch.float32)
    x = torch.randn(rows, inputs, device=stage.device, dtype=dtype)
    w = torch.randn(outputs, inputs, device=stage.device, dtype=dtype)
    rate = 2 * rows * outputs * inputs / milliseconds(lambda: F.linear(x, w), stage.device) / 1e9
    peak = peak_of(torch.cuda.get_device_name(stage.device), precision) if stage.gpu else None
    share = None if peak is None or size != (8192, 8192, 8192) else rate * 1e12 / peak
    note = "" if share is None else f"{100 * share:.0f} % of the data sheet"
    ok = None if share is None else share > LEAST_OF_PEAK
    stage.note(f"product {precision} {rows} x {outputs} x {inputs}", rate, "TFLOP/s", ok=ok, note=note)


def _attention(stage: Stage, images: int, tokens: int, precision: str) -> None:
    """Forward and backward milliseconds of each backend with 16 heads of 72, as in XL, and its error."""
    dtype = HALF.get(precision, torch.float32)
    qkv = torch.randn(images, tokens, 3, 16, 72, device=stage.device, dtype=dtype, requires_grad=True)
    grad = torch.randn(images, 16, tokens, 72, device=stage.device, dtype=dtype)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        exact = F.scaled_dot_product_attention(*qkv[:2].double().permute(2, 0, 3, 1, 4))
    for name, backend in BACKENDS.items():

        def forward(backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))

        def both() -> None:
            qkv.grad = None
            torch.autograd.backward(forward(), grad)

        label = f"attention {name} {precision} {images} x 16 x {tokens} x 72"
        try:
            error = distance(forward()[:2], exact)
            limit = {"fp32": 1e-5, "bf16": 1e-2}[precision]
            stage.note(label, milliseconds(both, stage.device), "ms", ok=error < limit, note=f"error {error:.1e}")
        except RuntimeError as error_:
            stage.note(label, None, note=f"not possible: {str(error_).splitlines()[0][:80]}")
