"""Every flag of the authors' training and sampling scripts, and the manifest key that replaces it.

`from_sra.py` parses their command lines with these tables, and `docs/from-sra.md` prints them.
Source: github.com/vvvvvjdy/SRA as of 2026-07-29, the parsers of SiT-SRA, DiT-SRA and SiT-SRA_DTS_AS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["int", "float", "str", "switch", "list"]


@dataclass(frozen=True)
class Flag:
    """One flag of a script."""

    name: str
    kind: Kind
    default: Any
    keys: tuple[str, ...]
    """Manifest keys that take its value; `align.` and `checkpoint` belong under a variant. Empty: there is none."""
    note: str = ""
    """How it is converted, or why there is no key."""
    choices: tuple[Any, ...] = ()


OUTPUT = "set by `--out`"
RESUME = (
    "nothing continues their checkpoint: training starts anew (an interrupted run of the suite continues by itself)"
)
ATTENTION = "not needed: attention always uses `scaled_dot_product_attention`"
QK_NORM = "used by no published network; rejected if set"
LAUNCHER = "left over from a launcher; ignored"
SIZES = "`FAMILY-SIZE/PATCH`"
NUMBERS = "gives different random numbers: theirs depend on the number of GPUs"

_LOGGING = (
    Flag("--output-dir", "str", "exps", (), OUTPUT),
    Flag("--exp-name", "str", None, ("name",)),
    Flag("--logging-dir", "str", "logs", (), OUTPUT),
    Flag("--resume-ckpt", "str", None, (), RESUME),
    Flag("--epochs", "int", 801, ("train.epochs",), "whichever comes first ends it; epochs of ImageNet"),
    Flag("--max-train-steps", "int", 4_100_000, ("train.steps",), "see `--epochs`"),
    Flag("--checkpoint-steps", "int", 50_000, ("train.checkpoint_every",), "they keep all: see `train.milestones`"),
    Flag("--checkpoint-epochs", "int", 200, (), "`train.milestones` lists the steps whose weights are kept"),
)
_GRIDS = (Flag("--sample-steps", "int", 100_000, ("train.grid_every",)),)
_MODEL = (
    Flag("--model", "str", None, ("model.family", "model.size", "model.patch"), SIZES),
    Flag("--num-classes", "int", 1000, ("model.classes",)),
)
_FUSED = Flag("--fused-attn", "switch", True, (), ATTENTION)
_QK_NORM = Flag("--qk-norm", "switch", False, (), QK_NORM)
_OPTIMISATION = (
    Flag(
        "--mixed-precision", "str", "fp16", ("train.precision",), "`no`: SiT `tf32`, DiT `fp32`", ("no", "fp16", "bf16")
    ),
    Flag("--gradient-accumulation-steps", "int", 1, ("train.accumulate", "train.global_batch")),
    Flag("--learning-rate", "float", 1e-4, ("train.lr",)),
    Flag("--adam-beta1", "float", 0.9, ("train.betas",)),
    Flag("--adam-beta2", "float", 0.999, ("train.betas",)),
    Flag("--adam-weight-decay", "float", 0.0, ("train.weight_decay",)),
    Flag("--adam-epsilon", "float", 1e-8, ("train.eps",)),
    Flag("--max-grad-norm", "float", 1.0, ("train.clip",)),
    Flag("--seed", "int", 0, ("seed",), NUMBERS),
)
_CFG_PROB = Flag(
    "--cfg-prob", "float", 0.1, (), "has no effect there: labels are dropped with probability 0.1, even at 0"
)
_BLOCKS = (
    Flag("--block-out-s", "int", 4, ("align.blocks",), "first of the two values"),
    Flag("--block-out-t", "int", 8, ("align.blocks",), "second of the two values"),
)
_RESOLUTION = Flag("--resolution", "int", 256, ("model.resolution",), "", (256, 512))
_PATH = (
    Flag("--path-type", "str", "linear", ("model.interpolant",), "`cos` is `cosine`", ("linear", "cosine", "cos")),
    Flag("--prediction", "str", "v", (), "only velocity prediction is supported", ("v",)),
)
_WEIGHTING = Flag("--weighting", "str", "uniform", ("train.times",), "", ("uniform", "lognormal"))
_LOCAL_BATCH = Flag(
    "--batch-size",
    "int",
    32,
    ("train.global_batch",),
    "theirs is per GPU: x processes x accumulation",
)
_DATA = Flag("--data-dir-train", "str", "../data/imagenet256", ("data.latents",), "the folder that contains `vae-sd`")
_TF32 = Flag("--allow-tf32", "switch", False, (), "only in older versions; set by `train.precision`")
_INTERVAL = "`{random: v}`"
_LOSS = "`cos`: `cosine-tokens`, weight 0.5, constant; `sml1`, `l1`, `l2`: weight 0.2 with their schedule"
_LOSS_KEYS = ("align.distance", "align.weight", "align.weight_schedule")

SIT_TRAIN = (
    *_LOGGING,
    *_GRIDS,
    *_MODEL,
    _FUSED,
    _QK_NORM,
    _DATA,
    _RESOLUTION,
    _LOCAL_BATCH,
    *_OPTIMISATION,
    _TF32,
    Flag("--num-workers", "int", 8, ("train.workers",)),
    Flag("--loss-type", "str", "cos", _LOSS_KEYS, _LOSS, ("sml1", "l2", "l1", "cos")),
    _CFG_PROB,
    *_PATH,
    _WEIGHTING,
    *_BLOCKS,
    Flag("--t-max", "float", 0.2, ("align.interval",), _INTERVAL),
)
DIT_TRAIN = (
    *_LOGGING,
    *_MODEL,
    _FUSED,
    _QK_NORM,
    _DATA,
    Flag("--resolution", "int", 256, ("model.resolution",), "", (256,)),
    _LOCAL_BATCH,
    *_OPTIMISATION,
    _TF32,
    Flag("--num-workers", "int", 8, ("train.workers",)),
    Flag("--loss-type", "str", "sml1", _LOSS_KEYS, "`smooth-l1`, weight 0.04 with their schedule", ("sml1",)),
    _CFG_PROB,
    *_BLOCKS,
    Flag("--t-max", "float", 0.1, ("align.interval",), _INTERVAL),
)
DUAL_TRAIN = (
    *_LOGGING,
    Flag(
        "--sample-steps",
        "int",
        100_000,
        ("train.grid_every",),
        "theirs grows tenfold an epoch after a tenth of the steps",
    ),
    *_MODEL,
    _FUSED,
    _QK_NORM,
    Flag("--attention-separation", "switch", False, ("align.separated",), "refused without `--use-alignment-loss`"),
    Flag("--data-dir", "str", "../data/imagenet256", ("data.latents",), "the folder that contains `vae-sd`"),
    _RESOLUTION,
    Flag(
        "--batch-size",
        "int",
        32,
        ("train.global_batch",),
        "global in this script, unlike in the others; what its GPUs and accumulation do not divide is dropped",
    ),
    *_OPTIMISATION,
    Flag("--num-workers", "int", 16, ("train.workers",)),
    Flag("--loss-type", "str", "cos", ("align.distance",), "`cos`: `cosine-tokens`", ("sml1", "l2", "l1", "cos")),
    _CFG_PROB,
    *_PATH,
    Flag(
        "--weighting",
        "str",
        "uniform",
        (),
        "must be `uniform`: `lognormal` has another mean and deviation in this script",
        ("uniform", "lognormal"),
    ),
    *_BLOCKS,
    Flag("--mask-ratio", "list", ["0.5"], (), "with alignment it must be 0.25: group 0 is a quarter of the tokens"),
    Flag("--use-alignment-loss", "switch", False, (), "must be set for an alignment; without it, a baseline"),
    Flag("--align-weight", "float", 0.5, ("align.weight",)),
    Flag(
        "--teacher-t",
        "str",
        "self_flow",
        ("align.kind", "align.teacher"),
        "with `--teacher-mask`: `sra` is `own-times`, `self_flow` is `min-and-clean`; without: `self_flow` is "
        "`all-at-min`; other combinations are rejected",
        ("self_flow", "same", "sra"),
    ),
    Flag("--teacher-mask", "switch", False, ("align.teacher",), "see `--teacher-t`"),
    Flag("--dual-time-scheduling", "switch", False, (), "must be set with `--use-alignment-loss`, and not without it"),
    Flag("--full-sample-prob", "float", 0.0, (), "with alignment it must be 0"),
)

_SAMPLING = (
    Flag("--global-seed", "int", 0, ("sample.seed",), "with `seeding: public-code` and `ranks` (number of GPUs)"),
    Flag("--tf32", "switch", True, ("sample.precision",), "`tf32` or `fp32`"),
    Flag("--ckpt", "str", None, ("checkpoint",)),
    Flag("--sample-dir", "str", "samples", (), OUTPUT),
)
_VAE = Flag("--vae", "str", "ema", ("codec.path",), "`asset:sd-vae-ft-ema` or `-mse`", ("ema", "mse"))
_COUNTS = (
    Flag("--per-proc-batch-size", "int", 32, ("sample.batch",), "also per process"),
    Flag("--num-fid-samples", "int", 50_000, ("sample.images",)),
)
_LAUNCHER = (
    Flag("--world_size", "int", 1, (), LAUNCHER),
    Flag("--local-rank", "int", -1, (), LAUNCHER),
    Flag("--dist_url", "str", "env://", (), LAUNCHER),
)
_SIT_SAMPLER = (
    Flag("--mode", "str", "sde", ("sample.sampler",), "`sde`: `euler-maruyama`; `ode`: `euler`, with `--heun` `heun`"),
    Flag("--cfg-scale", "float", 1.8, ("sample.cfg",), "at least 1"),
    Flag("--path-type", "str", "linear", ("model.interpolant",), "", ("linear", "cosine")),
    Flag("--num-steps", "int", 50, ("sample.steps",)),
    Flag("--heun", "switch", False, ("sample.sampler",), "see `--mode`"),
    Flag("--guidance-low", "float", 0.0, ("sample.guidance_interval",), "first of the two values"),
    Flag("--guidance-high", "float", 1.0, ("sample.guidance_interval",), "second of the two values"),
)


def _sampled(default: str) -> tuple[Flag, ...]:
    keys = ("model.family", "model.size", "model.patch")
    return (Flag("--model", "str", default, keys, SIZES), _MODEL[1], _RESOLUTION)


SIT_GENERATE = (
    *_SAMPLING,
    *_sampled("SiT-B/2"),
    Flag("--fused-attn", "switch", False, (), ATTENTION),
    _QK_NORM,
    _VAE,
    *_COUNTS,
    *_SIT_SAMPLER,
    *_LAUNCHER,
)
DIT_GENERATE = (
    *_SAMPLING,
    *_sampled("DiT-XL/2"),
    _VAE,
    *_COUNTS,
    Flag("--cfg-scale", "float", 1.5, ("sample.cfg", "sample.cfg_channels"), "at least 1; applied to three channels"),
    Flag("--num-steps", "int", 250, ("sample.steps",), "steps of `ddpm`"),
    Flag("--heun", "switch", False, (), "ignored"),
    *_LAUNCHER,
)
DUAL_GENERATE = (
    *_SAMPLING,
    *_sampled("SiT-B/2"),
    Flag("--fused-attn", "switch", False, (), ATTENTION),
    _QK_NORM,
    Flag("--use-alignment-loss", "switch", False, (), "not needed: a head is found when the file is loaded"),
    Flag("--attention-separation", "switch", False, (), "sampling always uses full attention"),
    Flag("--mask-ratio", "float", 0.0, (), "must be 0"),
    Flag("--mask-type", "str", "random", (), "see `--mask-ratio`", ("random", "fix")),
    _VAE,
    *_COUNTS,
    *_SIT_SAMPLER,
    *_LAUNCHER,
)

SCRIPTS: dict[str, tuple[Flag, ...]] = {
    "SiT-SRA/train.py": SIT_TRAIN,
    "SiT-SRA/generate.py": SIT_GENERATE,
    "DiT-SRA/train.py": DIT_TRAIN,
    "DiT-SRA/generate.py": DIT_GENERATE,
    "SiT-SRA_DTS_AS/train.py": DUAL_TRAIN,
    "SiT-SRA_DTS_AS/generate.py": DUAL_GENERATE,
}


def table(script: str) -> str:
    """Markdown table of a script: flag, default, manifest key, and how it is converted or why there is no key."""
    lines = [f"### {script}", "", "| flag | their default | manifest key | note |", "|---|---|---|---|"]
    for flag in SCRIPTS[script]:
        default = "none" if flag.default is None else f"`{flag.default}`"
        keys = ", ".join(f"`{key}`" for key in flag.keys) or "none"
        lines.append(f"| `{flag.name}` | {default} | {keys} | {flag.note} |")
    return "\n".join(lines)


def tables() -> str:
    """The tables of all scripts."""
    return "\n\n".join(table(script) for script in SCRIPTS)
