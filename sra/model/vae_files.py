"""What a folder must hold to be a codec. Torch-free: a plan looks before any stage runs."""

from __future__ import annotations

from pathlib import Path

from sra.common.errors import DataError

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def check_codec_folder(place: Path) -> None:
    """Whether a place that is there is a folder in diffusers' format; one that is not there is nobody's fault yet.

    Raises:
        DataError: it is not; what was found, what is needed.
    """
    if not place.exists():
        return
    needed = f"needed: a folder with {CONFIG} and {WEIGHTS}"
    if not place.is_dir():
        raise DataError(f"codec.path {place}: found a file; {needed}")
    missing = [name for name in (CONFIG, WEIGHTS) if not (place / name).is_file()]
    if missing:
        raise DataError(f"codec.path {place}: found no {' and no '.join(missing)}; {needed}")
