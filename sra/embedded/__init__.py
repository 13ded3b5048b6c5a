"""The data of the smoke run: scikit-learn's handwritten digits, and a small autoencoder that `train_codec` made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CODEC = Path(__file__).parent / "digits-codec"


def digits(resolution: int) -> tuple[Any, Any]:
    """The 1,797 digits as images.

    Returns:
        (1797, resolution, resolution, 3) uint8 images, grey repeated, and (1797,) int64 classes.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = (bunch.images * (255 / 16)).round().astype(np.uint8)
    size = (resolution, resolution)
    images = [Image.fromarray(g).resize(size, Image.Resampling.BICUBIC).convert("RGB") for g in grey]
    return np.stack([np.asarray(image) for image in images]), bunch.target.astype(np.int64)
