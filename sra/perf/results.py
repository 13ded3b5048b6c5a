"""What was measured: one JSON document, its lines of text, and the cost table that `sra-bench plan` reads.

    {"schema": 1, "time": "wall", "machine": {...}, "results": [Result, ...], "ratios": [{"slow", "fast", ...}, ...]}

Times are medians, of the wall clock unless `time` says `processor`; nothing that was not measured is in it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sra.common.errors import UserError
from sra.common.files import COST_TABLE, cache_file, write_json

SCHEMA = 1
# Dense peak in FLOP/s by the vendor's data sheets: (16-bit tensor cores, TF32 tensor cores).
PEAKS = {
    "H200": (989.4e12, 494.7e12),
    "H100 80GB HBM3": (989.4e12, 494.7e12),
    "H100 PCIe": (756.5e12, 378e12),
    "A100": (312e12, 156e12),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One subject in one mode."""

    what: str
    """latents, encode, train or sample."""
    mode: str
    speed: dict[str, str] | None = None
    """Resolved switches; latents have none."""
    family: str | None = None
    size: str | None = None
    patch: int | None = None
    resolution: int
    align: str | None = None
    precision: str | None = None
    batch: int
    """Images a round and process."""
    processes: int = 1
    rounds: int
    """Measurements that the median is of."""
    milliseconds: float
    """Median of a round: an optimizer step, or a batch that is sampled or loaded."""
    spread: tuple[float, float]
    """Quartiles of the same."""
    images_per_second: float
    """Over all processes."""
    parts: dict[str, float] = field(default_factory=dict)
    """Median milliseconds of each part, measured one by one: they may sum to more than a round."""
    macs_per_image: int | None = None
    """Counted, see `sra.model.flops`: of a training step, or of one evaluation."""
    evaluations_per_image: float | None = None
    """Sampling: network evaluations that were done for one image."""
    mfu: float | None = None
    """Counted FLOPs over the device's peak; None: the peak is not known."""
    memory_bytes: int | None = None
    """Peak of one device, or of the process on a CPU; None: several subjects shared it."""
    decoded: bool = False
    """Sampling: whether images were decoded."""


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers belong to."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.processor() or platform.machine()}"


def peak_of(device: str, precision: str) -> float | None:
    """Dense FLOP/s of a device at a precision; None: not known."""
    for name, (half, tf32) in PEAKS.items():
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


def ratio_of(slow: list[float], fast: list[float], names: tuple[str, str], what: str) -> dict[str, Any]:
    """How many times faster: the median over the rounds, of which each pair was measured together."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    middle, (low, high) = summary([r / 1e3 for r in ratios])
    return {"what": what, "slow": names[0], "fast": names[1], "ratio": middle, "quartiles": [low, high]}


def text_of(document: dict[str, Any]) -> str:
    """Lines for people."""
    about = document["machine"]
    lines = [f"{about['device']}, torch {about['torch']}, {about['threads']} threads, {document['time']} time"]
    for row in document["results"]:
        lines.append(_line(row))
        lines += [f"    {name:<12}{value:10.2f} ms" for name, value in row["parts"].items()]
    for row in document["ratios"]:
        low, high = row["quartiles"]
        lines.append(
            f"{row['what']}: {row['fast']} is {row['ratio']:.3f} x {row['slow']} (quartiles {low:.3f}-{high:.3f})"
        )
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    network = f"{row['family']}-{row['size']}/{row['patch']} " if row["size"] else ""
    facts = [f"{row['what']} {network}{row['resolution']} px", f"batch {row['batch']}", row["mode"]]
    facts += [str(row[name]) for name in ("align", "precision") if row[name]]
    facts += [f"{row['processes']} processes"] if row["processes"] > 1 else []
    numbers = f"{row['milliseconds']:.2f} ms, {row['images_per_second']:.1f} images/s"
    numbers += f", MFU {100 * row['mfu']:.1f} %" if row["mfu"] else ""
    numbers += f", {row['memory_bytes'] / 2**30:.2f} GiB" if row["memory_bytes"] else ""
    return f"{', '.join(facts)}: {numbers}"


def save(document: dict[str, Any]) -> Path:
    """Put the results of mode `fast` into the cost table of this machine; rows of the same kind are replaced.

    Raises:
        UserError: the table that is there cannot be read.
    """
    path = cache_file(*COST_TABLE)
    fresh = {"schema": SCHEMA, "device": document["machine"]["device"], "train": [], "sample": [], "latents": []}
    table: dict[str, Any] = fresh
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            table = {**fresh, **found} if found["device"] == fresh["device"] else fresh
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not a cost table: {error}; remove it or measure anew") from error
    for row in document["results"]:
        if row["mode"] == "fast" and row["what"] in RATES:
            kind, rate = RATES[row["what"]]
            _replace(table[kind], rate(row))
    write_json(path, table)
    return path


NETWORK = ("family", "size", "patch", "resolution", "precision")
MEASURED = ("seconds_per_image", "seconds_per_evaluation", "seconds_per_decode", "memory_bytes")


def _replace(rows: list[dict[str, Any]], new: dict[str, Any]) -> None:
    def identity(row: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in row.items() if name not in MEASURED}

    rows[:] = [row for row in rows if identity(row) != identity(new)] + [new]


def _train_rate(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in NETWORK},
        "align": row["align"],
        "images_per_device": row["batch"],
        "seconds_per_image": row["processes"] / row["images_per_second"],
        "memory_bytes": row["memory_bytes"],
    }


def _sample_rate(row: dict[str, Any]) -> dict[str, Any]:
    parts, batch = row["parts"], row["batch"]
    return {
        **{name: row[name] for name in NETWORK},
        "seconds_per_evaluation": parts["network"] / 1e3 / batch / row["evaluations_per_image"],
        "seconds_per_decode": parts["decode"] / 1e3 / batch if row["decoded"] else 0.0,
        "memory_bytes": row["memory_bytes"],
    }


def _encode_rate(row: dict[str, Any]) -> dict[str, Any]:
    return {"resolution": row["resolution"], "seconds_per_image": 1 / row["images_per_second"]}


# What was measured, to the table's kind of row.
RATES = {
    "train": ("train", _train_rate),
    "sample": ("sample", _sample_rate),
    "encode": ("latents", _encode_rate),
}


def plain(result: Result) -> dict[str, Any]:
    """As JSON has it."""
    row = dataclasses.asdict(result)
    return {**row, "spread": list(row["spread"])}
