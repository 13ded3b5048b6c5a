"""TensorBoard and Weights & Biases through accelerate, where `train.trackers` asks for them."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from accelerate import Accelerator

from sra.common.errors import ConfigError

PROJECT = "sra-bench"
NO_TENSORFLOW = "tensorboard.compat.notf"


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuse a tracker whose package is not installed; the suite itself needs none of them.

    Raises:
        ConfigError: the first that is missing, by name.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"train.trackers: {name} needs the Python package {name!r}, which is not installed")


def start_trackers(accelerator: Accelerator, names: tuple[str, ...], out: Path) -> None:
    """Open the trackers in a run's folder; a continued run goes on in the same record.

    Args:
        accelerator: made with `log_with=names` and `project_dir=out`.
        names: of the trackers.
        out: the stage directory; its name is the record's.
    """
    if not names:
        return
    # TensorBoard would import TensorFlow where it finds it; with this it takes its own stand-in.
    sys.modules.setdefault(NO_TENSORFLOW, ModuleType(NO_TENSORFLOW))
    wandb = {
        "id": out.name,
        "name": out.name,
        "resume": "allow",
        "dir": str(out),
        "mode": os.environ.get("WANDB_MODE", "offline"),
    }
    accelerator.init_trackers(PROJECT, init_kwargs={"wandb": wandb} if "wandb" in names else {})


def finish_trackers(accelerator: Accelerator) -> None:
    """Close the trackers that are open, if any."""
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.trackers = []
