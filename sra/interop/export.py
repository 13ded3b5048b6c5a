"""Export a checkpoint in the authors' layout: `python -m sra.interop.export STAGE OUT`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sra.common.errors import DataError
from sra.common.files import check_place, load_json, replacing
from sra.common.validation import ArgumentParser
from sra.config import TrainJob, to_plain
from sra.data.packed import FACTS
from sra.runtime import job

ORDER = ("pos_embed", "x_embedder", "t_embedder", "y_embedder", "blocks", "ap_head", "final_layer")
"""Order in which the authors register their layers. Their optimizer numbers its parameters by it, the frozen position
encoding included."""
HEAD = ("ap_head.linear1.", "ap_head.linear2.")
"""Parameters of SRA's head; the authors' network has no place for the head of another alignment."""
NO_HEAD = "; without SRA's head, so that of their scripts only SiT-SRA_DTS_AS/generate.py loads it"
"""The others build a network with a head and load strictly."""


def in_public_order(names: Iterable[str]) -> list[str]:
    """Sort parameter names as the authors' network lists them; blocks keep their order (the sort is stable)."""
    selected = [name for name in names if name.startswith(HEAD) or not name.startswith("ap_head.")]
    return sorted(selected, key=lambda name: ORDER.index(name.split(".")[0]))


def public_optimizer(state: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Renumber AdamW's state for the authors' optimizer.

    Args:
        state: `state_dict` of our optimizer.
        names: parameters in the order of our optimizer; those of the network start with `network.`, others have no
            place in the authors' file.
    """
    ours = {name.removeprefix("network."): i for i, name in enumerate(names) if name.startswith("network.")}
    theirs = in_public_order(["pos_embed", *ours])
    moved = {i: state["state"][ours[name]] for i, name in enumerate(theirs) if ours.get(name) in state["state"]}
    groups = [{**state["param_groups"][0], "params": list(range(len(theirs)))}]
    return {"state": moved, "param_groups": groups}


def public_document(config: TrainJob, state: dict[str, Any], images: int) -> dict[str, Any]:
    """model, ema, opt, args, epoch and steps, as the authors' training scripts save them.

    Args:
        config: the training run.
        state: a resumable checkpoint of it.
        images: size of the data set, for the epoch.
    """
    from sra.training.losses import TrainingModule  # torch: see `export`

    module = TrainingModule(config.model, config.codec, config.train, config.align)
    settings = argparse.Namespace(
        model=config.model.name,
        resolution=config.model.resolution,
        num_classes=config.model.classes,
        seed=config.seed,
        sra_bench=to_plain(config),
    )
    return {
        "model": {name: state["network"][name] for name in in_public_order(state["network"])},
        "ema": {name: state["ema"][name] for name in in_public_order(state["ema"])},
        "opt": public_optimizer(state["optimizer"], [name for name, _ in module.named_parameters()]),
        "args": settings,
        "epoch": state["step"] // (images // config.train.global_batch),
        "steps": state["step"],
    }


def export(stage: Path, out: Path) -> str:
    """Write the newest checkpoint of a train stage in the authors' layout; returns what it is and who can load it.

    Raises:
        DataError: not a train stage, without a checkpoint, or its latents are gone.
    """
    config = job.read_config(stage / "stage.json", TrainJob)
    inputs = (load_json(stage / "stage.json") or {}).get("inputs", {})
    try:
        facts = Path(inputs.get("latents", stage)) / FACTS
        images = int((load_json(facts) or {})["count"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{facts}: cannot be read; the epoch depends on its `count`: {error}") from error
    check_place(out, "OUT")
    # Torch takes seconds to import: help and refusals do not wait for it.
    from sra.training import checkpoint

    state = checkpoint.load_newest(stage / "checkpoints")
    if state is None:
        raise DataError(f"{stage / 'checkpoints'}: expected a resumable checkpoint, got none")
    with replacing(out) as temporary:
        checkpoint.write_state(temporary, public_document(config, state, images))
    headless = not any(name.startswith(HEAD) for name in state["network"])
    return f"{out}: step {state['step']} of {config.model.name}{NO_HEAD if headless else ''}"


def main(arguments: list[str]) -> None:
    """Write the newest checkpoint of a train stage in the authors' layout (model, ema, opt, args, epoch, steps)."""
    parser = ArgumentParser(prog="sra-bench export", description=main.__doc__)
    parser.add_argument("stage", type=Path, metavar="STAGE", help="directory of a train stage, RUN/stages/train-...")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write, .pt")
    options = parser.parse_args(arguments)
    print(export(options.stage, options.out), flush=True)


if __name__ == "__main__":
    job.run(main)
