"""Linear probing of block outputs: `python -m sra.analysis.probe CKPT --latents DIR --convention NAME --out DIR`."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sra.analysis.options import View, add_options, view_of
from sra.common.errors import ConfigError, DataError, expected
from sra.common.files import check_place, load_json, replacing, write_json
from sra.common.validation import ArgumentParser
from sra.config import to_plain
from sra.data.packed import Array, PackedFolder, check_shape
from sra.runtime import job

if TYPE_CHECKING:
    import torch

    from sra.analysis.features import FeatureExtractor

TIMES = (0.5,)


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Settings of linear probing, those of the SRA paper where it states them."""

    epochs: int = 80
    batch: int = 4096
    lr: float = 1e-3
    """First learning rate, cosine to 0."""
    holdout: float = 0.2
    """Fraction of the latents that is used for testing, if no other latents are given for it."""
    limit: int | None = None
    """Number of latents used, drawn at random; None: all."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(expected(f"--{name}", "a positive integer", getattr(self, name)))
        if not 0 < self.holdout < 1:
            raise ConfigError(expected("--holdout", "a number in (0, 1)", self.holdout))
        if self.lr <= 0:
            raise ConfigError(expected("--lr", "a positive number", self.lr))
        if self.limit is not None and self.limit < 10:
            raise ConfigError(expected("--limit", "at least 10", self.limit))


def split(count: int, settings: ProbeSettings, seed: int) -> tuple[Array, Array]:
    """Training and test indices, in random order."""
    order = np.random.default_rng(seed).permutation(count)[: settings.limit]
    held = max(1, round(len(order) * settings.holdout))
    return order[held:], order[:held]


def pooled(extractor: FeatureExtractor, data: PackedFolder, indices: Array, t: float, batch: int) -> Array:
    """Block outputs averaged over tokens: (blocks, N, D) float32.

    The network gets the null label: with the class as an input, features would reveal it.
    """
    import torch

    from sra.data.latents import sample_latent

    view, device = extractor.view, extractor.device
    features = np.empty((len(view.blocks), len(indices), view.model.dimensions.width), np.float32)
    progress = job.Progress(f"features at t = {t:g}", len(indices), " latents")
    for start in range(0, len(indices), batch):
        job.check_stop()
        chosen = indices[start : start + batch]
        moments = torch.from_numpy(np.asarray(data.moments[np.sort(chosen)], np.float32)).to(device)
        positions = torch.from_numpy(np.sort(chosen)).to(device)
        eps, noise = extractor.noise(positions, (moments.shape[1] // 2, *moments.shape[2:]))
        labels = torch.full((len(chosen),), extractor.network.null_label, device=device)
        outputs = extractor.outputs(sample_latent(moments, eps, view.codec.scale), labels, noise, t)
        back = np.argsort(np.argsort(chosen))
        for row, block in enumerate(view.blocks):
            features[row, start : start + len(chosen)] = outputs[block].mean(1).cpu().numpy()[back]
        progress.update(len(chosen))
    return features


class Probing:
    """Probes of all blocks and noise levels of one network; finished levels are saved in `probe.json`."""

    def __init__(self, view: View, settings: ProbeSettings, out: Path) -> None:
        self.view, self.settings, self.out = view, settings, out

    def run(self, data: PackedFolder, validation: PackedFolder | None, batch: int) -> dict[str, Any]:
        """Accuracies by time and block, also written to `probe.json` and drawn to `probe.png`.

        Args:
            data: training latents.
            validation: test latents; None: a part of `data`.
            batch: latents per forward pass.
        """
        document: dict[str, Any] = {"settings": self._facts(data, validation), "rows": self._earlier(data, validation)}
        missing = [t for t in self.view.times if t not in {row["t"] for row in document["rows"]}]
        if missing:
            self._measure(missing, data, validation, batch, document)
        write_json(self.out / "probe.json", document)
        draw(document["rows"], self.out / "probe.png")
        return document

    def _measure(
        self,
        times: list[float],
        data: PackedFolder,
        validation: PackedFolder | None,
        batch: int,
        document: dict[str, Any],
    ) -> None:
        import torch

        from sra.analysis.features import FeatureExtractor

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        extractor = FeatureExtractor(self.view, device)
        learn, held = split(data.count, self.settings, self.view.seed)
        self._check_memory(len(learn) + (validation or data).count)
        parts = [(data, learn), (data, held)]
        if validation is not None:
            parts = [(data, np.concatenate([learn, held])), (validation, np.arange(validation.count))]
        labels = [folder.labels[indices] for folder, indices in parts]
        for t in times:
            features = [pooled(extractor, folder, indices, t, batch) for folder, indices in parts]
            document["rows"] += self._probes(t, features, labels, device)
            write_json(self.out / "probe.json", document)

    def _check_memory(self, count: int) -> None:
        needed = 4 * count * len(self.view.blocks) * self.view.model.dimensions.width
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > free:
            raise ConfigError(
                f"features of {len(self.view.blocks)} blocks and {count} latents need {needed / 1e9:.1f} GB of memory, "
                f"{free / 1e9:.1f} GB are free: give fewer --blocks or a --limit"
            )

    def _probes(
        self, t: float, features: list[Array], labels: list[Array], device: torch.device
    ) -> list[dict[str, Any]]:
        from sra.analysis.features import probe_accuracy

        rows = []
        for row, block in enumerate(self.view.blocks):
            job.check_stop()
            known, found = probe_accuracy(
                (features[0][row], labels[0]),
                (features[1][row], labels[1]),
                self.view.model.classes,
                epochs=self.settings.epochs,
                batch=self.settings.batch,
                lr=self.settings.lr,
                seed=self.view.seed,
                device=device,
            )
            print(f"t = {t:g}, block {block}: accuracy {found:.4f} (on training latents {known:.4f})", flush=True)
            rows.append({"t": t, "block": block, "accuracy": found, "train_accuracy": known})
        return rows

    def _facts(self, data: PackedFolder, validation: PackedFolder | None) -> dict[str, Any]:
        """Everything that a row depends on, except its noise level."""
        view = {k: v for k, v in to_plain(self.view).items() if k not in ("checkpoint", "times")}
        places = {"latents": str(data.path), "validation": str(validation.path) if validation else None}
        checkpoint = self.view.checkpoint
        identity = [str(checkpoint.resolve()), checkpoint.stat().st_size, checkpoint.stat().st_mtime_ns]
        return {**view, **places, "checkpoint": identity, **to_plain(self.settings), "optimizer": "adam"}

    def _earlier(self, data: PackedFolder, validation: PackedFolder | None) -> list[dict[str, Any]]:
        """Rows saved by an earlier call with the same settings."""
        try:
            document = load_json(self.out / "probe.json") or {}
            same = document["settings"] == json.loads(json.dumps(self._facts(data, validation)))
            return [row for row in document["rows"] if row["t"] in self.view.times] if same else []
        except (DataError, KeyError, TypeError):
            return []


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Draw accuracy by block as PNG, one line a noise level."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for t in dict.fromkeys(row["t"] for row in rows):
        line = sorted((row["block"], row["accuracy"]) for row in rows if row["t"] == t)
        axis.plot(*zip(*line, strict=True), marker="o", label=f"t = {t:g}")
    axis.set(xlabel="block", ylabel="top-1 accuracy of a linear probe")
    axis.grid(visible=True, alpha=0.3)
    axis.legend()
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    """Train a linear classifier on each block's averaged output and plot its accuracy by block."""
    parser = ArgumentParser(prog="sra-bench probe", description=main.__doc__)
    add_options(parser, "all", TIMES)
    add: Any = parser.add_argument
    add("--latents", type=Path, required=True, metavar="DIR", help="packed training latents")
    add("--validation", type=Path, metavar="DIR", help="packed test latents; default: a part of --latents")
    add("--out", type=Path, default=Path("probe"), metavar="DIR", help="folder of probe.json and probe.png (probe)")
    add("--forward-batch", type=int, default=256, help="latents per forward pass (256)")
    for name, kind in (("epochs", int), ("batch", int), ("lr", float), ("holdout", float), ("limit", int)):
        default = getattr(ProbeSettings, name)
        add(f"--{name}", type=kind, default=default, help="all" if default is None else f"default: {default}")
    options = parser.parse_args(arguments)
    names = ("epochs", "batch", "lr", "holdout", "limit")
    settings = ProbeSettings(**{name: getattr(options, name) for name in names})
    view = view_of(options)
    data, validation = _open(options, view)
    if options.out.is_file():
        raise ConfigError(f"--out {options.out}: expected a folder, got a file")
    check_place(options.out / "probe.json", "--out")
    Probing(view, settings, options.out).run(data, validation, options.forward_batch)
    print(f"{options.out / 'probe.json'}, {options.out / 'probe.png'}", flush=True)


def _open(options: argparse.Namespace, view: View) -> tuple[PackedFolder, PackedFolder | None]:
    folders = [PackedFolder(path) for path in (options.latents, options.validation) if path is not None]
    for folder in folders:
        check_shape(folder.shape, view.codec.moments_shape(view.model.resolution), str(folder.path))
        if folder.classes > view.model.classes:
            raise ConfigError(
                expected(str(folder.path), f"at most {view.model.classes} classes (the network's)", folder.classes)
            )
    return folders[0], folders[1] if len(folders) > 1 else None


if __name__ == "__main__":
    job.run(main)
