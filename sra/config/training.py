"""Settings of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sra.common.errors import ConfigError, expected
from sra.common.validation import STRICT

FP16_NEEDS_GPU = expected("train.precision", "fp32, tf32 or bf16 on a machine without a GPU", "fp16")
"""Its scaler of gradients needs one."""


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
            raise ConfigError(expected("decay", "a number in [0, 1)", self.decay))


def check_seeds(name: str, seeds: Sequence[int] | None) -> None:
    """Refuse a seed that some generator does not take.

    Raises:
        ConfigError: negative, of more than 63 bits, given twice, or a list without any.
    """
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
        raise ConfigError(expected(name, "different integers", list(seeds)))
    for seed in seeds or ():
        if not 0 <= seed < 2**63:
            raise ConfigError(expected(name, "an integer from 0 to 2^63 - 1", seed))


MAX_COUNT = 10**9
"""Of steps, images and the like: more is a mistake."""
RESUMABLE_KEYS = (
    "steps",
    "epochs",
    "accumulate",
    "milestones",
    "checkpoint_every",
    "keep",
    "keep_every",
    "log_every",
    "trackers",
    "on_nonfinite",
    "grid_every",
    "workers",
    "shard",
    "allow_unused_classes",
)
"""Keys that do not change what a step computes: training continues with other values.

No schedule of the rate, the average or an alignment depends on the last step, so that training can be extended.
"""


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
    """Optimizer steps at which the EMA weights are saved, sampled and scored, in addition to the last step."""
    checkpoint_every: int = 5000
    """Optimizer steps between resumable checkpoints."""
    keep: int = 2
    """Resumable checkpoints kept: the newest ones."""
    keep_every: int = 0
    """Checkpoints at multiples of this step are never removed; 0: none."""
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
    allow_unused_classes: bool = False
    """Whether `model.classes` may exceed the classes of the data: the others are sampled without ever being trained."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            given = "neither" if self.steps is None else "both"
            raise ConfigError(f"steps: expected exactly one of steps and epochs, got {given}")
        self._check_numbers()
        if self.keep_every < 0 or self.keep_every % self.checkpoint_every:
            what = f"a multiple of checkpoint_every ({self.checkpoint_every})"
            raise ConfigError(expected("keep_every", what, self.keep_every))
        if not 0 <= self.label_dropout <= 1:
            raise ConfigError(expected("label_dropout", "a number in [0, 1]", self.label_dropout))
        in_range = self.steps is None or all(0 < m < self.steps for m in self.milestones)
        if not in_range or list(self.milestones) != sorted(set(self.milestones)):
            end = "" if self.steps is None else f" from 1 to steps - 1 = {self.steps - 1}"
            raise ConfigError(expected("milestones", f"increasing steps{end}", list(self.milestones)))

    def _check_numbers(self) -> None:
        for name in ("steps", "epochs", "global_batch", "accumulate", "checkpoint_every", "keep", "log_every"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_COUNT:
                raise ConfigError(expected(name, f"a positive integer of at most {MAX_COUNT}", value))
        for name in ("lr", "eps", "clip"):
            if getattr(self, name) <= 0:
                raise ConfigError(expected(name, "a positive number", getattr(self, name)))
        for name in ("weight_decay", "workers", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(expected(name, "a number of at least 0", getattr(self, name)))
        check_seeds("seeds", self.seeds)
