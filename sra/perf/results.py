"""Results: one JSON document, its text form, and the cost table that `sra-bench plan` reads.

    {"schema": 1, "time": "wall", "machine": {...}, "results": [Result, ...], "ratios": [Ratio, ...]}

Times are medians of wall-clock time, unless `time` says `processor`.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sra.common.errors import UserError
from sra.common.files import COST_TABLE, cache_file, write_json
from sra.common.processes import usable_cores

SCHEMA = 1
PEAK_FLOPS = {
    "H200": (989.4e12, 494.7e12),
    "H100 80GB HBM3": (989.4e12, 494.7e12),
    "H100 PCIe": (756.5e12, 378e12),
    "A100": (312e12, 156e12),
}
"""Dense peak in FLOP/s from the vendor's data sheets: (16-bit tensor cores, TF32 tensor cores)."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Measurement of one subject in one mode."""

    what: str
    """latents, encode, train or sample."""
    mode: str
    speed: dict[str, str] | None = None
    """Resolved switches; None for latents."""
    family: str | None = None
    size: str | None = None
    patch: int | None = None
    resolution: int
    align: str | None = None
    precision: str | None = None
    batch: int
    """Images per round and process."""
    processes: int = 1
    rounds: int
    """Number of measurements."""
    milliseconds: float
    """Median of a round: an optimizer step, or a sampled or loaded batch."""
    spread: tuple[float, float]
    """Quartiles in milliseconds."""
    images_per_second: float
    """Over all processes."""
    parts: dict[str, float] = field(default_factory=dict)
    """Median milliseconds of each part, measured separately: they may add up to more than a round."""
    macs_per_image: int | None = None
    """Multiply-accumulates of a training step or of one evaluation, see `sra.model.flops`."""
    evaluations_per_image: float | None = None
    """Sampling: network evaluations per image."""
    mfu: float | None = None
    """Model FLOPs utilisation: counted FLOPs over the device's peak; None: unknown peak."""
    memory_bytes: int | None = None
    """Peak of one GPU, or of the process on a CPU; None: shared by several subjects."""
    decoded: bool = False
    """Sampling: whether images were decoded."""


def machine(device: torch.device) -> dict[str, Any]:
    """Hardware and versions that the numbers belong to."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "memory_bytes": torch.cuda.get_device_properties(device).total_memory if cuda else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.processor() or platform.machine()}"


def peak_of(device: str, precision: str) -> float | None:
    """Dense peak in FLOP/s of a device at a precision; None: unknown."""
    for name, (half, tf32) in PEAK_FLOPS.items():
        if name in device:
            return {"fp16": half, "bf16": half, "tf32": tf32}.get(precision)
    return None


def summary(seconds: list[float]) -> tuple[float, tuple[float, float]]:
    """Median and quartiles in milliseconds."""
    values = [1e3 * s for s in seconds]
    if len(values) < 2:
        return values[0], (values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, (low, high)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster one subject is than another, measured in turn."""

    what: str
    slow: str
    fast: str
    ratio: float
    """Median over pairs of neighbouring rounds."""
    quartiles: tuple[float, float]


def ratio_of(slow: list[float], fast: list[float], names: tuple[str, str], what: str) -> Ratio:
    """Ratio of the times of two subjects."""
    middle, quartiles = summary([a / b / 1e3 for a, b in zip(slow, fast, strict=True)])
    return Ratio(what=what, slow=names[0], fast=names[1], ratio=middle, quartiles=quartiles)


@dataclass(frozen=True, kw_only=True)
class Document:
    """Everything that one call has measured."""

    time: str
    machine: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The document as it is written."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def as_text(self) -> str:
        """Lines for the terminal."""
        about = self.machine
        lines = [f"{about['device']}, torch {about['torch']}, {about['threads']} threads, {self.time} time"]
        for row in self.results:
            lines.append(line(row))
            lines += [f"    {name:<12}{value:10.2f} ms" for name, value in row.parts.items()]
        for pair in self.ratios:
            low, high = pair.quartiles
            lines.append(f"{pair.what}: {pair.fast} is {pair.ratio:.3f} x {pair.slow} (quartiles {low:.3f}-{high:.3f})")
        return "\n".join(lines)


def line(row: Result) -> str:
    """One line: what was measured, then the numbers."""
    network = f"{row.family}-{row.size}/{row.patch} " if row.size else ""
    facts = [f"{row.what} {network}{row.resolution} px", f"batch {row.batch}", row.mode]
    facts += [name for name in (row.align, row.precision) if name]
    facts += [f"{row.processes} processes"] if row.processes > 1 else []
    numbers = f"{row.milliseconds:.2f} ms, {row.images_per_second:.1f} images/s"
    numbers += f", MFU {100 * row.mfu:.1f} %" if row.mfu else ""
    numbers += f", {row.memory_bytes / 2**30:.2f} GiB" if row.memory_bytes else ""
    return f"{', '.join(facts)}: {numbers}"


def save(document: Document) -> Path:
    """Merge the results of mode `fast` into the cost table of this machine, replacing older rows of the same kind.

    Raises:
        UserError: the existing table cannot be read.
    """
    path = cache_file(*COST_TABLE)
    device = document.machine["device"]
    table: dict[str, Any] = {"schema": SCHEMA, "device": device, "device_bytes": document.machine.get("memory_bytes")}
    table |= {"train": [], "sample": [], "latents": []}
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            table |= found if found["device"] == device else {}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: expected a cost table, got {error}; remove it or measure again") from error
    for result in document.results:
        if result.mode == "fast" and result.what in TABLES:
            kind = TABLES[result.what]
            new = _cost_row(result)
            same = [name for name in new if name not in MEASURED]
            table[kind] = [row for row in table[kind] if any(row.get(name) != new[name] for name in same)] + [new]
    write_json(path, table)
    return path


TABLES = {"train": "train", "sample": "sample", "encode": "latents"}
"""What was measured, and the table of its costs."""
MEASURED = ("seconds_per_image", "seconds_per_evaluation", "seconds_per_decode", "memory_bytes", "keeps_gradients")
"""Columns that do not identify a row."""


def _cost_row(result: Result) -> dict[str, Any]:
    if result.what == "encode":
        return {"resolution": result.resolution, "seconds_per_image": 1 / result.images_per_second}
    network = {name: getattr(result, name) for name in ("family", "size", "patch", "resolution", "precision")}
    if result.what == "train":
        return {
            **network,
            "align": result.align,
            "images_per_device": result.batch,
            "seconds_per_image": result.processes / result.images_per_second,
            "memory_bytes": result.memory_bytes,
            "keeps_gradients": result.processes > 1,
        }
    assert result.evaluations_per_image is not None
    return {
        **network,
        "seconds_per_evaluation": result.parts["network"] / 1e3 / result.batch / result.evaluations_per_image,
        "seconds_per_decode": result.parts["decode"] / 1e3 / result.batch if result.decoded else 0.0,
        "memory_bytes": result.memory_bytes,
    }
