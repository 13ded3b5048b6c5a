"""The command `python -m sra.perf`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sra.common.errors import UserError
from sra.common.files import check_place, write_json
from sra.perf.results import SCHEMA, Document, machine, save
from sra.perf.session import PARTS, Session, parser
from sra.perf.workloads import world
from sra.runtime import job
from sra.runtime.distributed import leave

SCALING_OPTIONS = {"--processes", "--repeats", "--out", "--json", "--save"}
"""Options that `scaling` does not pass on to the processes that it starts."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Training on a number of processes of this machine."""

    processes: int
    images_per_second: float
    """Of all processes."""
    efficiency: float
    """Images per second and process, over those of the first number of processes."""
    repeats: int


def measure_scaling(
    processes: list[int], repeats: int, arguments: list[str]
) -> tuple[dict[str, Any], tuple[Scaling, ...]]:
    """Weak scaling: the first result, and the rate on each number of processes.

    Args:
        processes: numbers of processes on this machine.
        repeats: measurements of each, in turn.
        arguments: of `python -m sra.perf train`.

    Raises:
        UserError: a measurement failed.
    """
    found: dict[int, list[dict[str, Any]]] = {number: [] for number in processes}
    for _ in range(repeats):
        for number in processes:
            found[number].append(_train_on(number, arguments))
    rates = {n: statistics.median(row["images_per_second"] for row in rows) / n for n, rows in found.items()}
    first = rates[processes[0]]
    return found[processes[0]][0], tuple(
        Scaling(processes=n, images_per_second=rate * n, efficiency=rate / first, repeats=repeats)
        for n, rate in rates.items()
    )


def on_processes(processes: int, module: str, *arguments: str) -> str:
    """Run a module in several processes of this machine. Returns what they print.

    Raises:
        UserError: one of them failed.
    """
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", module]
    # One thread each: threads of several processes would compete for the same cores.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, "-m", *launch, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # A worker's error stands before torchrun's own report.
        found = re.search(r"^(?:\[rank\d+\]: )?((?:error|\w+Error): .*)$", done.stderr, re.MULTILINE)
        reason = found[1] if found else (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"{module} in {processes} processes: {reason}")
    return done.stdout


def _train_on(processes: int, arguments: list[str]) -> dict[str, Any]:
    """First result of `sra.perf train` on a number of processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        on_processes(processes, "sra.perf", "train", *arguments, "--out", str(out))
        row: dict[str, Any] = json.loads(out.read_text())["results"][0]
    return row


def _scaling(options: argparse.Namespace, arguments: list[str]) -> tuple[dict[str, Any], str]:
    """Document and text of `scaling`."""
    passed: list[str] = []
    skipping = False
    for argument in arguments[1:]:
        if argument.startswith("--"):
            skipping = argument in SCALING_OPTIONS
        if not skipping:
            passed.append(argument)
    network, rows = measure_scaling(options.processes, options.repeats, passed)
    text = "\n".join(
        f"{row.processes} processes: {row.images_per_second:.2f} images/s, efficiency {row.efficiency:.3f}"
        for row in rows
    )
    found = {"network": network, "scaling": [dataclasses.asdict(row) for row in rows]}
    return {"schema": SCHEMA, "machine": machine(torch.device(options.device)), **found}, text


def _measure(options: argparse.Namespace) -> Document:
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sra-perf-")))
        if world()[1] > 1:
            folder = folder / f"process-{world()[0]}"
        folder.mkdir(parents=True, exist_ok=True)
        session = Session(options, folder)
        for part in PARTS if options.what == "all" else (options.what,):
            getattr(session, part)()
        return session.document


def main(arguments: list[str]) -> None:
    """`python -m sra.perf {latents,train,sample,all,scaling}`."""
    options = parser().parse_args(arguments)
    if options.out:
        check_place(options.out, "--out")
    measured = None
    if options.what == "scaling":
        document, text = _scaling(options, arguments)
    else:
        measured = _measure(options)
        document, text = measured.as_json(), measured.as_text()
    leave()
    if world()[0] > 0:
        return
    print(json.dumps(document, indent=2) if options.json else text, flush=True)
    if options.out:
        write_json(options.out, document)
    if options.save and measured is not None:
        print(f"stored in {save(measured)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    job.run(main)
