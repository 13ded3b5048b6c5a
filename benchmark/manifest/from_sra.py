"""The authors' command lines as manifests: `sra-bench from-sra -- COMMAND`."""

from __future__ import annotations

import argparse
import itertools
import math
import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from benchmark.manifest.schema import MAX_NAME, check
from benchmark.manifest.sra_flags import SCRIPTS, Flag
from sra.common.errors import expected, one_of
from sra.config import PUBLIC_DISTANCES, SPLITS, ConfigError

Values = dict[str, Any]
IMAGENET = SPLITS["imagenet-train"][0]
FOLDERS = ("SiT-SRA", "DiT-SRA", "SiT-SRA_DTS_AS")
"""Folders of their repository, one family or method each."""
LABEL_DROPOUT = 0.1
"""Of their networks, which no option of a script changes."""
PROCESSES = 8
"""Default number of GPUs: that of the authors' accelerate configuration."""
TORCHRUN = ("torchrun", "torch.distributed.run", "torch.distributed.launch")
"""Launchers that start one process on each node if they are not told how many."""
# By (--teacher-mask, --teacher-t).
TEACHERS = {(True, "sra"): "own-times", (True, "self_flow"): "min-and-clean", (False, "self_flow"): "all-at-min"}
DUAL = ("--dual-time-scheduling", "--attention-separation", "--mask-ratio", "--teacher-t", "--use-alignment-loss")


class _Parser(argparse.ArgumentParser):
    """Parses a command line like the script's own parser, abbreviations included; errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}")


def from_command(command: list[str], processes: int | None = None) -> str:
    """Convert an authors' command line to a manifest (YAML), with comments on flags without a key.

    Args:
        command: words of the whole command, launcher included.
        processes: GPUs; default: what the launcher says, else 8.

    Raises:
        UserError: not one of their scripts, an unknown flag, or a value that the suite does not support.
    """
    script, launcher, arguments = _split(command)
    flags = SCRIPTS[script]
    values, given = _parse(script, flags, arguments)
    count = processes or _processes(launcher)
    document = (_training if script.endswith("train.py") else _sampling)(script, values, count)
    # What the suite refuses is refused here, not when the manifest is run.
    check(document, Path("from-sra"))
    unused = [f for f in flags if f.name in given and not f.keys and f.note]
    comments = [f"# From {script} on {count} processes.", *(f"# {f.name}: no key; {f.note}." for f in unused)]
    return "\n".join(comments) + "\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _split(command: list[str]) -> tuple[str, list[str], list[str]]:
    """Split a command into the script, the words before it, and its arguments."""
    places = [i for i, word in enumerate(command) if Path(word).name in ("train.py", "generate.py")]
    if not places:
        others = "main_pca.py is `sra-bench pca`, npz_convert.py part of sampling"
        raise ConfigError(f"from-sra: expected train.py or generate.py in the command ({others}), got neither")
    launcher, script, arguments = command[: places[0]], command[places[0]], command[places[0] + 1 :]
    folder = next((part for part in reversed(Path(script).parts[:-1]) if part in FOLDERS), None)
    return f"{folder or _folder_of(arguments)}/{Path(script).name}", launcher, arguments


def _folder_of(arguments: list[str]) -> str:
    """Folder of a script that the command names without it."""
    model = _value_of("--model", arguments)
    if any(word.startswith(DUAL) for word in arguments):
        return "SiT-SRA_DTS_AS"
    if model is None:
        raise ConfigError(
            f"from-sra: --model: missing; it, or the script's folder ({', '.join(FOLDERS)}), names the script"
        )
    return "DiT-SRA" if model.startswith("DiT") else "SiT-SRA"


def _value_of(name: str, words: list[str]) -> str | None:
    for word, following in itertools.zip_longest(words, words[1:]):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _processes(launcher: list[str]) -> int:
    """Number of processes that a launcher starts on all nodes; accelerate's own option counts all of them."""
    total = _number(launcher, "--num_processes", "--num-processes")
    if total is not None:
        return total
    torchrun = any(Path(word).name in TORCHRUN for word in launcher)
    each = _number(launcher, "--nproc_per_node", "--nproc-per-node") or (1 if torchrun else PROCESSES)
    return each * (_number(launcher, "--nnodes") or 1)


def _number(launcher: list[str], *names: str) -> int | None:
    found = next((value for name in names if (value := _value_of(name, launcher)) is not None), None)
    if found is not None and not re.fullmatch("[1-9][0-9]*", found):
        what = "a number of at least 1 (or give --processes: all GPUs together)"
        raise ConfigError(expected(f"from-sra: {names[0]}", what, found))
    return None if found is None else int(found)


def _parse(script: str, flags: tuple[Flag, ...], arguments: list[str]) -> tuple[Values, set[str]]:
    """Values of all flags, by their names without dashes, and the flags that were given."""
    parser = _Parser(prog=script, add_help=False)
    kinds: dict[str, Any] = {"int": int, "float": float, "str": str}
    for flag in flags:
        if flag.kind == "switch":
            # None marks what was not given.
            parser.add_argument(flag.name, action=argparse.BooleanOptionalAction, default=None)
        elif flag.kind == "list":
            parser.add_argument(flag.name, nargs="+", default=None)
        else:
            parser.add_argument(flag.name, type=kinds[flag.kind], choices=flag.choices or None, default=None)
    found = vars(parser.parse_args(arguments))
    names = {flag.name.lstrip("-").replace("-", "_"): flag for flag in flags}
    given = {flag.name for name, flag in names.items() if found[name] is not None}
    return {n: f.default if found[n] is None else found[n] for n, f in names.items()}, given


def _refuse_others(values: Values, allowed: dict[str, Any]) -> None:
    for name, value in allowed.items():
        if name in values and values[name] != value:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(
                expected(f"from-sra: {flag}", f"{value} (the suite supports no other value)", values[name])
            )


def _name(text: str) -> str:
    """A manifest's name: it names folders, so that all but letters, digits, '.', '_' and '-' becomes '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-_")[:MAX_NAME] or "from-sra"


def _model(script: str, values: Values) -> Values:
    family = script[:3]
    found = re.fullmatch(rf"{family}-(S|B|L|XL)/([248])", values["model"] or "")
    if found is None:
        allowed = f"{family}-S, -B, -L or -XL, /2, /4 or /8 for {script}"
        raise ConfigError(expected("from-sra: --model", allowed, values["model"]))
    model = {"family": family.lower(), "size": found[1], "patch": int(found[2]), "resolution": values["resolution"]}
    model |= {"convention": "sra", "classes": values["num_classes"]}
    # Their newest training parser says `cos` where its loss and all else say `cosine`.
    path = {"cos": "cosine"}.get(values.get("path_type", ""), values.get("path_type"))
    return model | ({"interpolant": path} if path else {})


def _score(values: Values) -> Values:
    return {"reference": f"asset:imagenet{values['resolution']}-reference", "graph": "asset:inception-graph"}


def _training(script: str, values: Values, processes: int) -> Values:
    """Manifest of one of the training scripts."""
    _refuse_others(values, {"qk_norm": False})
    dual = script.startswith("SiT-SRA_DTS_AS")
    model = _model(script, values)
    parts = processes * values["gradient_accumulation_steps"]
    batch = (values["batch_size"] // parts if dual else values["batch_size"]) * parts
    if batch < 1:
        raise ConfigError(
            expected("from-sra: --batch-size", f"at least {parts} (GPUs x accumulation)", values["batch_size"])
        )
    align = _dual(values) if dual else _alignment(values, model["family"])
    return {
        "name": _name(values["exp_name"] or ""),
        "seed": values["seed"],
        "data": {
            "latents": values["data_dir" if dual else "data_dir_train"],
            "split": "imagenet-train" if model["classes"] == SPLITS["imagenet-train"][1] else "train",
        },
        "codec": {"path": "asset:sd-vae-ft-ema"},
        "model": model,
        "train": _length(values, batch) | _optimisation(values, batch, model["family"]),
        "sample": {"sampler": "ddpm" if model["family"] == "dit" else "euler-maruyama"},
        "score": _score(values),
        "variants": {"sra": {"align": align}} if align else {"baseline": {}},
    }


def _length(values: Values, batch: int) -> Values:
    """Length of training: their loop ends at the last epoch or the last step, whichever comes first."""
    steps = values["epochs"] * (IMAGENET // batch)
    return {"epochs": values["epochs"]} if steps <= values["max_train_steps"] else {"steps": values["max_train_steps"]}


def _optimisation(values: Values, batch: int, family: str) -> Values:
    single = "tf32" if family == "sit" else "fp32"
    train = {
        "global_batch": batch,
        "accumulate": values["gradient_accumulation_steps"],
        "lr": values["learning_rate"],
        "betas": [values["adam_beta1"], values["adam_beta2"]],
        "eps": values["adam_epsilon"],
        "weight_decay": values["adam_weight_decay"],
        "clip": values["max_grad_norm"],
        "precision": single if values["mixed_precision"] == "no" else values["mixed_precision"],
        "label_dropout": LABEL_DROPOUT,
        "checkpoint_every": values["checkpoint_steps"],
        "workers": values["num_workers"],
    }
    if "weighting" in values:
        train["times"] = values["weighting"]
    if "sample_steps" in values:
        train["grid_every"] = values["sample_steps"]
    return train


def _alignment(values: Values, family: str) -> Values:
    """SRA as the public code trains it: its weights and schedule, the teacher outside of autocast."""
    cosine = values["loss_type"] == "cos"
    return {
        "kind": "sra",
        "blocks": [values["block_out_s"], values["block_out_t"]],
        "interval": {"random": values["t_max"]},
        "distance": PUBLIC_DISTANCES[values["loss_type"]],
        "weight": 0.5 if cosine else 0.2 if family == "sit" else 0.04,
        "weight_schedule": "constant" if cosine else "public-code",
        "teacher_precision": "fp32",
    }


def _dual(values: Values) -> Values | None:
    """Self-Flow or DTS + AS; None: no alignment."""
    _refuse_others(values, {"weighting": "uniform"})
    if not values["use_alignment_loss"]:
        _refuse_others(values, {"dual_time_scheduling": False, "attention_separation": False})
        return None
    _refuse_others(values, {"dual_time_scheduling": True, "full_sample_prob": 0.0})
    if not _quarter(values["mask_ratio"]):
        given = " ".join(values["mask_ratio"])
        raise ConfigError(expected("from-sra: --mask-ratio", "0.25 (the suite supports no other value)", given))
    teacher = TEACHERS.get((values["teacher_mask"], values["teacher_t"]))
    if teacher is None:
        mask = "with" if values["teacher_mask"] else "without"
        allowed = " or ".join(value for given, value in TEACHERS if given == values["teacher_mask"])
        raise ConfigError(expected("from-sra: --teacher-t", f"{allowed} {mask} --teacher-mask", values["teacher_t"]))
    return {
        "kind": "self-flow" if teacher == "all-at-min" else "dts-as",
        "blocks": [values["block_out_s"], values["block_out_t"]],
        "teacher": teacher,
        "separated": values["attention_separation"],
        "distance": PUBLIC_DISTANCES[values["loss_type"]],
        "weight": values["align_weight"],
    }


def _quarter(mask_ratio: list[str]) -> bool:
    """Whether there are two groups of tokens, the first a quarter of all; one ratio is that of the first."""
    try:
        ratios = [float(ratio) for ratio in re.findall(r"[^\s,\[\]\"']+", " ".join(mask_ratio))]
    except ValueError:
        return False
    ratios = [*ratios, 1 - ratios[0]] if len(ratios) == 1 else ratios
    return len(ratios) == 2 and min(ratios) > 0 and math.isclose(3 * ratios[0], ratios[1])


def _sampling(script: str, values: Values, processes: int) -> Values:
    """Manifest of one of the sampling scripts."""
    _refuse_others(values, {"qk_norm": False, "mask_ratio": 0.0})
    if values["ckpt"] is None:
        raise ConfigError("from-sra: --ckpt: missing")
    if not values["cfg_scale"] >= 1:
        raise ConfigError(expected("from-sra: --cfg-scale", "at least 1 (1: no guidance)", values["cfg_scale"]))
    if values["cfg_scale"] > 1:
        _refuse_others(values, {"num_classes": 1000})  # their null label is always 1000
    checkpoint = Path(values["ckpt"])
    return {
        "name": _name(f"{checkpoint.stem}-samples"),
        "codec": {"path": f"asset:sd-vae-ft-{values['vae']}"},
        "model": _model(script, values),
        "sample": {
            **_sampler(script, values),
            "steps": values["num_steps"],
            "cfg": values["cfg_scale"],
            "images": values["num_fid_samples"],
            "seed": values["global_seed"],
            "seeding": "public-code",
            "ranks": processes,
            "labels": "random",
            "precision": "tf32" if values["tf32"] else "fp32",
            "batch": values["per_proc_batch_size"],
        },
        "score": _score(values),
        "variants": {"checkpoint": {"checkpoint": str(checkpoint)}},
    }


def _sampler(script: str, values: Values) -> Values:
    if script.startswith("DiT"):
        return {"sampler": "ddpm", "cfg_channels": 3 if values["cfg_scale"] > 1 else "all"}
    if values["mode"] not in ("sde", "ode"):
        raise ConfigError(one_of("from-sra: --mode", values["mode"], ("sde", "ode")))
    ode = "heun" if values["heun"] else "euler"
    return {
        "sampler": "euler-maruyama" if values["mode"] == "sde" else ode,
        "guidance_interval": [values["guidance_low"], values["guidance_high"]],
    }
