"""Weak scaling: the same work for each of 1, 2, ... processes; torchrun starts them, in turn and several times."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sra.common.errors import UserError


def measure_scaling(processes: list[int], repeats: int, arguments: list[str]) -> dict[str, Any]:
    """Efficiency of each number of processes: images/s per process over those of the first.

    Args:
        processes: numbers of processes on this machine.
        repeats: measurements of each, alternating.
        arguments: of `python -m sra.perf train`.

    Raises:
        UserError: a measurement ended with an error.
    """
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in processes}
    for _ in range(repeats):
        for number in processes:
            found[number].append(_one(number, arguments))
    rates = {n: statistics.median(row["images_per_second"] for row in rows) / n for n, rows in found.items()}
    first = rates[processes[0]]
    rows = [
        {"processes": n, "images_per_second": rates[n] * n, "efficiency": rates[n] / first, "repeats": repeats}
        for n in processes
    ]
    return {"network": found[processes[0]][0], "scaling": rows}


def _one(processes: int, arguments: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*launch, "-m", "sra.perf", "train", *arguments, "--out", str(out)]
        # A process for each core: threads of several processes would fight for the same cores.
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not out.is_file():
            lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")] or [done.stderr[-500:]]
            raise UserError(f"scaling with {processes} processes: {lines[-1]}")
        row: dict[str, Any] = json.loads(out.read_text())["results"][0]
    return row


def text_of(document: dict[str, Any]) -> str:
    """Lines for people."""
    return "\n".join(
        f"{row['processes']} processes: {row['images_per_second']:.2f} images/s, efficiency {row['efficiency']:.3f}"
        for row in document["scaling"]
    )
