"""One call of the command: options, devices, modes and results."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import sra.perf
from sra.common.errors import ConfigError
from sra.common.validation import ArgumentParser
from sra.config import ModelConfig, SampleConfig, SampleJob, TrainConfig, TrainJob
from sra.model import flops
from sra.perf.cases import CODEC, Mode, align_of, mode_of, model_of
from sra.perf.results import Document, Result, machine, peak_of, ratio_of, summary
from sra.perf.timing import Clock, Subject, free_memory, peak_memory, synchronize, time_in_turn, time_parts
from sra.perf.workloads import Encoding, Loading, NoCodec, Sampling, Training, make_codec, make_latents, world
from sra.runtime.device import facts_of

PARTS = ("latents", "train", "sample")


def parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    more = "`sra-bench perf evaluate` measures scoring and has options of its own: `sra-bench perf evaluate --help`."
    found = ArgumentParser(prog="sra-bench perf", description=sra.perf.__doc__, epilog=more)
    add = found.add_argument
    add("what", choices=[*PARTS, "all", "scaling"])
    add("--mode", default="fast", help="fast or reference, with switches: reference:ema=foreach")
    add("--compare", nargs="*", metavar="MODE", help="measure two modes in turn (default: reference fast)")
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
    add("--batch", type=int, help="images per round and process")
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
    add("--folder", type=Path, help="for generated data (default: a temporary folder)")
    add("--json", action="store_true", help="print JSON")
    add("--out", type=Path, help="write JSON to a file")
    add("--save", action="store_true", help="store the results for `sra-bench plan`")
    return found


class Session:
    """One call of the command: its devices, modes and results."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.device = torch.device(options.device)
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise ConfigError(f"--device: expected cpu where no GPU is visible, got {options.device!r}")
            self.device = torch.device("cuda", world()[0] % torch.cuda.device_count())
            torch.cuda.set_device(self.device)
        self.gpu = self.device.type == "cuda"
        if options.time == "processor" and (self.gpu or options.save):
            raise ConfigError("--time: expected wall on a GPU or with --save, got 'processor'")
        Clock.now = time.process_time if options.time == "processor" else time.perf_counter
        names = [options.mode] if options.compare is None else options.compare or ["reference", "fast"]
        if len(names) > 2:
            raise ConfigError(f"--compare: expected two modes, got {len(names)}")
        self.modes = [mode_of(name, self.device.type) for name in names]
        self.models = options.model or (["XL/2"] if self.gpu else ["S/2"])
        self.document = Document(time=options.time, machine=machine(self.device))
        self.after: Callable[[Subject], None] = lambda _subject: None
        """Called with every subject that was measured."""

    def measure(self, subjects: Sequence[Subject], labels: Sequence[str], what: str) -> list[dict[str, Any]]:
        """Time one or two subjects in turn. Returns keyword arguments of `Result` for each."""
        for subject in subjects:
            subject.run(self.options.warmup)
            synchronize(self.device)
        seconds = time_in_turn(subjects, self.options.steps, self.options.inner or (10 if self.gpu else 1))
        memory = peak_memory(self.device) if len(subjects) == 1 else None
        if len(subjects) == 2:
            self.document.ratios.append(ratio_of(seconds[0], seconds[1], (labels[0], labels[1]), what))
        found: list[dict[str, Any]] = []
        for subject, times in zip(subjects, seconds, strict=True):
            middle, spread = summary(times)
            parts = time_parts(subject, max(3, self.options.steps // 4))
            self.after(subject)
            found.append({"what": what, "rounds": len(times), "milliseconds": middle, "spread": spread, "parts": parts})
            found[-1]["memory_bytes"] = memory
        return found

    def record(self, mode: Mode, batch: int, times: dict[str, Any], **facts: Any) -> None:
        """Add a result; its images per second are those of all processes."""
        rate = 1e3 * batch * facts.get("processes", 1) / times["milliseconds"]
        common = {"mode": mode.name, "resolution": self.options.resolution, "batch": batch, "images_per_second": rate}
        self.document.results.append(Result(**common, **times, **facts))

    def latents(self) -> None:
        """Loading of latents with one thread; with `--codec`, encoding of images in the last mode."""
        options = self.options
        batch, shape = options.batch or 256, CODEC.moments_shape(options.resolution)
        subjects = [Loading(make_latents(self.folder, mode, shape, options.count), batch) for mode in self.modes]
        for mode, times in zip(self.modes, self.measure(subjects, self._mode_names(), "latents"), strict=True):
            self.record(mode, batch, times)
        if options.codec not in (None, "none"):
            codec, batch = make_codec(options.codec, self.device), min(batch, 64 if self.gpu else 4)
            (times,) = self.measure([Encoding(codec, options.resolution, batch)], self._mode_names()[-1:], "encode")
            self.record(self.modes[-1], batch, times, precision="fp32")

    def train(self) -> None:
        """Training steps of every network, with two modes or two alignments in turn."""
        for name in self.models:
            pairs = [(mode, align) for align in self.options.align for mode in self.modes]
            size = len(pairs) if len(pairs) == 2 else len(self.modes)
            for start in range(0, len(pairs), size):
                self._train(name, pairs[start : start + size])

    def _train(self, name: str, pairs: Sequence[tuple[Mode, str]]) -> None:
        options, processes = self.options, world()[1]
        model = model_of(name, options.family, options.resolution)
        batch, precision = options.batch or (32 if self.gpu else 8), self._precision("fp16")
        settings = TrainConfig(steps=1, global_batch=batch * processes, precision=precision)
        free_memory(self.device)
        aligns = [align_of(kind, options.blocks, model, mode) for mode, kind in pairs]
        jobs = [TrainJob(seed=0, codec=CODEC, model=model, train=settings, align=align) for align in aligns]
        subjects = [
            Training(config, mode, self.folder, self.device) for (mode, _), config in zip(pairs, jobs, strict=True)
        ]
        measured = self.measure(subjects, [f"{mode.name} {kind}" for mode, kind in pairs], "train")
        for (mode, _), align, times in zip(pairs, aligns, measured, strict=True):
            macs = flops.training_macs(model, CODEC, align)
            facts = self._network(model, mode, precision) | {"processes": processes, "macs_per_image": macs}
            mfu = self._mfu(precision, 2e3 * macs * batch / times["milliseconds"])
            self.record(mode, batch, times, **facts, align=None if align is None else align.kind, mfu=mfu)

    def sample(self) -> None:
        """Sampling with every network."""
        options = self.options
        codec = make_codec(options.codec or ("random" if find_spec("diffusers") else "none"), self.device)
        batch, precision = options.batch or (64 if self.gpu else 4), self._precision("tf32")
        common: dict[str, Any] = {"steps": options.nfe, "cfg": options.cfg, "precision": precision, "batch": batch}
        if options.family == "dit":
            config = SampleConfig(sampler="ddpm", **common)
        else:
            config = SampleConfig(guidance_interval=tuple(options.interval), **common)
        for name in self.models:
            model = model_of(name, options.family, options.resolution)
            free_memory(self.device)
            job = SampleJob(seed=0, codec=CODEC, model=model, sample=config, checkpoint="")
            subjects = [Sampling(job, mode, codec, self.folder) for mode in self.modes]
            measured = self.measure(subjects, self._mode_names(), "sample")
            for mode, subject, times in zip(self.modes, subjects, measured, strict=True):
                macs, evaluations = flops.count(model, CODEC).forward, subject.evaluations / subject.images
                facts = self._network(model, mode, precision) | {"macs_per_image": macs}
                mfu = self._mfu(precision, 2e3 * macs * evaluations * batch / times["parts"]["network"])
                decoded = not isinstance(codec, NoCodec)
                self.record(mode, batch, times, **facts, evaluations_per_image=evaluations, mfu=mfu, decoded=decoded)

    def _network(self, model: ModelConfig, mode: Mode, precision: str) -> dict[str, Any]:
        network = {"family": model.family, "size": model.size_label, "patch": model.patch}
        return {**network, "speed": vars(mode.speed), "precision": facts_of(self.device, precision)["precision"]}

    def _precision(self, on_gpu: str) -> Any:
        return self.options.precision or (on_gpu if self.gpu else "fp32")

    def _mode_names(self) -> list[str]:
        return [mode.name for mode in self.modes]

    def _mfu(self, precision: str, flops_per_second: float) -> float | None:
        peak = peak_of(self.document.machine["device"], precision)
        return flops_per_second / peak if peak else None
