"""The authors' command lines as manifests, and the tables of their flags."""

import dataclasses
import shlex
import typing
from pathlib import Path

import pytest
import yaml

from benchmark.manifest.from_sra import from_command
from benchmark.manifest.schema import Manifest, load
from benchmark.manifest.sra_flags import SCRIPTS, read_at, table
from sra.common.errors import UserError
from sra.config import ConfigError

ROOT = Path(__file__).parents[2]
# The two commands of their README (SiT-SRA, as of 2026-07-29), the second with the variables of gen.sh filled in.
TRAIN = """
accelerate launch --config_file configs/default.yaml train.py
  --mixed-precision="fp16" --seed=0 --path-type="linear" --prediction="v" --resolution=256 --batch-size=32
  --weighting="uniform" --model="SiT-XL/2" --block-out-s=8 --block-out-t=20 --t-max=0.2 --output-dir="exps"
  --exp-name="sitxl-ab820-t0.2-res256" --data-dir=/data/imagenet
"""
SAMPLE = """
python -m torch.distributed.launch --nproc_per_node=8 generate.py --num-fid-samples 50000 --path-type linear
  --per-proc-batch-size 64 --mode sde --num-steps 250 --cfg-scale 1.8 --guidance-high 0.7 --sample-dir samples
  --model SiT-XL/2 --ckpt exps/sitxl/checkpoints/epoch-799.pt --vae ema --resolution 256 --global-seed 0
"""
DIT = """
accelerate launch --config_file configs/default.yaml train.py --mixed-precision=fp16 --seed=0 --resolution=256
  --batch-size=32 --model=DiT-XL/2 --block-out-s=8 --block-out-t=16 --t-max=0.2 --output-dir=exps --exp-name=ditxl
  --data-dir=/data/imagenet
"""
DIT_SAMPLE = """
python -m torch.distributed.launch --nproc_per_node=4 generate.py --num-fid-samples 50000 --per-proc-batch-size 64
  --num-steps 250 --cfg-scale 1.5 --sample-dir samples --model DiT-XL/2 --ckpt e/c/last.pt --vae ema --resolution 256
"""
# scripts/train.sh of SiT-SRA_DTS_AS.
DUAL = """
accelerate launch --config_file c --main_process_port 29500 --num_processes 8 train.py --mixed-precision fp16 --seed 0
  --path-type linear --prediction v --weighting uniform --resolution 256 --batch-size 256
  --gradient-accumulation-steps 1 --learning-rate 1e-4 --model SiT-B/2 --block-out-s 3 --block-out-t 8
  --mask-ratio 0.25 --dual-time-scheduling --attention-separation --teacher-mask --teacher-t sra --use-alignment-loss
  --align-weight 0.5 --loss-type cos --sample-steps 50000 --checkpoint-steps 100000 --checkpoint-epochs 200
  --epochs 801 --max-train-steps 4100000 --output-dir exps --exp-name dts --data-dir /data/imagenet
"""
DUAL_SAMPLE = f"{SAMPLE} --attention-separation --use-alignment-loss"
COMMANDS = {
    "SiT-SRA/train.py": TRAIN,
    "SiT-SRA/generate.py": SAMPLE,
    "DiT-SRA/train.py": DIT,
    "DiT-SRA/generate.py": DIT_SAMPLE,
    "SiT-SRA_DTS_AS/train.py": DUAL,
    "SiT-SRA_DTS_AS/generate.py": DUAL_SAMPLE,
}


def manifest(command, *extra, processes=None):
    return yaml.safe_load(from_command([*shlex.split(command), *extra], processes))


def resolved(command, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(from_command(shlex.split(command)))
    (run,) = load(path).runs
    return run


def test_their_training_command(tmp_path):
    run = resolved(TRAIN, tmp_path)
    assert (run.model.family, run.model.size, run.model.patch, run.model.resolution) == ("sit", "XL", 2, 256)
    assert (run.model.convention, run.model.interpolant, run.model.classes) == ("sra", "linear", 1000)
    train = run.train
    assert (train.global_batch, train.epochs, train.steps) == (8 * 32, 801, None)
    assert (train.lr, train.betas, train.eps, train.weight_decay, train.clip) == (1e-4, (0.9, 0.999), 1e-8, 0.0, 1.0)
    assert (train.precision, train.label_dropout, train.times, train.flip) == ("fp16", 0.1, "uniform", False)
    assert (train.ema.decay, train.ema.schedule) == (0.9999, "constant")
    assert (run.data.latents, run.data.split, run.seed) == ("/data/imagenet", "imagenet-train", 0)
    align = run.align
    assert (align.kind, align.blocks, align.interval.random, align.head) == ("sra", (8, 20), 0.2, True)
    # Their newest default, not the paper's: see docs/from-sra.md.
    assert (align.distance, align.weight, align.weight_schedule) == ("cosine-tokens", 0.5, "constant")
    assert align.teacher_precision == "fp32"


def test_their_sampling_command(tmp_path):
    run = resolved(SAMPLE, tmp_path)
    sample = run.sample
    assert run.checkpoint == "exps/sitxl/checkpoints/epoch-799.pt"
    assert (sample.sampler, sample.steps, sample.last_step) == ("euler-maruyama", 250, 0.04)
    assert (sample.cfg, sample.guidance_interval, sample.cfg_channels) == (1.8, (0.0, 0.7), "all")
    assert (sample.images, sample.batch, sample.seed, sample.labels) == (50_000, 64, 0, "random")
    assert (sample.seeding, sample.ranks, sample.precision) == ("public-code", 8, "tf32")
    assert run.codec.scale == 0.18215
    assert (run.model.size, run.model.convention) == ("XL", "sra")


def test_dit_has_its_own_weight_and_channels(tmp_path):
    run = resolved(DIT, tmp_path)
    assert (run.align.distance, run.align.weight, run.align.weight_schedule) == ("smooth-l1", 0.04, "public-code")
    assert (run.model.family, run.sample.sampler, run.train.precision) == ("dit", "ddpm", "fp16")
    sampled = resolved(DIT_SAMPLE, tmp_path)
    assert (sampled.sample.cfg, sampled.sample.cfg_channels, sampled.sample.ranks) == (1.5, 3, 4)
    assert manifest(DIT, "--mixed-precision", "no")["train"]["precision"] == "fp32"
    assert manifest(TRAIN, "--mixed-precision", "no")["train"]["precision"] == "tf32"
    assert "cfg_channels" not in manifest(SAMPLE)["sample"]


def test_batches_are_global_here():
    assert manifest(TRAIN, "--gradient-accumulation-steps", "2", processes=4)["train"]["global_batch"] == 32 * 4 * 2
    launcher = TRAIN.replace("launch", "launch --num_processes 2")
    assert manifest(launcher)["train"]["global_batch"] == 32 * 2
    assert manifest(DUAL)["train"]["global_batch"] == 256


@pytest.mark.parametrize(
    ("launcher", "ranks"),
    [
        ("torchrun --nnodes 2 --nproc-per-node 8", 16),
        ("torchrun --nnodes=2 --node_rank=1 --nproc_per_node=4", 8),
        ("torchrun", 1),
        ("torchrun --nnodes 2", 2),
        ("srun python -m torch.distributed.run --nnodes=4 --nproc_per_node=8", 32),
        ("accelerate launch --num_machines 2 --num_processes 16", 16),
        ("python", 8),
    ],
)
def test_all_nodes_count(launcher: str, ranks: int) -> None:
    command = SAMPLE.replace("python -m torch.distributed.launch --nproc_per_node=8", launcher)
    assert manifest(command)["sample"]["ranks"] == ranks


def test_the_folder_of_the_script_decides_what_it_does(tmp_path: Path) -> None:
    """In the folder of DTS + AS nothing is aligned unless it is asked for, and the batch is that of all GPUs."""
    run = resolved("torchrun --nproc_per_node=8 SRA/SiT-SRA_DTS_AS/train.py --model SiT-B/2 --batch-size 260", tmp_path)
    assert (run.align, run.variant, run.train.global_batch, run.train.workers) == (None, "baseline", 256, 16)
    other = resolved("torchrun --nproc_per_node=8 SiT-SRA/train.py --model SiT-B/2 --batch-size 260", tmp_path)
    assert (other.align.kind, other.train.global_batch, other.train.workers) == ("sra", 8 * 260, 8)
    sampled = resolved("torchrun --nproc_per_node=2 DiT-SRA/generate.py --ckpt a.pt", tmp_path)
    assert (sampled.model.family, sampled.model.size, sampled.sample.sampler) == ("dit", "XL", "ddpm")
    assert resolved("SiT-SRA/generate.py --ckpt a.pt", tmp_path).model.size == "B"


def test_label_dropout_is_that_of_their_networks_whatever_the_option_says() -> None:
    for command in (TRAIN, DIT, DUAL):
        assert manifest(command, "--cfg-prob", "0")["train"]["label_dropout"] == 0.1


def test_names_and_paths_with_spaces(tmp_path: Path) -> None:
    run = resolved(f"{TRAIN} --exp-name '.my run: a/b' --data-dir '/data/image  net/a: #1'", tmp_path)
    assert (load(tmp_path / "mine.yaml").name, run.data.latents) == ("my-run-a-b", "/data/image  net/a: #1")
    sampled = resolved(f"{SAMPLE} --ckpt 'my exps/epoch 799 (1).pt'", tmp_path)
    assert load(tmp_path / "mine.yaml").name == "epoch-799-1--samples"
    assert sampled.checkpoint == "my exps/epoch 799 (1).pt"
    assert yaml.safe_load(from_command(shlex.split(f"{TRAIN} --exp-name 日本")))["name"] == "from-sra"


def test_the_shorter_of_epochs_and_steps_counts():
    assert manifest(TRAIN, "--max-train-steps", "400000")["train"]["steps"] == 400_000
    train = manifest(TRAIN, "--epochs", "400", "--max-train-steps", str(400 * 5004))["train"]
    assert (train["epochs"], "steps" in train) == (400, False)


@pytest.mark.parametrize(
    ("arguments", "kind", "teacher"),
    [
        ((), "dts-as", "own-times"),
        (("--teacher-t", "self_flow"), "dts-as", "min-and-clean"),
        (("--teacher-t", "self_flow", "--no-teacher-mask"), "self-flow", "all-at-min"),
    ],
)
def test_dual_timesteps(arguments, kind, teacher, tmp_path):
    assert resolved(DUAL, tmp_path).align.kind == "dts-as"
    align = manifest(DUAL, *arguments)["variants"]["sra"]["align"]
    assert (align["kind"], align["teacher"], align["separated"]) == (kind, teacher, True)
    assert (align["blocks"], align["weight"], align["distance"]) == ([3, 8], 0.5, "cosine-tokens")


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("python eval.py", "expected train.py or generate.py"),
        ("train.py --seed 0", "--model: missing"),
        (f"{TRAIN} --learning_rat 1", "unrecognized arguments: --learning_rat"),
        (f"{TRAIN} --batch-size many", "argument --batch-size: invalid int value"),
        (f"{TRAIN} --loss-type huber", "invalid choice: 'huber'"),
        (f"{TRAIN} --model SiT-H/2", "--model: .*'SiT-H/2'"),
        (f"{TRAIN} --qk-norm", "--qk-norm: expected False"),
        (f"{DUAL} --mask-ratio 0.5", "--mask-ratio: expected 0.25 .*'0.5'"),
        (f"{DUAL} --teacher-t same", "--teacher-t: expected sra or self_flow with --teacher-mask, got 'same'"),
        (f"{DUAL} --no-use-alignment-loss", "--dual-time-scheduling: expected False"),
        (f"{DUAL} --no-dual-time-scheduling", "--dual-time-scheduling: expected True"),
        (f"{DUAL} --no-use-alignment-loss --no-dual-time-scheduling", "--attention-separation: expected False"),
        (f"{DUAL} --weighting lognormal", "--weighting: expected uniform"),
        (f"{DUAL} --batch-size 7", "--batch-size: expected at least 8 "),
        (f"{SAMPLE} --cfg-scale 0.9", "--cfg-scale: expected at least 1 .*0.9"),
        (f"{SAMPLE} --cfg-scale nan", "--cfg-scale: expected at least 1 .*nan"),
        (f"{SAMPLE} --resolution 128", "--resolution: invalid choice: 128"),
        (f"{DIT} --resolution 512", "--resolution: invalid choice: 512"),
        (f"{DIT_SAMPLE} --num-classes 10", "--num-classes: expected 1000"),
        (f"{SAMPLE} --num-classes 10", "--num-classes: expected 1000"),
        (f"{DUAL} --path-type cos", "--path-type: invalid choice: 'cos'"),
        (f"{DUAL} --mask-ratio 0.25 0.25", r"--mask-ratio: expected 0.25 .*'0.25 0.25'"),
        (f"{DUAL} --mask-ratio [0.25,0.5,0.25]", r"--mask-ratio: expected 0.25 .*'\[0.25,0.5,0.25\]'"),
        (f"{DUAL} --mask-ratio quarter", r"--mask-ratio: expected 0.25 .*'quarter'"),
        (f"{DUAL} --mask-ratio nan", r"--mask-ratio: expected 0.25 .*'nan'"),
        (f"{DUAL} --full-sample-prob 0.1", "--full-sample-prob: expected 0.0 .*0.1"),
        ("python pca-vis/main_pca.py --ckpt a.pt", "main_pca.py is `sra-bench pca`"),
        ("DiT-SRA/train.py --model SiT-XL/2", "--model: expected DiT-.*'SiT-XL/2'"),
        ("SiT-SRA_DTS_AS/train.py", "--model: expected SiT-.*None"),
        ("generate.py --ckpt a.pt", "--model: missing; .*DiT-SRA"),
        (SAMPLE.replace("=8", "=gpu"), "--nproc_per_node: .*--processes: all GPUs together.*'gpu'"),
        (SAMPLE.replace("--ckpt exps/sitxl/checkpoints/epoch-799.pt", ""), "--ckpt: missing"),
        (f"{SAMPLE} --mode both", "--mode: .*'both'"),
        (SAMPLE.replace("=8", "=x"), "--nproc_per_node: .*'x'"),
        (SAMPLE.replace("=8", "=8 --nnodes=1:4"), "--nnodes: .*--processes.*'1:4'"),
        (SAMPLE.replace("=8", "=8 --nnodes=$N"), r"--nnodes: .*'\$N'"),
        # What a manifest does not hold.
        (f"{SAMPLE} --per-proc-batch-size 0", "from-sra: sample.batch: .*0"),
        (f"{SAMPLE} --guidance-low 0.8", r"from-sra: sample.guidance_interval: .*\[0.8, 0.7\]"),
        (f"{TRAIN} --block-out-s 21", r"from-sra: variants.sra: align.blocks: .*\[21, 20\]"),
        (f"{TRAIN} --learning-rate -1", "from-sra: train.lr: "),
    ],
)
def test_refusals_are_one_line(command, problem):
    with pytest.raises(UserError, match=problem) as caught:
        from_command(shlex.split(command))
    assert len(str(caught.value).splitlines()) == 1


def test_what_has_no_key_is_said():
    text = from_command(shlex.split(TRAIN))
    assert "# --output-dir: no key; set by `--out`." in text
    assert "# --batch-size" not in text
    resumed = from_command(shlex.split(f"{TRAIN} --resume-ckpt exps/a/checkpoints/step-50000.pt"))
    assert "# --resume-ckpt: no key; nothing continues their checkpoint" in resumed
    assert yaml.safe_load(from_command(shlex.split(f"{TRAIN} --path-type cos")))["model"]["interpolant"] == "cosine"


def flat(document):
    """Its settings by dotted keys; `align` and `checkpoint` without the name of the one variant."""
    (variant,) = document["variants"].values()
    settings, nested = {}, [("", {**document, **variant, "variants": None})]
    for prefix, section in nested:
        for key, value in section.items():
            nested += [(f"{prefix}{key}.", value)] if isinstance(value, dict) else []
            settings |= {} if isinstance(value, dict) else {prefix + key: value}
    return settings


def changes(before, after):
    """What `after` says where it differs; None: nothing."""
    before, after = flat(before), flat(after)
    return {key: after.get(key) for key in before | after if before.get(key) != after.get(key)}


TRAINING = {
    "--exp-name another": {"name": "another"},
    "--epochs 3": {"train.epochs": 3},
    "--max-train-steps 5": {"train.epochs": None, "train.steps": 5},
    "--checkpoint-steps 7": {"train.checkpoint_every": 7},
    "--num-classes 10": {"model.classes": 10, "data.split": "train"},
    "--mixed-precision no": {"train.precision": "tf32"},
    "--mixed-precision bf16": {"train.precision": "bf16"},
    "--gradient-accumulation-steps 2": {"train.accumulate": 2, "train.global_batch": 512},
    "--learning-rate 3e-5": {"train.lr": 3e-5},
    "--adam-beta1 0.8": {"train.betas": [0.8, 0.999]},
    "--adam-beta2 0.95": {"train.betas": [0.9, 0.95]},
    "--adam-weight-decay 0.01": {"train.weight_decay": 0.01},
    "--adam-epsilon 1e-6": {"train.eps": 1e-6},
    "--max-grad-norm 0.5": {"train.clip": 0.5},
    "--seed 42": {"seed": 42},
    "--data-dir-train /other": {"data.latents": "/other"},
    "--batch-size 48": {"train.global_batch": 8 * 48},
    "--num-workers 3": {"train.workers": 3},
    "--block-out-s 2": {"align.blocks": [2, 20]},
    "--block-out-t 9": {"align.blocks": [8, 9]},
    "--t-max 0.3": {"align.interval.random": 0.3},
}
OF_SIT = {
    "--model SiT-L/4": {"model.size": "L", "model.patch": 4},
    "--resolution 512": {"model.resolution": 512, "score.reference": "asset:imagenet512-reference"},
    "--path-type cosine": {"model.interpolant": "cosine"},
}
PAPER_LOSS = {"align.weight": 0.2, "align.weight_schedule": "public-code"}
SAMPLING = {
    "--global-seed 5": {"sample.seed": 5},
    "--no-tf32": {"sample.precision": "fp32"},
    "--ckpt a/step-5.pt": {"checkpoint": "a/step-5.pt", "name": "step-5-samples"},
    "--vae mse": {"codec.path": "asset:sd-vae-ft-mse"},
    "--per-proc-batch-size 16": {"sample.batch": 16},
    "--num-fid-samples 10000": {"sample.images": 10_000},
    "--num-steps 100": {"sample.steps": 100},
    "--cfg-scale 2.5": {"sample.cfg": 2.5},
    "--resolution 512": OF_SIT["--resolution 512"],
}
SIT_SAMPLING = {
    **OF_SIT,
    **SAMPLING,
    "--mode ode": {"sample.sampler": "euler"},
    "--heun --mode ode": {"sample.sampler": "heun"},
    "--heun": {},
    "--cfg-scale 1": {"sample.cfg": 1.0},
    "--num-classes 10 --cfg-scale 1": {"sample.cfg": 1.0, "model.classes": 10},
    "--guidance-low 0.1": {"sample.guidance_interval": [0.1, 0.7]},
    "--guidance-high 0.9": {"sample.guidance_interval": [0.0, 0.9]},
}
# What the manifest of each script's command then says differently.
CHANGES = {
    "SiT-SRA/train.py": {
        **OF_SIT,
        **TRAINING,
        "--sample-steps 9": {"train.grid_every": 9},
        "--weighting lognormal": {"train.times": "lognormal"},
        "--path-type cos": {"model.interpolant": "cosine"},
        "--loss-type sml1": {"align.distance": "smooth-l1", **PAPER_LOSS},
        "--loss-type l1": {"align.distance": "l1", **PAPER_LOSS},
        "--loss-type l2": {"align.distance": "l2", **PAPER_LOSS},
    },
    "SiT-SRA/generate.py": SIT_SAMPLING,
    "DiT-SRA/train.py": {
        **TRAINING,
        "--model DiT-L/4": {"model.size": "L", "model.patch": 4},
        "--mixed-precision no": {"train.precision": "fp32"},
        "--block-out-s 2": {"align.blocks": [2, 16]},
        "--block-out-t 9": {"align.blocks": [8, 9]},
    },
    "DiT-SRA/generate.py": {
        **SAMPLING,
        "--model DiT-B/4": {"model.size": "B", "model.patch": 4},
        "--num-classes 10 --cfg-scale 1": {"sample.cfg": 1.0, "model.classes": 10, "sample.cfg_channels": "all"},
        "--cfg-scale 1": {"sample.cfg": 1.0, "sample.cfg_channels": "all"},
    },
    "SiT-SRA_DTS_AS/train.py": {
        **{row: value for row, value in (OF_SIT | TRAINING).items() if row[:4] not in ("--t-", "--da", "--ba")},
        "--sample-steps 9": {"train.grid_every": 9},
        "--model SiT-B/8": {"model.patch": 8},
        "--model SiT-S/2": {"model.size": "S"},
        "--data-dir /other": {"data.latents": "/other"},
        "--batch-size 270": {"train.global_batch": 264},
        "--gradient-accumulation-steps 2": {"train.accumulate": 2},
        "--block-out-s 2": {"align.blocks": [2, 8]},
        "--block-out-t 9": {"align.blocks": [3, 9]},
        "--mask-ratio [0.25,0.75]": {},
        "--mask-ratio 1 3": {},
        "--no-attention-separation": {"align.separated": False},
        "--align-weight 0.8": {"align.weight": 0.8},
        "--loss-type sml1": {"align.distance": "smooth-l1"},
        "--loss-type l1": {"align.distance": "l1"},
        "--loss-type l2": {"align.distance": "l2"},
        "--teacher-t self_flow": {"align.teacher": "min-and-clean"},
        "--no-teacher-mask --teacher-t self_flow": {"align.kind": "self-flow", "align.teacher": "all-at-min"},
    },
    "SiT-SRA_DTS_AS/generate.py": SIT_SAMPLING,
}
FLAGS = [(script, flag) for script, flags in SCRIPTS.items() for flag in flags]
UNKEYED = [(script, flag) for script, flag in FLAGS if not flag.keys and not flag.choices]


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [(script, arguments, expected) for script, rows in CHANGES.items() for arguments, expected in rows.items()],
)
def test_what_a_flag_changes(script, arguments, expected):
    command = COMMANDS[script]
    assert changes(manifest(command), manifest(command, *arguments.split())) == expected


def test_every_flag_and_choice_is_in_the_table_above():
    """Their DiT scripts allow one loss, and with training one resolution; `same` has no counterpart."""
    for script, flag in FLAGS:
        rows = CHANGES[script]
        if flag.keys and len(flag.choices) != 1:
            assert any(flag.name in row.replace("--no-", "--").split() for row in rows), (script, flag.name)
            for choice in {*flag.choices} - {flag.default, "same"}:
                assert any(f"{flag.name} {choice}" in f"{COMMANDS[script]} {row}" for row in rows), (
                    script,
                    flag,
                    choice,
                )


@pytest.mark.parametrize(
    ("command", "same_as", "expected"),
    [
        (
            "SiT-SRA/train.py --model SiT-XL/2",
            TRAIN,
            {"name": "from-sra", "data.latents": "../data/imagenet256", "align.blocks": [4, 8]},
        ),
        (
            "DiT-SRA/train.py --model DiT-XL/2",
            DIT,
            {
                "name": "from-sra",
                "data.latents": "../data/imagenet256",
                "align.blocks": [4, 8],
                "align.interval.random": 0.1,
            },
        ),
        (
            "SiT-SRA_DTS_AS/train.py --model SiT-B/2 --use-alignment-loss --mask-ratio 0.25 --dual-time-scheduling",
            DUAL,
            {
                "name": "from-sra",
                "data.latents": "../data/imagenet256",
                "train.global_batch": 32,
                "train.epochs": None,
                "train.steps": 4_100_000,
                "train.checkpoint_every": 50_000,
                "train.grid_every": 100_000,
                "align.kind": "self-flow",
                "align.teacher": "all-at-min",
                "align.separated": False,
                "align.blocks": [4, 8],
            },
        ),
        (
            "SiT-SRA/generate.py --ckpt exps/sitxl/checkpoints/epoch-799.pt",
            SAMPLE,
            {
                "model.size": "B",
                "sample.steps": 50,
                "sample.guidance_interval": [0.0, 1.0],
                "sample.batch": 32,
            },
        ),
        ("DiT-SRA/generate.py --ckpt e/c/last.pt", DIT_SAMPLE, {"sample.batch": 32, "sample.ranks": 8}),
    ],
)
def test_defaults_are_those_of_their_parsers(command, same_as, expected):
    assert changes(manifest(same_as), manifest(command)) == expected


@pytest.mark.parametrize(("script", "flag"), UNKEYED, ids=[f"{s} {f.name}" for s, f in UNKEYED])
def test_a_flag_without_a_key_changes_nothing_or_is_refused(script, flag):
    values = {"int": "7", "float": "0.5", "str": "other", "list": "0.5"}
    switch = flag.name.replace("--", "--no-" if flag.default or "must be set" in flag.note else "--", 1)
    arguments = [switch] if flag.kind == "switch" else [flag.name, values[flag.kind]]
    if "rejected" in flag.note or "must be" in flag.note:
        with pytest.raises(ConfigError, match="the suite supports no other value"):
            manifest(COMMANDS[script], *arguments)
    else:
        assert manifest(COMMANDS[script], *arguments) == manifest(COMMANDS[script])


def test_every_key_exists():
    sections = typing.get_type_hints(Manifest)
    for script, flag in FLAGS:
        for section, *key in (key.split(".") for key in flag.keys):
            if section in ("align", "checkpoint"):
                continue
            assert section in sections, (script, flag.name)
            hint = sections[section]
            owners = [t for t in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(t)]
            assert not key or key[0] in {f.name for f in dataclasses.fields(owners[0])}, (script, flag.name)


def test_every_flag_says_where_it_is_read() -> None:
    launcher = {"--world_size", "--local-rank", "--dist_url"}
    dit = {"DiT-SRA/train.py": {"--cfg-prob", "--loss-type", "--allow-tf32"}, "DiT-SRA/generate.py": {"--heun"}}
    nowhere = {**dit, "SiT-SRA/train.py": {"--allow-tf32"}}
    for script, flags in SCRIPTS.items():
        places = read_at(script)
        assert all(place.startswith(script.rpartition("/")[2] + ":") for place in places.values())
        unread = nowhere.get(script, set()) | (launcher if script.endswith("generate.py") else set())
        assert {flag.name for flag in flags} - places.keys() == unread
        assert places.keys() <= {flag.name for flag in flags}


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_document_holds_the_tables(script):
    assert table(script) in (ROOT / "docs" / "from-sra.md").read_text()
