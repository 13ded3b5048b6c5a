"""Resumable checkpoints: complete, atomic, checked on reading, the last few kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from sra.errors import DataError
from sra.files import replacing, sha256_file, write_bytes


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> None:
    """Write the state of a step, then remove all but the newest `keep`.

    Args:
        folder: of all checkpoints of a run.
        step: optimizer steps done.
        state: nested dicts of tensors and numbers.
        keep: checkpoints to keep.
    """
    place = folder / f"step-{step:08d}"
    if is_whole(place):
        return
    temporary = folder / f".step-{step:08d}.{os.getpid()}"
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(temporary / "state.pt") as path:
            torch.save(state, path)
        write_bytes(temporary / "sha256", sha256_file(temporary / "state.pt").encode())
        shutil.rmtree(place, ignore_errors=True)
        temporary.replace(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old)


def load_newest(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The newest checkpoint that is whole; says when it has to pass over a damaged one. None: start anew.

    Raises:
        DataError: there are checkpoints, and every one is damaged.
    """
    places = _all(folder)
    for place in reversed(places):
        if is_whole(place):
            state: dict[str, Any] = torch.load(place / "state.pt", map_location=device, weights_only=True)
            return state
        print(f"warning: {place}: checkpoint is damaged (checksum differs); trying the one before", flush=True)
    if places:
        raise DataError(f"{folder}: every checkpoint is damaged; remove the folder to start anew")
    return None


def is_whole(place: Path) -> bool:
    """Whether a checkpoint's content has the checksum written with it."""
    try:
        return (place / "sha256").read_text() == sha256_file(place / "state.pt")
    except OSError:
        return False


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-????????"))
