"""The command `python -m sra.accept`, and one stage of it in a process of its own."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import sra.accept
from sra.accept import device, jobs, numbers, speed
from sra.accept.record import Acceptance, StageResult, Status, load, read_lines
from sra.accept.stage import NotTested, Stage
from sra.common.errors import FALLS_SHORT, ConfigError, UserError
from sra.common.files import check_place
from sra.common.processes import die_with_parent
from sra.common.validation import ArgumentParser
from sra.perf.results import Document, save
from sra.perf.results import machine as describe
from sra.runtime import job

STAGES: dict[str, tuple[Callable[[Stage], None], float]] = {
    "machine": (device.machine, 0.1),
    "numbers": (numbers.numbers, 0.35),
    "train": (speed.train, 0.4),
    "sample": (speed.sample, 0.25),
    "parity": (numbers.parity, 0.15),
    "job": (jobs.job, 0.25),
    "ceilings": (device.ceilings, 0.15),
    "score": (jobs.score, 0.1),
    "processes": (jobs.processes, 0.25),
    "disk": (jobs.disk, 0.1),
}
"""By worth: what may be missing when the time is over comes last. With the share of the time that each may take."""
LEAST_SECONDS = 20.0
"""A stage is not started with less: importing torch takes some of it."""
GOLDEN = Path(__file__).parents[2] / "tests" / "golden"


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    found = ArgumentParser(prog="sra-bench accept", description=sra.accept.__doc__)
    add = found.add_argument
    gpu = torch.cuda.is_available()
    add("stages", nargs="*", metavar="STAGE", help=f"default: all of {', '.join(STAGES)}")
    add("--minutes", type=float, default=8.0, help="time for all stages together")
    add("--json", type=Path, metavar="FILE", help="where the result is written")
    add("--show", type=Path, metavar="FILE", help="print the tables of a result as Markdown; measures nothing")
    add("--save", action="store_true", help="store the measured speeds for `sra-bench plan`")
    add("--model", default="XL/2" if gpu else "S/2", metavar="SIZE/PATCH", help="network to measure")
    add("--resolution", type=int, default=256, help="pixels")
    add("--batch", type=int, nargs="+", default=[32, 256] if gpu else [2], help="images per GPU in training")
    add("--golden", type=Path, default=GOLDEN, metavar="DIR", help="folder of golden numbers")
    add("--folder", type=Path, default=Path(), metavar="DIR", help="where runs will be written: its disk is measured")
    add("--device", default="cuda" if gpu else "cpu", help="cuda or cpu")
    add("--lines", type=Path, help=argparse.SUPPRESS)
    return found


def main(arguments: list[str]) -> None:
    """`python -m sra.accept [STAGE ...]`: exit code 0: ready; 1: not; 2: bad input; 75: interrupted."""
    options = parser().parse_args(arguments)
    unknown = [name for name in options.stages if name not in STAGES]
    if unknown:
        raise ConfigError(f"STAGE: expected one of {', '.join(STAGES)}, got {unknown[0]!r}")
    if options.show:
        print(load(options.show).as_markdown())
    elif options.lines:
        run_stage(options)
    else:
        found = run_all(options, arguments)
        print(found.last_page(), flush=True)
        if options.save and found.results:
            stored = save(Document(time="wall", machine=found.machine, results=found.results))
            print(f"speeds stored in {stored}", file=sys.stderr)
        if found.reasons:
            sys.exit(FALLS_SHORT)


def run_stage(options: argparse.Namespace) -> None:
    """Run one stage in this process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    (name,) = options.stages
    stage = Stage(
        name=name,
        device=torch.device(options.device),
        model=options.model,
        resolution=options.resolution,
        batches=tuple(options.batch),
        golden=options.golden,
        folder=options.folder,
        lines=options.lines,
    )
    try:
        STAGES[name][0](stage)
    except NotTested as error:
        stage.not_tested(str(error))
    except UserError as error:
        stage.note(name, "failed", ok=False, note=str(error))


def run_all(options: argparse.Namespace, arguments: list[str]) -> Acceptance:
    """Run the stages one after the other while there is time; the result is written after each."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device: expected cpu where no GPU is visible, got 'cuda'")
    if options.json:
        check_place(options.json, "--json")
    began, found = time.monotonic(), Acceptance(machine=describe(torch.device(options.device)))
    options.folder.mkdir(parents=True, exist_ok=True)
    passed = [text for text in arguments if text not in STAGES]
    with tempfile.TemporaryDirectory(prefix="accept-", dir=options.folder) as folder:
        for name in options.stages or STAGES:
            left = 60 * options.minutes - (time.monotonic() - began)
            seconds = min(left, STAGES[name][1] * 60 * options.minutes)
            print(f"{name} (at most {seconds:.0f} s)", flush=True)
            result = _stage(name, [*passed, "--folder", folder], Path(folder) / f"{name}.jsonl", seconds)
            found = Acceptance(machine=found.machine, stages=(*found.stages, result))
            if options.json:
                found.save(options.json)
    return found


def _stage(name: str, arguments: list[str], lines: Path, seconds: float) -> StageResult:
    """Run a stage in a process group of its own, and kill it when its time is over."""
    if seconds < LEAST_SECONDS:
        return StageResult(name=name, status="not tested", seconds=0.0, note="no time left; give more --minutes")
    began, log = time.monotonic(), lines.with_suffix(".log")
    command = [sys.executable, "-m", "sra.accept", *arguments, name, "--lines", str(lines)]
    died = ""
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors, start_new_session=True)
        try:
            while process.poll() is None and not died:
                job.check_stop()
                time.sleep(0.05)
                if time.monotonic() - began > seconds:
                    died = f"took longer than {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode != 0 and not died:
        last = log.read_text(errors="replace").strip().splitlines()
        died = f"exit code {process.returncode}: {last[-1][:300] if last else 'no output'}"
    findings, results, untested = read_lines(lines)
    failed = any(finding.ok is False for finding in findings)
    status: Status = "died" if died else "not tested" if untested else "failed" if failed else "passed"
    if died:
        print(f"  ! {name}: {died}", flush=True)
    seconds = time.monotonic() - began
    return StageResult(
        name=name, status=status, seconds=seconds, note=died or untested, findings=findings, results=results
    )


if __name__ == "__main__":
    job.run(main)
