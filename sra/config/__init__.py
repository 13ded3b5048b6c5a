"""Settings of networks, training, alignment and sampling: frozen, torch-free, one place for each default.

A manifest embeds these classes; a stage job gets them back as JSON (`from_plain`). Every class refuses unknown
keys, and checks that need several fields of one class stand in its `__post_init__`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sra.alignment.registry import STRICT, AlignSettings, NetworkFacts, settings_class
from sra.common.errors import ConfigError, UserError
from sra.config.plain import from_plain, to_plain

__all__ = [
    "SIZES",
    "STRICT",
    "AlignSettings",
    "CodecConfig",
    "ConfigError",
    "DataConfig",
    "EmaConfig",
    "ImagesJob",
    "LatentsJob",
    "ModelConfig",
    "SampleConfig",
    "SampleJob",
    "Size",
    "StandInJob",
    "TrainConfig",
    "TrainJob",
    "UserError",
    "check_sampler",
    "from_plain",
    "network_facts",
    "settings_class",
    "to_plain",
]


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
        if min(self.depth, self.width, self.heads) < 1:
            raise ConfigError(f"depth, width and heads must be positive, found {dataclasses.astuple(self)}")
        if self.width % self.heads or self.width % 4:
            raise ConfigError(f"width {self.width} must be divisible by heads {self.heads} and by 4")


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
        if self.scale <= 0 or self.factor < 1 or self.channels < 1:
            raise ConfigError("scale, factor and channels must be positive")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One diffusion transformer and the conventions its weights were trained in."""

    __pydantic_config__ = STRICT

    family: Literal["sit", "dit"] = "sit"
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
            raise ConfigError(f"patch must be 1, 2, 4 or 8, found {self.patch}")
        allowed = {"sit": ("sra", "vanilla-sit"), "dit": ("sra", "vanilla-dit")}[self.family]
        if self.convention not in allowed:
            raise ConfigError(f"convention {self.convention!r} does not fit family {self.family!r}: {allowed}")
        if self.resolution < 1 or self.classes < 1:
            raise ConfigError("resolution and classes must be positive")
        if self.family == "dit" and self.interpolant != "linear":
            raise ConfigError(f"interpolant is SiT's; family 'dit' has none, found {self.interpolant!r}")
        if self.time_scale <= 0 or self.label_init_std < 0:
            raise ConfigError("time_scale must be positive, label_init_std not negative")

    @property
    def dimensions(self) -> Size:
        """Depth, width and heads."""
        return SIZES[self.size] if isinstance(self.size, str) else self.size

    @property
    def size_label(self) -> str:
        """`S`, `B`, `L`, `XL` or DEPTHxWIDTHxHEADS."""
        size = self.dimensions
        return self.size if isinstance(self.size, str) else f"{size.depth}x{size.width}x{size.heads}"

    @property
    def size_name(self) -> str:
        """`S`, `B`, `L`, `XL` or `custom`."""
        return self.size if isinstance(self.size, str) else "custom"


def network_facts(model: ModelConfig, codec: CodecConfig) -> NetworkFacts:
    """What an alignment's defaults and checks depend on."""
    grid = model.resolution // (codec.factor * model.patch)
    depth = model.dimensions.depth
    return NetworkFacts(family=model.family, size=model.size_name, depth=depth, tokens=grid * grid)


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Exponential moving average of the weights: the sampled model, and SRA's teacher."""

    __pydantic_config__ = STRICT

    decay: float = 0.9999
    """Decay after every optimizer step (SRA paper, text and ablation)."""
    schedule: Literal["constant", "ramp"] = "constant"
    """`ramp`: min(decay, (1 + k) / (10 + k)) at optimizer step k, for short runs."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigError(f"decay must lie in [0, 1), found {self.decay}")


def check_seeds(name: str, seeds: Sequence[int]) -> None:
    """Refuse a seed that some generator does not take.

    Raises:
        ConfigError: negative, or of more than 63 bits.
    """
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ConfigError(f"{name} must lie between 0 and 2^63 - 1, found {seed}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training: AdamW at a constant rate, as published for SiT, DiT and SRA."""

    __pydantic_config__ = STRICT

    steps: int | None = None
    """Optimizer steps; exactly one of `steps` and `epochs`."""
    epochs: int | None = None
    """Passes over the data, the last incomplete batch of each dropped (ImageNet: 5004 steps)."""
    global_batch: int = 256
    """Images per optimizer step over all processes and accumulation steps."""
    accumulate: int = 1
    """Forward/backward passes per optimizer step and process."""
    lr: float = 1e-4
    """Learning rate."""
    warmup_steps: int = 0
    """Linear warm-up of the rate (published: none)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moments."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay (published: none)."""
    clip: float = 1.0
    """Largest norm of the gradient; larger ones are scaled down to it."""
    precision: Literal["fp32", "tf32", "fp16", "bf16"] = "fp16"
    """Of the student's forward pass: `fp16` and `bf16` by autocast; `fp32` forbids a GPU to round products to TF32."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Average of the weights; a number is read as its decay."""
    label_dropout: float = 0.1
    """Probability of the null label, once per sample."""
    times: Literal["uniform", "lognormal"] = "uniform"
    """Distribution of t (SiT only)."""
    flip: bool = False
    """Random horizontal flips (DiT and SiT papers: yes; SRA and REPA: no). Needs flipped latents."""
    seeds: tuple[int, ...] | None = None
    """Training seeds, one run each; default: the manifest's seed."""
    milestones: tuple[int, ...] = ()
    """Optimizer steps at which the EMA weights are kept, sampled and scored besides the last."""
    checkpoint_every: int = 5000
    """Optimizer steps between resumable checkpoints."""
    keep: int = 2
    """Resumable checkpoints kept: the newest ones."""
    keep_every: int = 0
    """Checkpoints of steps divisible by this are kept for good besides; 0: none."""
    log_every: int = 100
    """Optimizer steps between log lines."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log to these, through accelerate; each needs its package. `wandb` is offline unless WANDB_MODE says else."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is not finite: `stop` before it touches the weights, or `skip` the step and count it."""
    grid_every: int = 0
    """Optimizer steps between sample grids with fixed noise; 0: none."""
    workers: int = 4
    """Loader threads per process."""
    shard: Literal["none", "optimizer"] = "none"
    """`optimizer`: each process keeps the moments of its part of the parameters (ZeRO stage 1, arXiv 1910.02054)."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError("exactly one of steps and epochs must be given")
        self._check_numbers()
        if self.keep_every < 0 or self.keep_every % self.checkpoint_every:
            raise ConfigError(
                f"keep_every must be a multiple of checkpoint_every {self.checkpoint_every}, found {self.keep_every}"
            )
        if not 0 <= self.label_dropout <= 1:
            raise ConfigError(f"label_dropout must lie in [0, 1], found {self.label_dropout}")
        if self.steps is not None and any(not 0 < m < self.steps for m in self.milestones):
            raise ConfigError(f"milestones must lie between 1 and steps - 1 = {self.steps - 1}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ConfigError("milestones must rise")

    def _check_numbers(self) -> None:
        for name in ("steps", "epochs", "global_batch", "accumulate", "checkpoint_every", "keep", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, found {value}")
        for name in ("lr", "eps", "clip"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive, found {getattr(self, name)}")
        for name in ("weight_decay", "workers", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, found {getattr(self, name)}")
        check_seeds("seeds", self.seeds or ())


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Sampling: which integrator, how guided, how many images, with which random numbers."""

    __pydantic_config__ = STRICT

    sampler: Literal["euler", "heun", "euler-maruyama", "ddpm"] = "euler-maruyama"
    """SiT: ODE `euler`, `heun` or SDE `euler-maruyama`. DiT: `ddpm`."""
    steps: int = 250
    """Integration steps (network evaluations, except for Heun)."""
    last_step: float = 0.04
    """Size of the last, noise-free step of the SDE."""
    cfg: float = 1.0
    """Guidance scale w; no guidance when w <= 1."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """[low, high] of t, inclusive, in which guidance acts."""
    cfg_channels: Literal["all", 3] = "all"
    """Channels that guidance acts on; 3 is vanilla SiT's and DiT's historical choice."""
    images: int = 50_000
    """Number of images."""
    milestone_images: int | None = None
    """Number of images at milestones of training; default: `images`."""
    seed: int | None = None
    """Seed of labels and noise; default: the manifest's seed."""
    seeds: tuple[int, ...] | None = None
    """Several of them, one set of samples each from the same weights; exclude `seed`."""
    seeding: Literal["per-image", "public-code"] = "per-image"
    """`per-image`: independent of processes and batch. `public-code`: per rank and batch, as the authors' script."""
    labels: Literal["random", "balanced"] = "random"
    """Labels drawn at random, or the same number of each class."""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "tf32"
    """Of the network; `fp32` forbids TF32 in the codec too."""
    weights: Literal["ema", "model"] = "ema"
    """Which weights are sampled."""
    batch: int = 64
    """Images per process at a time."""
    shard: int = 250
    """Images per resumable shard: what a kill loses, and small enough that processes end together."""
    png: bool = False
    """Also write one PNG an image, named as the public code does."""
    ranks: int | None = None
    """Processes that `seeding: public-code` draws for (the authors: 8); default: as many as run."""

    def __post_init__(self) -> None:
        low, high = self.guidance_interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"guidance_interval must satisfy 0 <= low <= high <= 1, found [{low}, {high}]")
        for name in ("steps", "images", "batch", "shard", "ranks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, found {value}")
        if self.seeds is not None and (
            self.seed is not None or not self.seeds or len(set(self.seeds)) < len(self.seeds)
        ):
            raise ConfigError(f"seeds must be different numbers and exclude seed, found {list(self.seeds)}")
        check_seeds("seeds", self.seeds or ())
        check_seeds("seed", () if self.seed is None else (self.seed,))
        if self.ranks is not None and self.seeding != "public-code":
            raise ConfigError(f"ranks is for seeding 'public-code', found seeding {self.seeding!r}")
        if self.labels != "random" and self.seeding == "public-code":
            raise ConfigError("seeding 'public-code' draws labels at random, found labels 'balanced'")
        if not 0 < self.last_step < 1:
            raise ConfigError(f"last_step must lie in (0, 1), found {self.last_step}")
        if self.sampler == "ddpm" and not 2 <= self.steps <= 1000:
            raise ConfigError(f"steps of ddpm must lie between 2 and 1000, found {self.steps}")
        if self.sampler == "ddpm" and self.guidance_interval != (0.0, 1.0):
            raise ConfigError(f"guidance_interval is SiT's; ddpm guides every step, found [{low}, {high}]")


def check_sampler(sample: SampleConfig, model: ModelConfig) -> None:
    """Whether a sampler fits the network's family.

    Raises:
        ConfigError: it does not.
    """
    if (sample.sampler == "ddpm") != (model.family == "dit"):
        allowed = "ddpm" if model.family == "dit" else "euler, heun or euler-maruyama"
        raise ConfigError(f"sample.sampler {sample.sampler!r} does not fit family {model.family!r}; allowed: {allowed}")


SPLITS = {"imagenet-train": (1_281_167, 1_000)}
"""Images and classes of the splits whose counts are known (ImageNet-1K)."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images or latents come from."""

    __pydantic_config__ = STRICT

    images: str | None = None
    """Folder or zip of images (class folders or `dataset.json`), or `embedded:digits`."""
    latents: str | None = None
    """Folder of latents in the public layout or the suite's packed format; then no images are needed."""
    split: str = "train"
    """Name of the split; `imagenet-train` has its counts checked (1,281,167 images, 1,000 classes)."""
    labels: Literal["auto", "folders", "dataset.json"] = "auto"
    """Where labels come from; `auto`: `dataset.json` where there is one."""
    latent_dtype: Literal["float32", "float16"] = "float32"
    """Storage of latents that are packed here (public layout: float32); packed ones are used as they are."""

    def __post_init__(self) -> None:
        if self.images is not None and self.latents is not None:
            raise ConfigError("give images or latents, not both")


@dataclass(frozen=True, kw_only=True)
class ImagesJob:
    """`python -m sra.data.images`: centre-crop images into the suite's image layout."""

    data: DataConfig
    resolution: int


@dataclass(frozen=True, kw_only=True)
class LatentsJob:
    """`python -m sra.data.latents`: encode images into packed latents, or pack public-layout latents."""

    data: DataConfig
    codec: CodecConfig
    resolution: int
    batch: int = 64
    flipped: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """`python -m sra.training.train`: one training run."""

    seed: int
    codec: CodecConfig
    model: ModelConfig
    train: TrainConfig
    align: AlignSettings | None = None


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """`python -m sra.sampling.sample`: images from one checkpoint."""

    seed: int
    codec: CodecConfig
    model: ModelConfig
    sample: SampleConfig
    checkpoint: str
    """A file of weights: the suite's safetensors or a published `.pt`."""


@dataclass(frozen=True, kw_only=True)
class StandInJob:
    """`python -m sra.interop.standin`: what a smoke run uses in place of a file that somebody published."""

    seed: int
    codec: CodecConfig
    model: ModelConfig
    images: int | None = None
    """Number of images of a sample file; None: weights."""
