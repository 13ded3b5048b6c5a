"""Train the digit classifier: `python -m evaluator.embedded.train_classifier IMAGES OUT.safetensors`.

IMAGES is a folder of prepared images with `dataset.json`. `freeze_classifier` then writes the graph.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from evaluator.embedded.network import DigitClassifier
from sra.common.program import program

STEPS, BATCH, PEAK_RATE = 1500, 64, 3e-3


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) float images in [0, 255] and (N,) classes."""
    listed = json.loads((folder / "dataset.json").read_text())["labels"]
    pixels = np.stack([np.asarray(Image.open(folder / name)) for name, _ in listed])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), torch.tensor([label for _, label in listed])


def augment(x: Tensor) -> Tensor:
    """Shifts of up to two pixels, one for the batch."""
    dx, dy = (int(v) for v in torch.randint(-2, 3, (2,)))
    return torch.roll(x, (dy, dx), (2, 3))


def train(x: Tensor, y: Tensor, held_out: int) -> tuple[DigitClassifier, float]:
    """A classifier, and its accuracy on the last `held_out` of a random order."""
    order = torch.randperm(len(x))
    seen, unseen = order[: len(x) - held_out], order[len(x) - held_out :]
    network = DigitClassifier()
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
    for _ in range(STEPS):
        index = seen[torch.randint(len(seen), (BATCH,))]
        features, _ = network(augment(x[index]))
        loss = F.cross_entropy(network.logits(features), y[index], label_smoothing=0.05)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        right = network.logits(network(x[unseen])[0]).argmax(1) == y[unseen]
    return network, float(right.float().mean())


def main(arguments: list[str]) -> None:
    """Train on most images, print held-out accuracy, save."""
    torch.manual_seed(0)
    x, y = read(Path(arguments[0]))
    network, accuracy = train(x, y, held_out=len(x) // 5)
    print(f"held-out accuracy {accuracy:.4f}, {sum(p.numel() for p in network.parameters())} parameters")
    save_file(network.state_dict(), arguments[1])


if __name__ == "__main__":
    with program():
        main(sys.argv[1:])
