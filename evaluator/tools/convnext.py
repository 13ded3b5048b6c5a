"""FD on ConvNeXt-L of ImageNet-22K (Stein et al. 2023, arXiv 2306.04675): `python -m evaluator.tools.convnext`.

1,536 features: the pooled ones after the last norm, of the 224 px in the middle of images of 256 px.
"""

from __future__ import annotations

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from evaluator.features.extractor import Array
from evaluator.tools.networks import IMAGENET, Network, State, each, main, normalised

EDGE, RESIZED = 224, 256


def _middle(image: Image.Image) -> Image.Image:
    found: Image.Image = center_crop(resize(image, RESIZED, InterpolationMode.BICUBIC), EDGE)
    return found


def transform(images: Array) -> Tensor:
    """The middle of each image, as in Stein et al.'s code."""
    return normalised(each(images, _middle), *IMAGENET)


def adapt(state: State) -> State:
    """Without the classifier."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("head.fc.")}


NETWORK = Network(
    tool="convnext",
    architecture="convnext_large",
    options={"num_classes": 0},
    width=1536,
    transform=transform,
    adapt=adapt,
)

if __name__ == "__main__":
    main(NETWORK)
