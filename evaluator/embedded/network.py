"""The digit classifier in torch, for clean-fid and torch-fidelity; `digits.pb` holds the same weights."""

from __future__ import annotations

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from evaluator import embedded

SLOPE = 0.1
"""Of the leaky ReLU: with a plain one, half of the features died."""


class DigitClassifier(nn.Module):
    """Three convolutions of stride 2, a mean over the grid's cells after a linear layer of 64 features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2)
        self.conv3 = nn.Conv2d(32, embedded.FEATURES, 3, stride=2)
        self.logits = nn.Linear(embedded.FEATURES, embedded.CLASSES, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 32, 32) in [0, 255] to pooled features (N, 64) and the second convolution's output."""
        x = (x - 128) / 128
        x = F.leaky_relu(self.conv1(x), SLOPE)
        spatial = self.conv2(x)
        x = F.leaky_relu(self.conv3(F.leaky_relu(spatial, SLOPE)), SLOPE)
        return x.mean((2, 3)), spatial


def load() -> DigitClassifier:
    """The shipped classifier, in eval mode."""
    network = DigitClassifier()
    network.load_state_dict(load_file(embedded.WEIGHTS))
    return network.eval().requires_grad_(False)
