"""Stand-ins: `python -m sra.interop.standin` writes what a smoke run uses in place of a published file.

A checkpoint becomes a freshly initialised network of the stated family and convention, written in the layout of the
published file (with the training state where SRA's authors wrote it, bare where SiT's and DiT's did), so that loading
and sampling take the same path; nothing was learnt, so its images are noise. A sample file becomes images of the
embedded data set.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sra import embedded
from sra.common.files import replacing
from sra.config import StandInJob
from sra.model.transformer import build, fill_zeros, initialise
from sra.runtime import job
from sra.training.checkpoint import write_state


def make_weights(config: StandInJob, out: Path) -> None:
    """Write `weights.pt`: `model`, `ema`, `opt`, `args`, `epoch` and `steps`, or a bare state for vanilla conventions.

    Args:
        config: the network, its convention and the seed.
        out: folder of the file.
    """
    published = config.model.convention == "sra"
    network = build(config.model, config.codec, head=published)
    initialise(network, config.seed)
    # An all-zero output would hide a wrong convention.
    fill_zeros(network, config.seed)
    state = network.state_dict()
    with replacing(out / "weights.pt") as temporary:
        write_state(temporary, _with_training_state(state) if published else state)


def _with_training_state(state: dict[str, Tensor]) -> dict[str, Any]:
    optimizer: dict[str, Any] = {"state": {}, "param_groups": []}
    return {"model": state, "ema": state, "opt": optimizer, "args": argparse.Namespace(), "epoch": 0, "steps": 0}


def make_samples(config: StandInJob, out: Path) -> None:
    """Write `samples.npz`: `arr_0` (N, H, W, 3) uint8, the first N embedded images."""
    pixels, _ = embedded.digits(config.model.resolution)
    with replacing(out / "samples.npz") as temporary, temporary.open("wb") as handle:
        np.savez(handle, arr_0=pixels[: config.images])


def main(arguments: list[str]) -> None:
    """`python -m sra.interop.standin --config stage.json [...] --out DIR [...]`."""
    parser = argparse.ArgumentParser(prog="python -m sra.interop.standin", description=main.__doc__)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    options = parser.parse_args(arguments)
    for path, out in zip(options.config, options.out, strict=True):
        config = job.read_config(path, StandInJob)
        (make_weights if config.images is None else make_samples)(config, out)


if __name__ == "__main__":
    job.run(main)
