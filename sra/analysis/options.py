"""Command-line options of `pca` and `probe`: network, codec, blocks and noise levels. Torch-free."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sra.common.errors import DataError, expected
from sra.config import CodecConfig, ConfigError, ModelConfig, TrainJob, parse_model_name
from sra.runtime import job

CONVENTIONS = ("sra", "vanilla-sit", "vanilla-dit")
VANILLA = {"sit": "vanilla-sit", "dit": "vanilla-dit"}


@dataclass(frozen=True, kw_only=True)
class View:
    """A network, its codec, and the blocks and noise levels to inspect."""

    checkpoint: Path
    weights: str
    """`ema` or `model`, where the file has both."""
    model: ModelConfig
    codec: CodecConfig
    blocks: tuple[int, ...]
    """Counted from 1."""
    times: tuple[float, ...]
    """Noise levels: 0 is the image, 1 is noise, in every convention; DiT: fractions of its last step."""
    legacy_time: bool
    """Whether a vanilla SiT is given t, as in the paper's figure, instead of 1 - t, as in its training."""
    seed: int

    def network_time(self, t: float) -> float:
        """Time that a SiT is given at noise level t."""
        reversed_time = self.model.convention == "vanilla-sit" and not self.legacy_time
        return 1 - t if reversed_time else t


def add_options(parser: argparse.ArgumentParser, blocks: str, times: tuple[float, ...]) -> None:
    """Add the options of `pca` and `probe`.

    Args:
        parser: to add them to.
        blocks: default of `--blocks`, in words.
        times: default of `--times`.
    """
    add: Any = parser.add_argument
    add("checkpoint", type=Path, metavar="CKPT", help="weights: .safetensors of a run, or a published .pt")
    add("--stage", type=Path, metavar="DIR", help="train stage of CKPT (RUN/stages/train-...): its model and codec")
    add("--convention", choices=CONVENTIONS, help="convention of the weights' times and outputs; no default")
    add("--baseline", action="store_true", help="short for --convention vanilla-sit (or vanilla-dit)")
    add("--time", choices=("legacy", "correct"), default="correct", help="legacy: give a vanilla SiT t, not 1 - t")
    add("--model", default="SiT-XL/2", metavar="NAME", help="SiT-XL/2, DiT-B/4 or DEPTHxWIDTHxHEADS/PATCH (SiT-XL/2)")
    add("--resolution", type=int, default=256, help="image edge in pixels (256)")
    add("--classes", type=int, default=1000, help="classes of the network (1000)")
    add("--codec", default=CodecConfig.path, metavar="PATH", help=f"folder or hub id ({CodecConfig.path})")
    add("--codec-scale", type=float, default=CodecConfig.scale, help=f"factor on latents ({CodecConfig.scale})")
    add("--codec-factor", type=int, default=CodecConfig.factor, help=f"pixels per latent cell ({CodecConfig.factor})")
    add("--weights", choices=("ema", "model"), default="ema", help="which weights of a published file (ema)")
    add("--blocks", type=int, nargs="+", metavar="N", help=f"blocks, counted from 1 ({blocks})")
    add("--times", type=float, nargs="+", metavar="T", default=list(times), help=f"noise levels {times}")
    add("--seed", type=int, default=0, help="seed of noise (0)")


def view_of(options: argparse.Namespace, default_blocks: tuple[int, ...] | None = None) -> View:
    """Build the view from parsed options.

    Args:
        options: parsed from `add_options`.
        default_blocks: blocks if none are given, those within the network's depth; None: all.

    Raises:
        ConfigError: no convention, an unknown model, blocks beyond the network's depth, times outside [0, 1].
        DataError: the checkpoint does not exist.
    """
    model, codec = _from_stage(options) if options.stage else _from_options(options)
    depth = model.dimensions.depth
    everything = tuple(range(1, depth + 1))
    blocks = tuple(options.blocks or (b for b in default_blocks or everything if b <= depth))
    beyond = [b for b in blocks if not 1 <= b <= depth]
    if beyond:
        raise ConfigError(expected("--blocks", f"blocks from 1 to {depth}", beyond[0]))
    outside = [t for t in options.times if not 0 <= t <= 1]
    if outside:
        raise ConfigError(expected("--times", "noise levels in [0, 1]", outside[0]))
    legacy = options.time == "legacy"
    if legacy and model.convention != "vanilla-sit":
        raise ConfigError(expected("--time legacy", "convention vanilla-sit", model.convention))
    if not options.checkpoint.is_file():
        raise DataError(f"{options.checkpoint}: expected a checkpoint, got no file")
    return View(
        checkpoint=options.checkpoint,
        weights=options.weights,
        model=model,
        codec=codec,
        blocks=blocks,
        times=tuple(options.times),
        legacy_time=legacy,
        seed=options.seed,
    )


def _from_stage(options: argparse.Namespace) -> tuple[ModelConfig, CodecConfig]:
    """The network and codec of a train stage."""
    if options.convention or options.baseline:
        raise ConfigError(
            "--stage: expected no --convention or --baseline beside it (the stage has its convention), got one"
        )
    config = job.read_config(options.stage / "stage.json", TrainJob)
    return config.model, config.codec


def _from_options(options: argparse.Namespace) -> tuple[ModelConfig, CodecConfig]:
    try:
        name = parse_model_name(options.model)
    except ConfigError as error:
        raise ConfigError(f"--model: {error}") from error
    family = name.family or "sit"
    model = ModelConfig(
        family=family,
        size=name.size,
        patch=name.patch,
        resolution=options.resolution,
        classes=options.classes,
        convention=_convention(options, VANILLA[family]),
    )
    codec = CodecConfig(path=options.codec, scale=options.codec_scale, factor=options.codec_factor)
    if model.resolution % (codec.factor * model.patch):
        raise ConfigError(expected("--resolution", f"a multiple of {codec.factor * model.patch}", model.resolution))
    return model, codec


def _convention(options: argparse.Namespace, vanilla: str) -> Any:
    """The convention given by one of two options; never inferred from the file."""
    if options.baseline and options.convention not in (None, vanilla):
        raise ConfigError(expected("--baseline", f"--convention {vanilla} or none", options.convention))
    convention = vanilla if options.baseline else options.convention
    if convention is None:
        raise ConfigError(f"--convention: missing, expected one of {', '.join(CONVENTIONS)} (or --baseline)")
    return convention
