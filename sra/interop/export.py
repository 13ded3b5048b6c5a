"""Checkpoints in the authors' layout: `python -m sra.interop.export STAGE OUT`."""

from __future__ import annotations

import json
from pathlib import Path

from sra.common.arguments import ArgumentParser
from sra.common.errors import DataError
from sra.config import TrainJob
from sra.data.packed import FACTS
from sra.runtime import job


def export(stage: Path, out: Path) -> str:
    """Write the newest checkpoint of a train stage in the authors' layout; returns what it is.

    Raises:
        DataError: not a train stage, without a checkpoint, or its latents are gone.
    """
    config = job.read_config(stage / "stage.json", TrainJob)
    inputs = json.loads((stage / "stage.json").read_text()).get("inputs", {})
    place = Path(inputs.get("latents", stage)) / FACTS
    try:
        images = int(json.loads(place.read_text())["count"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: the size of the data set cannot be read, which the epoch needs") from error
    if out.is_dir():
        raise DataError(f"{out}: found a folder, a file name is needed")
    # Torch costs seconds to import: help and refusals do not wait for it.
    from sra.interop.public_checkpoint import write_public

    return write_public(config, stage / "checkpoints", images, out)


def main(arguments: list[str]) -> None:
    """Write the newest checkpoint of a train stage in the authors' layout (model, ema, opt, args, epoch, steps)."""
    parser = ArgumentParser(prog="sra-bench export", description=main.__doc__)
    parser.add_argument("stage", type=Path, metavar="STAGE", help="directory of a train stage, RUN/stages/train-...")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write, .pt")
    options = parser.parse_args(arguments)
    print(export(options.stage, options.out), flush=True)


if __name__ == "__main__":
    job.run(main)
