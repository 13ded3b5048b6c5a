"""PCA pictures of block outputs: `python -m sra.analysis.pca CKPT --image FILE --convention NAME`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sra.analysis.options import View, add_options, view_of
from sra.common.errors import ConfigError, DataError, expected
from sra.common.files import check_place, replacing
from sra.common.validation import ArgumentParser
from sra.runtime import job

if TYPE_CHECKING:
    from torch import Tensor

# The paper's figure.
BLOCKS = (1, 4, 8, 13, 18, 23, 28)
TIMES = (0.7, 0.5, 0.3, 0.1)
LABEL = 88


def pictures(view: View, image: Path, label: int) -> dict[tuple[float, int], Any]:
    """(grid, grid, 3) components in [0, 1] by time and block.

    Args:
        view: network, blocks and noise levels.
        image: a file, resized to the network's resolution without a crop, as for the paper's figure.
        label: class given to the network.

    Raises:
        DataError: not an image, or weights of another network.
    """
    import torch

    from sra.analysis.features import FeatureExtractor, normalised, pca_image

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    moments = _moments(view, image, device)
    extractor = FeatureExtractor(view, device)
    channels = moments.shape[1] // 2
    eps, noise = extractor.noise(torch.zeros(1, device=device), (channels, *moments.shape[2:]))
    z = (moments[:, :channels] + moments[:, channels:] * eps) * view.codec.scale
    labels = torch.full((1,), label, device=device)
    grid = moments.shape[-1] // view.model.patch
    found: dict[tuple[float, int], Any] = {}
    for t in view.times:
        outputs = extractor.outputs(z, labels, noise, t)
        tokens = {block: normalised(outputs[block][0], view.model.convention) for block in view.blocks}
        found |= {(t, block): pca_image(tokens[block], grid) for block in view.blocks}
    return found


def _moments(view: View, image: Path, device: Any) -> Tensor:
    """(1, 2C, h, w) of an image file."""
    import numpy as np
    import torch
    from PIL import Image

    from sra.model.vae import load_codec

    size = (view.model.resolution, view.model.resolution)
    try:
        pixels = np.asarray(Image.open(image).convert("RGB").resize(size, Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"--image {image}: expected a whole image, got: {error}") from error
    return load_codec(view.codec, device).moments(torch.from_numpy(pixels.copy())[None])


def draw(found: dict[tuple[float, int], Any], view: View, out: Path) -> None:
    """Draw the pictures as PNG, one row a noise level and one column a block."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    size = (2 * len(view.blocks) + 0.6, 2 * len(view.times) + 0.4)
    figure, axes = plt.subplots(len(view.times), len(view.blocks), figsize=size, squeeze=False, layout="constrained")
    for row, t in enumerate(view.times):
        for column, block in enumerate(view.blocks):
            axis = axes[row][column]
            axis.imshow(found[t, block], interpolation="nearest")
            axis.set(xticks=[], yticks=[], title=f"block {block}" if row == 0 else None)
            axis.set_ylabel(f"t = {t:g}" if column == 0 else "")
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    """Draw the first three principal components of block outputs on one image, as in the SRA paper's figure."""
    parser = ArgumentParser(prog="sra-bench pca", description=main.__doc__)
    add_options(parser, "1 4 8 13 18 23 28, up to the depth", TIMES)
    parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="image file")
    parser.add_argument("--label", type=int, default=LABEL, metavar="N", help=f"class given to the network ({LABEL})")
    parser.add_argument("--out", type=Path, default=Path("pca.png"), metavar="FILE", help="picture to write (pca.png)")
    options = parser.parse_args(arguments)
    view = view_of(options, BLOCKS)
    _check(options, view)
    draw(pictures(view, options.image, options.label), view, options.out)
    print(f"{options.out}: blocks {view.blocks} x noise levels {view.times}", flush=True)


def _check(options: argparse.Namespace, view: View) -> None:
    if not 0 <= options.label < view.model.classes:
        raise ConfigError(expected("--label", f"a class from 0 to {view.model.classes - 1}", options.label))
    if not options.image.is_file():
        raise DataError(f"--image {options.image}: expected a file, got none")
    check_place(options.out, "--out")


if __name__ == "__main__":
    job.run(main)
