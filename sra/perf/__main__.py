"""The command `python -m sra.perf`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sra.common.errors import ConfigError
from sra.common.files import write_json
from sra.common.validation import ArgumentParser
from sra.config import SampleConfig
from sra.model import flops
from sra.perf import results, scaling
from sra.perf.cases import CODEC, Mode, align_of, mode_of, model_of
from sra.perf.clock import Clock, Subject, alternate, fresh, parts_of, peak_memory, wait
from sra.perf.loading import Loading
from sra.perf.results import Result
from sra.perf.sampling import Encoding, Sampling, make_codec
from sra.perf.training import Training, join, world
from sra.runtime import job
from sra.runtime.distributed import leave

PARTS = ("latents", "train", "sample")


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    more = "`sra-bench perf evaluate` measures scoring and has options of its own: `sra-bench perf evaluate --help`."
    found = ArgumentParser(prog="sra-bench perf", description=__doc__, epilog=more)
    add = found.add_argument
    add("what", choices=[*PARTS, "all", "scaling"])
    add("--mode", default="fast", help="fast or reference, with switches: reference:ema=foreach")
    add("--compare", nargs="*", metavar="MODE", help="measure two modes in turn; default: reference fast")
    add("--model", nargs="+", default=None, metavar="SIZE/PATCH", help="default: XL/2, on a CPU S/2")
    add("--family", choices=("sit", "dit"), default="sit")
    add("--resolution", type=int, default=256, help="pixels")
    add("--align", nargs="+", default=["sra"], help="kinds of alignment, or none; two are measured in turn")
    add(
        "--blocks",
        type=int,
        nargs=2,
        help="student's and teacher's block; default by size, for others as B's",
    )
    add("--precision", choices=("fp32", "tf32", "fp16", "bf16"), help="default: train fp16, sample tf32; CPU fp32")
    add("--batch", type=int, help="images a round and process")
    add("--steps", type=int, default=20, help="measurements of each mode")
    add("--warmup", type=int, default=3, help="rounds before the first measurement")
    add("--inner", type=int, help="rounds of a measurement; default: 10 on a GPU, 1 on a CPU")
    add("--count", type=int, default=20_000, help="latents: size of the data set")
    add("--nfe", type=int, default=10, help="sample: steps of the sampler")
    add("--cfg", type=float, default=1.8, help="sample: guidance scale")
    add("--interval", type=float, nargs=2, default=(0.0, 0.7), help="sample: interval of guidance")
    add("--codec", help="none, random or a codec; default: sample: random where diffusers is, latents: none")
    add("--processes", type=int, nargs="+", default=[1, 2], help="scaling: numbers of processes")
    add("--repeats", type=int, default=3, help="scaling: measurements of each")
    add("--time", choices=("wall", "processor"), default="wall", help="processor: for ratios on a busy CPU, one thread")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--folder", type=Path, help="where data is made and kept; default: a temporary folder")
    add("--json", action="store_true", help="print JSON")
    add("--out", type=Path, help="write JSON to a file")
    add("--save", action="store_true", help="keep the results for `sra-bench plan`")
    return found


class Session:
    """One call of the command."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.device = torch.device(options.device)
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise ConfigError(f"--device {options.device}: no GPU is visible")
            self.device = torch.device("cuda", world()[0] % torch.cuda.device_count())
            torch.cuda.set_device(self.device)
        if options.time == "processor" and (self._gpu or options.save):
            raise ConfigError("--time processor: is for a CPU, and not for --save, which keeps wall-clock times")
        Clock.now = time.process_time if options.time == "processor" else time.perf_counter
        self.inner = options.inner or (10 if self.device.type == "cuda" else 1)
        names = [options.mode] if options.compare is None else options.compare or ["reference", "fast"]
        if len(names) > 2:
            raise ConfigError(f"--compare: needs two modes, found {len(names)}")
        self.modes = [mode_of(name, self.device.type) for name in names]
        self.results: list[Result] = []
        self.ratios: list[dict[str, Any]] = []

    def measure(self, subjects: Sequence[Subject], labels: Sequence[str], what: str) -> list[dict[str, Any]]:
        """Timings of one or two subjects, which take turns; the keys are those of `Result`."""
        for subject in subjects:
            subject.run(self.options.warmup)
            wait(self.device)
        seconds = alternate(subjects, self.options.steps, self.inner)
        memory = peak_memory(self.device) if len(subjects) == 1 else None
        if len(subjects) == 2:
            self.ratios.append(results.ratio_of(seconds[0], seconds[1], (labels[0], labels[1]), what))
        found = []
        for subject, times in zip(subjects, seconds, strict=True):
            middle, spread = results.summary(times)
            found.append(
                {
                    "what": what,
                    "rounds": self.options.steps,
                    "milliseconds": middle,
                    "spread": spread,
                    "parts": parts_of(subject, max(3, self.options.steps // 4)),
                    "memory_bytes": memory,
                }
            )
        return found

    def latents(self) -> None:
        """Loading of latents, one thread."""
        options = self.options
        batch = options.batch or 256
        side = options.resolution // CODEC.factor
        shape = (2 * CODEC.channels, side, side)
        subjects = [Loading(mode, shape, options.count, batch, self.folder) for mode in self.modes]
        for mode, times in zip(self.modes, self.measure(subjects, _names(self.modes), "latents"), strict=True):
            rate = 1e3 * batch / times["milliseconds"]
            facts = {"mode": mode.name, "resolution": options.resolution, "batch": batch}
            self.results.append(Result(**facts, **times, images_per_second=rate))
        if options.codec not in (None, "none"):
            self._encode(batch)

    def _encode(self, batch: int) -> None:
        """Images to latents, in the mode that comes last."""
        mode, resolution = self.modes[-1], self.options.resolution
        codec = make_codec(self.options.codec, self.device)
        batch = min(batch, 64 if self._gpu else 4)
        (times,) = self.measure([Encoding(codec, resolution, batch)], [mode.name], "encode")
        rate = 1e3 * batch / times["milliseconds"]
        facts = {"mode": mode.name, "resolution": resolution, "batch": batch, "precision": "fp32"}
        self.results.append(Result(**facts, **times, images_per_second=rate))

    def train(self) -> None:
        """Training steps of every network; of two modes, or of two alignments in one mode."""
        join(self.device)
        options = self.options
        for name in self._models():
            pairs = [(mode, align) for align in options.align for mode in self.modes]
            for group in (pairs,) if len(pairs) == 2 else _pairs(pairs, len(self.modes)):
                self._train(name, group)

    def _train(self, name: str, pairs: Sequence[tuple[Mode, str]]) -> None:
        options = self.options
        model = model_of(name, options.family, options.resolution)
        batch, precision = options.batch or (32 if self._gpu else 8), options.precision or self._usual("fp16")
        fresh(self.device)
        aligns = [align_of(kind, options.blocks, model, mode) for mode, kind in pairs]
        subjects = [
            Training(model, align, mode, precision, batch, self.folder, self.device)
            for (mode, _), align in zip(pairs, aligns, strict=True)
        ]
        labels = [f"{mode.name} {kind}" for mode, kind in pairs]
        measured = self.measure(subjects, labels, "train")
        for (mode, _), align, subject, times in zip(pairs, aligns, subjects, measured, strict=True):
            macs = flops.training_macs(model, CODEC, align)
            rate = 1e3 * batch * world()[1] / times["milliseconds"]
            facts = self._network(name, mode, precision, batch) | {"processes": world()[1]}
            kind = None if align is None else align.kind
            mfu = self._mfu(precision, 2 * macs * rate / world()[1])
            counted = {"align": kind, "macs_per_image": macs, "mfu": mfu, "images_per_second": rate}
            assert subject.losses[-1].total.isfinite(), "the measured steps must be steps"
            self.results.append(Result(**facts, **times, **counted))

    def sample(self) -> None:
        """Sampling with every network."""
        options = self.options
        wanted = options.codec or ("random" if _has_diffusers() else "none")
        codec = make_codec(wanted, self.device)
        batch, precision = options.batch or (64 if self._gpu else 4), options.precision or self._usual("tf32")
        settings = self._sampler(batch, precision)
        for name in self._models():
            model = model_of(name, options.family, options.resolution)
            fresh(self.device)
            subjects = [Sampling(model, settings, m, self.folder, self.device, codec) for m in self.modes]
            measured = self.measure(subjects, _names(self.modes), "sample")
            for mode, subject, times in zip(self.modes, subjects, measured, strict=True):
                macs = flops.count(model, CODEC).forward
                evaluations = subject.evaluated / subject.made
                network = times["parts"]["network"] / 1e3
                counted = {
                    "macs_per_image": macs,
                    "evaluations_per_image": evaluations,
                    "mfu": self._mfu(precision, 2 * macs * evaluations * batch / network),
                    "images_per_second": 1e3 * batch / times["milliseconds"],
                    "decoded": codec is not None,
                }
                self.results.append(Result(**self._network(name, mode, precision, batch), **times, **counted))

    def _sampler(self, batch: int, precision: Any) -> SampleConfig:
        options = self.options
        common = {"steps": options.nfe, "cfg": options.cfg, "precision": precision, "batch": batch}
        if options.family == "dit":
            return SampleConfig(sampler="ddpm", **common)
        return SampleConfig(guidance_interval=tuple(options.interval), **common)

    def _network(self, name: str, mode: Mode, precision: str, batch: int) -> dict[str, Any]:
        model = model_of(name, self.options.family, self.options.resolution)
        return {
            "mode": mode.name,
            "speed": vars(mode.speed),
            "family": model.family,
            "size": model.size_label,
            "patch": model.patch,
            "resolution": model.resolution,
            "precision": precision,
            "batch": batch,
        }

    @property
    def _gpu(self) -> bool:
        return self.device.type == "cuda"

    def _usual(self, precision: str) -> str:
        return precision if self._gpu else "fp32"

    def _models(self) -> list[str]:
        return self.options.model or (["XL/2"] if self._gpu else ["S/2"])

    def _mfu(self, precision: str, achieved: float) -> float | None:
        peak = results.peak_of(results.machine(self.device)["device"], precision)
        return achieved / peak if peak else None

    def document(self) -> dict[str, Any]:
        """Everything measured, as JSON has it."""
        rows = [results.plain(result) for result in self.results]
        about = results.machine(self.device)
        return {
            "schema": results.SCHEMA,
            "time": self.options.time,
            "machine": about,
            "results": rows,
            "ratios": self.ratios,
        }


def _names(modes: Sequence[Mode]) -> list[str]:
    return [mode.name for mode in modes]


def _pairs(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _has_diffusers() -> bool:
    from importlib.util import find_spec

    return find_spec("diffusers") is not None


def main(arguments: list[str]) -> None:
    """`python -m sra.perf {latents,train,sample,all,scaling}`."""
    options = parser().parse_args(arguments)
    if options.what == "scaling":
        document, text = _scaling(options, arguments)
    else:
        document = _measured(options)
        text = results.text_of(document)
    leave()
    if world()[0] > 0:
        return
    if options.out:
        write_json(options.out, document)
    print(json.dumps(document, indent=2) if options.json else text, flush=True)
    if options.save and options.what != "scaling":
        print(f"kept in {results.save(document)}", file=sys.stderr, flush=True)


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sra-perf-")))
        if world()[1] > 1:
            folder = folder / f"process-{world()[0]}"
        folder.mkdir(parents=True, exist_ok=True)
        session = Session(options, folder)
        for part in PARTS if options.what == "all" else (options.what,):
            getattr(session, part)()
        return session.document()


def _scaling(options: argparse.Namespace, arguments: list[str]) -> tuple[dict[str, Any], str]:
    """Everything but what belongs to `scaling` alone goes to the processes."""
    own = {"--processes", "--repeats", "--out", "--json", "--save"}
    kept: list[str] = []
    skipping = False
    for argument in arguments[1:]:
        if argument.startswith("--"):
            skipping = argument in own
        if not skipping:
            kept.append(argument)
    document = scaling.measure_scaling(options.processes, options.repeats, kept)
    document = {"schema": results.SCHEMA, "machine": results.machine(torch.device(options.device)), **document}
    return document, scaling.text_of(document)


if __name__ == "__main__":
    job.run(main)
