"""The table "Counted" of docs/performance.md, counted again on a CUDA runtime that runs no kernel (`runtime.c`)."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
SITE = Path(importlib.util.find_spec("torch").origin).parents[1]
HEADERS = (SITE / "triton/backends/nvidia/include", SITE / "nvidia/cu13/include")
LIBRARIES = [SITE / "torch/lib" / f"lib{name}.so" for name in ("c10_cuda", "torch_cuda", "torch_python")]
TOOLS = [tool for tool in ("gcc", "nm") if shutil.which(tool) is None]
ABSENT = [*TOOLS, *(str(path) for path in (HEADERS[1] / "cuda_runtime_api.h", LIBRARIES[1]) if not path.is_file())]
pytestmark = [
    pytest.mark.cuda_stub,
    pytest.mark.skipif(bool(ABSENT), reason=f"needs the CUDA wheels and a compiler; not here: {', '.join(ABSENT)}"),
]

KINDS = (
    (r"_*cudaLaunchKernel\w*", "kernel"),
    (r"cuLaunchKernel(Ex)?", "triton"),
    (r"cublas(Lt)?(\w*(Gemm|gemm|Gemv|gemv|Dot|dot)\w*|Matmul)", "product"),
    (r"cuda(Device|Stream|Event)Synchronize", "waiting"),
    (r"cudaMemset\w*", "fill"),
)
"""What functions do that `runtime.c` does not define; all others do nothing."""


def build(folder: Path) -> Path:
    """Compile the runtime, with a function for every name of CUDA that torch imports, and of the driver."""
    listed = subprocess.run(["nm", "-D", "-u", *LIBRARIES], check=True, capture_output=True, text=True).stdout
    names = set(re.findall(r"\b((?:__)?cuda[A-Z]\w+|cublas[A-Z]\w+|cudnn[A-Z]\w+|nccl[A-Z]\w+)", listed))
    names |= set(re.findall(r"\bcu[A-Z]\w+", (HEADERS[0] / "cuda.h").read_text()))
    lines = [f"int {kind}(void);" for kind in ("nothing", *(kind for _, kind in KINDS))]
    for name in sorted(names):
        kind = next((kind for pattern, kind in KINDS if re.fullmatch(pattern, name)), "nothing")
        lines.append(f"__attribute__((weak)) int {name}(void) {{ return {kind}(); }}")
    (folder / "others.c").write_text("\n".join(lines))
    library = folder / "libcuda.so.1"
    options = ["-O1", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{library.name}", "-o", library]
    includes = [f"-I{path}" for path in HEADERS]
    subprocess.run(["gcc", *options, *includes, HERE / "runtime.c", folder / "others.c"], check=True)
    return library


@pytest.fixture(scope="module")
def on_the_stub(tmp_path_factory):
    """Run count.py with a subject, a network and switches; returns what it prints."""
    folder = tmp_path_factory.mktemp("cuda")
    library = build(folder)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "TRITON_LIBCUDA_PATH": str(folder),
        "LD_LIBRARY_PATH": str(folder),
        "TORCHINDUCTOR_USE_STATIC_CUDA_LAUNCHER": "0",  # it calls the driver's functions by address
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }

    def run(what, model, switches):
        command = [sys.executable, HERE / "count.py", what, folder, model]
        settings = {**environment, "SRA_BENCH_SPEED": switches}
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


CASES = {
    "XL/2, a step": (("train", "XL/2"), ""),
    "XL/2, `compile=combined`": (("train", "XL/2"), "compile=combined"),
    "smoke, a step": (("train", "smoke"), ""),
    "smoke, `graph=step`": (("train", "smoke"), "graph=step"),
    "smoke, a batch": (("sample", "smoke"), ""),
}
"""Columns of the table: arguments of count.py, and switches."""
ROWS = {
    "compiled kernels (Triton)": "triton",
    "other kernels": "kernels",
    "matrix products": "products",
    "copies": "copies",
    "fills": "fills",
    "launched graphs": "graphs",
    "times that the host waits": "waits",
    "peak of torch's memory, MiB": "memory",
}


def printed():
    """The table: counts by column and row."""
    section = (ROOT / "docs" / "performance.md").read_text().split("### Counted")[1].split("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    numbers = {row[0]: [float(cell.replace(",", "")) for cell in row[1:]] for row in rows}
    assert set(numbers) == set(ROWS)
    return {name: {ROWS[row]: cells[index] for row, cells in numbers.items()} for index, name in enumerate(header[1:])}


@pytest.mark.parametrize("case", CASES)
def test_counts_are_those_of_the_table(case, on_the_stub):
    arguments, switches = CASES[case]
    expected = printed()[case]
    found = on_the_stub(*arguments, switches)
    assert found == pytest.approx(expected, rel=0.02), f"{case}: {found}"
    assert found["waits"] == expected["waits"]
