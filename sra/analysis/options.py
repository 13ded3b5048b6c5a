"""Which network a feature view looks at: options shared by `pca` and `probe`, and their checks. Torch-free."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sra.common.errors import DataError
from sra.config import SIZES, CodecConfig, ConfigError, ModelConfig, Size, TrainJob
from sra.runtime import job

NAME = re.compile(
    r"(?:(?P<family>SiT|DiT)-)?(?P<size>S|B|L|XL|(?P<depth>\d+)x(?P<width>\d+)x(?P<heads>\d+))(?:/(?P<patch>\d+))?"
)

CONVENTIONS = ("sra", "vanilla-sit", "vanilla-dit")
VANILLA = {"sit": "vanilla-sit", "dit": "vanilla-dit"}


@dataclass(frozen=True, kw_only=True)
class View:
    """A network, its codec, and where in it to look."""

    checkpoint: Path
    weights: str
    """`ema` or `model`, where the file has both."""
    model: ModelConfig
    codec: CodecConfig
    blocks: tuple[int, ...]
    """Counted from 1."""
    times: tuple[float, ...]
    """Parts of noise: 0 is the image, 1 is noise, whatever the convention; DiT: of its last step."""
    legacy_time: bool
    """Whether a vanilla SiT is told t, as in the paper's figure, and not 1 - t, which is how it was trained."""
    seed: int

    def network_time(self, t: float) -> float:
        """What a SiT is told at noise level t."""
        reversed_time = self.model.convention == "vanilla-sit" and not self.legacy_time
        return 1 - t if reversed_time else t


def add_options(parser: argparse.ArgumentParser, blocks: str, times: tuple[float, ...]) -> None:
    """Options of every feature view.

    Args:
        parser: gets them.
        blocks: what is looked at by default, in words.
        times: default of `--times`.
    """
    add: Any = parser.add_argument
    add("checkpoint", type=Path, metavar="CKPT", help="weights: .safetensors of a run, or a published .pt")
    add("--stage", type=Path, metavar="DIR", help="train stage of CKPT (RUN/stages/train-...): its model and codec")
    add("--convention", choices=CONVENTIONS, help="what the weights mean by time and outputs; no default")
    add("--baseline", action="store_true", help="short for --convention vanilla-sit (or vanilla-dit)")
    add("--time", choices=("legacy", "correct"), default="correct", help="legacy: tell a vanilla SiT t, not 1 - t")
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
    """The view that options mean.

    Args:
        options: parsed from `add_options`.
        default_blocks: blocks where none are given, as far as the network has them; none: all.

    Raises:
        ConfigError: no convention, an unknown model, blocks beyond the network's depth, times outside [0, 1].
        DataError: a checkpoint that is not there.
    """
    model, codec = _from_stage(options) if options.stage else _from_options(options)
    depth = model.dimensions.depth
    everything = tuple(range(1, depth + 1))
    blocks = tuple(options.blocks or (b for b in default_blocks or everything if b <= depth))
    beyond = [b for b in blocks if not 1 <= b <= depth]
    if beyond:
        raise ConfigError(f"--blocks: found {beyond[0]}, the network has blocks 1 to {depth}")
    outside = [t for t in options.times if not 0 <= t <= 1]
    if outside:
        raise ConfigError(f"--times: found {outside[0]}, noise levels lie in [0, 1]")
    legacy = options.time == "legacy"
    if legacy and model.convention != "vanilla-sit":
        raise ConfigError(f"--time legacy is for convention vanilla-sit, found {model.convention!r}")
    if not options.checkpoint.is_file():
        raise DataError(f"{options.checkpoint}: no such checkpoint")
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
    """A stage's settings state the convention themselves."""
    if options.convention or options.baseline:
        raise ConfigError("--stage states the convention: leave out --convention and --baseline")
    config = job.read_config(options.stage / "stage.json", TrainJob)
    return config.model, config.codec


def _from_options(options: argparse.Namespace) -> tuple[ModelConfig, CodecConfig]:
    found = NAME.fullmatch(options.model)
    if found is None:
        raise ConfigError(
            f"--model: found {options.model!r}; allowed: SiT- or DiT-SIZE/PATCH, SIZE one of {', '.join(SIZES)} "
            "or DEPTHxWIDTHxHEADS"
        )
    named = {name: int(found[name]) for name in ("depth", "width", "heads") if found[name]}
    size: Any = Size(**named) if named else found["size"]
    family: Any = (found["family"] or "SiT").lower()
    model = ModelConfig(
        family=family,
        size=size,
        patch=int(found["patch"] or 2),
        resolution=options.resolution,
        classes=options.classes,
        convention=_convention(options, VANILLA[family]),
    )
    codec = CodecConfig(path=options.codec, scale=options.codec_scale, factor=options.codec_factor)
    if model.resolution % (codec.factor * model.patch):
        raise ConfigError(f"--resolution {model.resolution}: not divisible by {codec.factor * model.patch}")
    return model, codec


def _convention(options: argparse.Namespace, vanilla: str) -> Any:
    """Stated by one of two options, never inferred from the file."""
    if options.baseline and options.convention not in (None, vanilla):
        raise ConfigError(f"--baseline means --convention {vanilla}, found {options.convention!r} too")
    convention = vanilla if options.baseline else options.convention
    if convention is None:
        allowed = ", ".join(CONVENTIONS)
        raise ConfigError(f"--convention: missing; allowed: {allowed} (or --baseline): it is never inferred")
    return convention
