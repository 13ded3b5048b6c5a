"""CMMD (Jayasumana et al. 2024, arXiv 2401.09603): `python -m evaluator.tools.clip`.

768 features of OpenAI's CLIP ViT-L/14 at 336 px: the image embeddings before they are scaled to length 1.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from evaluator.features.extractor import Array
from evaluator.tools.networks import Network, State, each, main, normalised

EDGE, WIDTH = 336, 768
COLOURS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _square(image: Image.Image) -> Image.Image:
    """The square in the middle, resized by Pillow, as in CMMD's code."""
    edge = min(image.size)
    left, top = ((length - edge) // 2 for length in image.size)
    return image.crop((left, top, left + edge, top + edge)).resize((EDGE, EDGE), Image.Resampling.BICUBIC)


def transform(images: Array) -> Tensor:
    """Squares of 336 px with CLIP's colours."""
    return normalised(each(images, _square), *COLOURS)


def adapt(state: State) -> State:
    """CLIP's projection has no bias, timm's has one."""
    return {"head.bias": torch.zeros(WIDTH), **state}


NETWORK = Network(
    tool="clip",
    architecture="vit_large_patch14_clip_quickgelu_336",
    options={"num_classes": WIDTH},
    width=WIDTH,
    transform=transform,
    adapt=adapt,
    cmmd=True,
)

if __name__ == "__main__":
    main(NETWORK)
