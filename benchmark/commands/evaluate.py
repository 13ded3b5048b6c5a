"""`sra-bench evaluate`: each tool in a process of its own, their records side by side."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark.assets.catalogue import located, remedy
from benchmark.commands.tool_options import ToolOptions
from benchmark.machine.gpus import missing_framework
from benchmark.manifest.schema import TOOLS
from benchmark.plan.run_directory import read_json
from benchmark.report.crosscheck import disagreements
from benchmark.run.local import interpreter_of
from benchmark.run.runner import STOPPED, StoppedError, job_environment
from evaluator.tools import TOOL_MODULES
from sra.config import UserError


def score_samples(
    samples: Path, reference: Path, graph: str, tools: list[str] | None, options: ToolOptions | None = None
) -> tuple[dict[str, Any], str]:
    """Scores of one sample set by each tool, and a table of them.

    Raises:
        UserError: a file is not there, or the tools refuse it.
    """
    for name, place in (("--samples", samples), ("--reference", reference)):
        if not place.exists():
            raise UserError(f"{name} {place}: not found; a .npz file, a folder or a zip of images is needed")
    where, own = _graph(graph), options or ToolOptions()
    records = {tool: _score(tool, samples, reference, where, own.argv(tool)) for tool in tools or TOOLS}
    warnings = disagreements(records)
    document = {
        "schema": 1,
        "metrics": {tool.replace("-", "_"): r["metrics"] for tool, r in records.items()},
        "intervals": {tool.replace("-", "_"): r.get("intervals", {}) for tool, r in records.items()},
        "errors": {tool.replace("-", "_"): r["error"] for tool, r in records.items() if r.get("error")},
        "cross_check": warnings,
        "records": records,
    }
    lines = [line for tool, record in records.items() for line in _lines(tool, record)]
    return document, "\n".join([*lines, *(f"warning: {text}" for text in warnings)])


def convert_inception(graph: str, out: Path) -> str:
    """Take the Inception network out of a frozen graph; returns what was written, in words.

    Raises:
        UserError: not such a graph, or a place that cannot be written.
    """
    command = [sys.executable, "-m", "evaluator.inception.convert", _graph(graph), str(out)]
    return _job("convert-inception", command, subprocess.PIPE).strip()


def _graph(name: str) -> str:
    where = located(name)
    if not where.startswith("embedded:") and not Path(where).is_file():
        raise UserError(f"--graph {name}: not found{_remedy(where)}")
    return where


def _remedy(place: str) -> str:
    how = remedy(place)
    return f": {how}" if how else "; a frozen .pb file, asset:inception-graph or embedded:digits is needed"


def _score(tool: str, samples: Path, reference: Path, graph: str, options: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "scores.json"
        command = [
            interpreter_of(TOOL_MODULES[tool]),
            "-m",
            TOOL_MODULES[tool],
            "--samples",
            str(samples),
            "--json",
            str(record),
        ]
        command += ["--reference", str(reference), "--graph", graph, *options]
        _job(tool, command)
        found = read_json(record)
    assert found is not None, f"{tool} left no record"
    return found


def _job(name: str, command: list[str], output: int | None = None) -> str:
    """Run a job; returns what it prints where `output` is a pipe.

    Raises:
        UserError: it refused its input, or died.
        StoppedError: it was asked to stop, or this process was.
    """
    pipes: dict[str, Any] = {"stdout": output, "stderr": subprocess.PIPE}
    try:
        done = subprocess.run(command, **pipes, text=True, env=job_environment(), check=False)
    except KeyboardInterrupt:
        raise StoppedError from None
    if done.returncode == STOPPED:
        raise StoppedError
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode == 2 and errors:
        raise UserError(errors[-1].removeprefix("error: "))
    if done.returncode != 0 and (why := missing_framework(done.stderr)):
        raise UserError(f"{name}: {why}")
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        raise UserError(f"{name} ended with exit code {done.returncode}")
    return done.stdout or ""


def _lines(tool: str, record: dict[str, Any]) -> list[str]:
    if record.get("error"):
        return [f"{tool:16} could not run: {record['error']}"]
    intervals = record.get("intervals", {})
    lines = [
        f"{tool:16} {name:22} {value:.6g}{_interval(intervals.get(name))}"
        for name, value in record["metrics"].items()
        if value is not None
    ]
    lines += [f"{tool:16} warning: {text}" for text in record.get("warnings", [])]
    return lines + [f"{tool:16} {name:22} {why}" for name, why in record["settings"].get("reasons", {}).items()]


def _interval(ends: list[float] | None) -> str:
    return f"  [{ends[0]:.6g}, {ends[1]:.6g}]" if ends else ""
