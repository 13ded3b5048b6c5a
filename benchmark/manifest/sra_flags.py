"""Every flag of the authors' training and sampling scripts, and the manifest key that replaces it.

`from_sra.py` parses their command lines with these tables, and `docs/from-sra.md` prints them.
Source: github.com/vvvvvjdy/SRA as of 2026-07-29, the parsers of SiT-SRA, DiT-SRA and SiT-SRA_DTS_AS.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
_PATH = Flag("--path-type", "str", "linear", ("model.interpolant",), "", ("linear", "cosine"))
_PREDICTION = Flag("--prediction", "str", "v", (), "only velocity prediction is supported", ("v",))
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
    replace(_PATH, choices=("linear", "cosine", "cos"), note="`cos` is `cosine`"),
    _PREDICTION,
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
    _PATH,
    _PREDICTION,
    Flag(
        "--weighting",
        "str",
        "uniform",
        (),
        "must be `uniform`: `lognormal` has another mean and deviation in this script",
        ("uniform", "lognormal"),
    ),
    *_BLOCKS,
    Flag(
        "--mask-ratio",
        "list",
        ["0.5"],
        (),
        "with alignment it must be 0.25 (or 0.25 0.75): group 0 is a quarter of the tokens",
    ),
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
    _PATH,
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

LINES = {
    "SiT-SRA/train.py": (
        "1723f85",
        "--output-dir 94, --exp-name 107, --logging-dir 94, --resume-ckpt 206, --epochs 246, --max-train-steps 225, "
        "--checkpoint-steps 251, --checkpoint-epochs 359, --sample-steps 268, --model 131, --num-classes 133, "
        "--fused-attn 128, --qk-norm 128, --data-dir-train 176, --resolution 125, --batch-size 180, "
        "--mixed-precision 101, --gradient-accumulation-steps 100, --learning-rate 168, --adam-beta1 169, "
        "--adam-beta2 169, --adam-weight-decay 170, --adam-epsilon 171, --max-grad-norm 337, --seed 121, "
        "--num-workers 188, --loss-type 160, --cfg-prob 134, --path-type 153, --prediction 152, --weighting 156, "
        "--block-out-s 157, --block-out-t 158, --t-max 159",
    ),
    "SiT-SRA/generate.py": (
        "3a22705",
        "--global-seed 43, --tf32 36, --ckpt 61, --sample-dir 89, --model 51, --num-classes 53, --resolution 50, "
        "--fused-attn 49, --qk-norm 49, --vae 73, --per-proc-batch-size 97, --num-fid-samples 100, --mode 130, "
        "--cfg-scale 54, --path-type 127, --num-steps 122, --heun 123, --guidance-low 125, --guidance-high 126",
    ),
    "DiT-SRA/train.py": (
        "0432985",
        "--output-dir 86, --exp-name 99, --logging-dir 86, --resume-ckpt 187, --epochs 216, --max-train-steps 206, "
        "--checkpoint-steps 220, --checkpoint-epochs 287, --model 122, --num-classes 124, --fused-attn 121, "
        "--qk-norm 121, --data-dir-train 157, --resolution 118, --batch-size 161, --mixed-precision 93, "
        "--gradient-accumulation-steps 92, --learning-rate 149, --adam-beta1 150, --adam-beta2 150, "
        "--adam-weight-decay 151, --adam-epsilon 152, --max-grad-norm 264, --seed 113, --num-workers 169, "
        "--block-out-s 248, --block-out-t 248, --t-max 247",
    ),
    "DiT-SRA/generate.py": (
        "3a22705",
        "--global-seed 44, --tf32 37, --ckpt 60, --sample-dir 85, --model 51, --num-classes 53, --resolution 49, "
        "--vae 69, --per-proc-batch-size 93, --num-fid-samples 96, --cfg-scale 70, --num-steps 57",
    ),
    "SiT-SRA_DTS_AS/train.py": (
        "e4b10ff",
        "--output-dir 74, --exp-name 85, --logging-dir 74, --resume-ckpt 191, --epochs 221, --max-train-steps 206, "
        "--checkpoint-steps 227, --checkpoint-epochs 332, --sample-steps 223, --model 111, --num-classes 113, "
        "--fused-attn 106, --qk-norm 107, --attention-separation 108, --data-dir 155, --resolution 101, "
        "--batch-size 157, --mixed-precision 81, --gradient-accumulation-steps 80, --learning-rate 149, "
        "--adam-beta1 150, --adam-beta2 150, --adam-weight-decay 151, --adam-epsilon 152, --max-grad-norm 303, "
        "--seed 98, --num-workers 167, --loss-type 137, --cfg-prob 114, --path-type 129, --prediction 128, "
        "--weighting 132, --block-out-s 133, --block-out-t 134, --mask-ratio 135, --use-alignment-loss 115, "
        "--align-weight 295, --teacher-t 139, --teacher-mask 140, --dual-time-scheduling 141, --full-sample-prob 136",
    ),
    "SiT-SRA_DTS_AS/generate.py": (
        "e4b10ff",
        "--global-seed 34, --tf32 27, --ckpt 53, --sample-dir 68, --model 45, --num-classes 47, --resolution 44, "
        "--fused-attn 40, --qk-norm 41, --use-alignment-loss 49, --attention-separation 42, --mask-ratio 105, "
        "--mask-type 106, --vae 62, --per-proc-batch-size 74, --num-fid-samples 76, --mode 109, --cfg-scale 64, "
        "--path-type 104, --num-steps 99, --heun 100, --guidance-low 102, --guidance-high 103",
    ),
}
"""Where each script first uses (not declares) its options: commit, and lines of the file; others have no use."""


def read_at(script: str) -> dict[str, str]:
    """`FILE:LINE` at which a script first reads each flag; those that it never reads are left out."""
    entries = (entry.split() for entry in LINES[script][1].split(", "))
    return {name: f"{script.rpartition('/')[2]}:{line}" for name, line in entries}


def table(script: str) -> str:
    """Markdown table of a script: flag, default, place of use, manifest key and how it is converted."""
    places = read_at(script)
    lines = [f"### {script}", "", f"Lines are those of commit {LINES[script][0]}.", ""]
    lines += ["| flag | their default | read at | manifest key | note |", "|---|---|---|---|---|"]
    for flag in SCRIPTS[script]:
        default = "none" if flag.default is None else f"`{flag.default}`"
        keys = ", ".join(f"`{key}`" for key in flag.keys) or "none"
        place = places.get(flag.name, "nowhere")
        lines.append(f"| `{flag.name}` | {default} | {place} | {keys} | {flag.note} |")
    return "\n".join(lines)


def tables() -> str:
    """The tables of all scripts."""
    return "\n\n".join(table(script) for script in SCRIPTS)
