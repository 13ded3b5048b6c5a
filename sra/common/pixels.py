"""Stored pixels to RGB of 8 bits: one rule for each kind of file, and the names of the kinds that are counted."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from sra.common.listing import IMAGE_FORMATS

SIXTEEN_BITS = "sra-bench:16-bit"
"""Key of `Image.info`: Pillow keeps the upper byte of 16-bit colours when it loads them, and then no longer says so."""
# Each format raises errors of its own for a damaged file.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)
ORIENTATION = 0x0112
"""EXIF tag; 1: as stored."""


def decode(content: bytes) -> Image.Image:
    """A whole image, in the mode it is stored in; raises what Pillow raises."""
    image = Image.open(io.BytesIO(content), formats=list(IMAGE_FORMATS))
    image.info[SIXTEEN_BITS] = has_16_bits(image)
    image.load()
    return image


def has_16_bits(image: Image.Image) -> bool:
    """Whether an image that is opened and not loaded has 16 bits in each channel."""
    return image.mode.startswith("I;16") or ";16" in str(getattr(image, "tile", ""))


def to_rgb(image: Image.Image) -> Image.Image:
    """An image as the authors' scripts see it, `convert("RGB")`; but the upper 8 of 16 bits, which that would clip.

    Transparency is dropped and an EXIF orientation is not applied, as there.

    Raises:
        ValueError: a mode that has no meaning as RGB.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("numbers without a known white")
    return image.convert("RGB")


def kinds(image: Image.Image, name: str) -> Iterator[str]:
    """What is unusual about a loaded image, with the rule that was applied; the image is of no use afterwards.

    Args:
        image: from `decode`.
        name: of its file.
    """
    if image.info.get(SIXTEEN_BITS) or image.mode == "I":
        yield "16 bits, upper 8 kept"
    transparent = image.has_transparency_data
    if image.mode != "RGB" or transparent:
        yield f"{image.mode}, transparency dropped" if transparent else image.mode
    if orientation(image) != 1:
        yield "EXIF orientation, not applied"
    kind = "JPEG" if image.format == "MPO" else image.format
    if kind and PurePosixPath(name).suffix.lower() not in IMAGE_FORMATS[kind]:
        yield f"named otherwise, is {image.format}"
    if getattr(image, "is_animated", False):
        yield "several frames, first kept"


def orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 where there is none or the EXIF data are damaged, as some of ImageNet's are."""
    try:
        return int(image.getexif().get(ORIENTATION, 1)) if "exif" in image.info else 1
    except (*UNREADABLE, TypeError, KeyError, struct.error):
        return 1
