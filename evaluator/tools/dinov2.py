"""FD-DINOv2 (Stein et al. 2023, arXiv 2306.04675) as EDM2 computes it: `python -m evaluator.tools.dinov2`.

1,024 features of DINOv2 ViT-L/14 on images resized to 224 px.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evaluator.features.extractor import Array
from evaluator.tools.networks import IMAGENET, Network, State, main, normalised

EDGE, PATCH = 224, 14
OFFSET = 0.1
"""DINOv2 scales its positions to this fraction of a patch beyond the grid."""


def transform(images: Array) -> Tensor:
    """EDM2's resize: bicubic with antialiasing, neither rounded nor clipped."""
    pixels = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float()
    return normalised(interpolate(pixels, (EDGE, EDGE), mode="bicubic", antialias=True), *IMAGENET)


def adapt(state: State) -> State:
    """Positions of the training's 518 px on the grid of 224 px, as DINOv2 does it: timm's way moves the features."""
    positions, grid = state["pos_embed"], EDGE // PATCH
    edge = round((positions.shape[1] - 1) ** 0.5)
    plane = positions[:, 1:].reshape(1, edge, edge, -1).permute(0, 3, 1, 2)
    scale = (grid + OFFSET) / edge
    scaled = interpolate(plane, scale_factor=(scale, scale), mode="bicubic").flatten(2).transpose(1, 2)
    found = {**state, "pos_embed": torch.cat([positions[:, :1], scaled], 1)}
    found.pop("mask_token", None)
    return found


NETWORK = Network(
    tool="dinov2",
    architecture="vit_large_patch14_dinov2",
    options={"img_size": EDGE, "num_classes": 0},
    width=1024,
    transform=transform,
    adapt=adapt,
)

if __name__ == "__main__":
    main(NETWORK)
