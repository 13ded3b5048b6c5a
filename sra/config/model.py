"""Settings of the diffusion transformer and of the image autoencoder (codec)."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sra.common.errors import ConfigError, DataError, did_you_mean, expected
from sra.common.validation import STRICT

Family = Literal["sit", "dit"]
FAMILIES: dict[Family, str] = {"sit": "SiT", "dit": "DiT"}
"""Names of the families as papers print them."""


PIXELS_AT_A_TIME = 64 * 256 * 256
"""Pixels that are encoded or decoded at a time: 13 GB of a decoder's memory at any resolution."""
MAX_DIMENSION = 100_000
"""Of a network's size: more is a mistake."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Depth, width and heads of a transformer."""

    __pydantic_config__ = STRICT

    depth: int
    """Number of blocks."""
    width: int
    """Hidden size D; divisible by `heads` and by 4 (position encoding)."""
    heads: int
    """Attention heads."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 1 <= value <= MAX_DIMENSION:
                raise ConfigError(expected(name, f"a positive integer of at most {MAX_DIMENSION}", value))
        if self.width % self.heads or self.width % 4:
            raise ConfigError(expected("width", f"a multiple of heads ({self.heads}) and of 4", self.width))

    def __str__(self) -> str:
        return f"{self.depth}x{self.width}x{self.heads}"


# DiT paper, Table 1; SiT uses the same.
SIZES: dict[str, Size] = {
    "S": Size(depth=12, width=384, heads=6),
    "B": Size(depth=12, width=768, heads=12),
    "L": Size(depth=24, width=1024, heads=16),
    "XL": Size(depth=28, width=1152, heads=16),
}


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """The image autoencoder between pixels and latents (a diffusers `AutoencoderKL`)."""

    __pydantic_config__ = STRICT

    path: str = "stabilityai/sd-vae-ft-ema"
    """Folder in diffusers' format, hub id, or `embedded:digits` (the small codec shipped with the suite)."""
    revision: str | None = None
    """Hub revision; ignored for folders."""
    scale: float = 0.18215
    """Latents are multiplied by this for the network and divided by it before decoding."""
    factor: int = 8
    """Pixels per latent cell along each axis."""
    channels: int = 4
    """Latent channels C."""

    def __post_init__(self) -> None:
        for name in ("scale", "factor", "channels"):
            if getattr(self, name) <= 0:
                raise ConfigError(expected(name, "a positive number", getattr(self, name)))

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(C, H, W) of the latent of a square image with an edge of `resolution` pixels."""
        side = resolution // self.factor
        return self.channels, side, side

    def moments_shape(self, resolution: int) -> tuple[int, int, int]:
        """(2C, H, W) of posterior mean and standard deviation of the same latent."""
        channels, height, width = self.latent_shape(resolution)
        return 2 * channels, height, width


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One diffusion transformer and the conventions its weights were trained in."""

    __pydantic_config__ = STRICT

    family: Family = "sit"
    """`sit`: velocity of an interpolant, t in [0, 1]. `dit`: noise and variance, 1000 integer steps."""
    size: Literal["S", "B", "L", "XL"] | Size = "XL"
    """A published size, or `{depth, width, heads}`."""
    patch: int = 2
    """Patch edge in latent cells."""
    resolution: int = 256
    """Image edge in pixels."""
    convention: Literal["sra", "vanilla-sit", "vanilla-dit"]
    """How outputs and times are meant: stated, never inferred from a file (see docs)."""
    classes: int = 1000
    """Number of classes; the null label is index `classes`."""
    interpolant: Literal["linear", "cosine"] = "linear"
    """Path of SiT: alpha = 1 - t, sigma = t, or cos and sin of pi t / 2."""
    label_init_std: float = 0.02
    """Standard deviation of the label table at initialisation (SiT, DiT: 0.02)."""
    time_scale: float = 1.0
    """Factor on t before the sinusoids (SiT: 1; integer steps of DiT: 1)."""

    def __post_init__(self) -> None:
        if self.patch not in (1, 2, 4, 8):
            raise ConfigError(expected("patch", "1, 2, 4 or 8", self.patch))
        allowed = ("sra", f"vanilla-{self.family}")
        if self.convention not in allowed:
            raise ConfigError(expected("convention", f"{' or '.join(allowed)} for {self.family}", self.convention))
        for name in ("resolution", "classes", "time_scale"):
            if getattr(self, name) <= 0:
                raise ConfigError(expected(name, "a positive number", getattr(self, name)))
        if self.label_init_std < 0:
            raise ConfigError(expected("label_init_std", "a number of at least 0", self.label_init_std))
        if self.family == "dit" and self.interpolant != "linear":
            raise ConfigError(expected("interpolant", "the default for dit, which has none", self.interpolant))

    @property
    def dimensions(self) -> Size:
        """Depth, width and heads."""
        return SIZES[self.size] if isinstance(self.size, str) else self.size

    @property
    def size_label(self) -> str:
        """`S`, `B`, `L`, `XL` or DEPTHxWIDTHxHEADS."""
        return str(self.size)

    @property
    def name(self) -> str:
        """The network's name as papers print it, e.g. `SiT-XL/2`, or `SiT-4x64x2/2` for an unpublished size."""
        return f"{FAMILIES[self.family]}-{self.size_label}/{self.patch}"

    def tokens(self, codec: CodecConfig) -> int:
        """Number of patches T of one latent."""
        _, height, width = codec.latent_shape(self.resolution)
        return (height // self.patch) * (width // self.patch)

    def output_channels(self, codec: CodecConfig) -> int:
        """Channels that the network predicts: C for SiT in convention `sra`, else 2C (the second half: variance)."""
        return codec.channels * (1 if self.family == "sit" and self.convention == "sra" else 2)


@dataclass(frozen=True)
class ModelName:
    """Parts of a network's name such as `SiT-XL/2`."""

    family: Family | None
    """None: the name has no family (`XL/2`)."""
    size: Literal["S", "B", "L", "XL"] | Size
    patch: int


def parse_model_name(text: str) -> ModelName:
    """Split `SiT-XL/2`, `DiT-4x64x2/4`, or the same without family or patch (2), into its parts.

    Raises:
        ConfigError: not of this form. The message starts with `expected`.
    """
    found = re.fullmatch(r"(?:(SiT|DiT)-)?(?:(S|B|L|XL)|(\d+)x(\d+)x(\d+))(?:/(\d+))?", text)
    if found is None:
        names = [f"{family}-{size}/{patch}" for family in FAMILIES.values() for size in SIZES for patch in (2, 4, 8)]
        what = f"[SiT-|DiT-]SIZE/PATCH with SIZE one of {', '.join(SIZES)} or DEPTHxWIDTHxHEADS"
        raise ConfigError(f"expected {what}, got {text!r}{did_you_mean(text, names)}")
    family, published, depth, width, heads, patch = found.groups()
    size: Any = published or Size(depth=int(depth), width=int(width), heads=int(heads))
    return ModelName(next((f for f, name in FAMILIES.items() if name == family), None), size, int(patch or 2))


CODEC_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
"""Settings and weights in a codec's folder (diffusers' format)."""


def check_codec_folder(path: Path) -> None:
    """Refuse an existing path that is not a folder in diffusers' format.

    Raises:
        DataError: a file, or a folder without one of `CODEC_FILES`.
    """
    if not path.exists():
        return
    needed = f"codec.path {path}: expected a folder with {' and '.join(CODEC_FILES)}, got "
    if not path.is_dir():
        raise DataError(f"{needed}a file")
    missing = [name for name in CODEC_FILES if not (path / name).is_file()]
    if missing:
        raise DataError(f"{needed}no {' and no '.join(missing)}")
