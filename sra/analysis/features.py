"""Block outputs of a network on noisy latents, for PCA pictures and linear probes (SRA paper)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sra.analysis.options import View
from sra.model.transformer import DiffusionTransformer
from sra.model.weights import load_network
from sra.objectives.ddpm import STEPS, Diffusion
from sra.objectives.flow import interpolate
from sra.runtime.random_streams import Randoms

Array = np.ndarray[Any, Any]


@contextmanager
def tapped(network: DiffusionTransformer, blocks: tuple[int, ...]) -> Iterator[dict[int, Tensor]]:
    """Record the outputs (N, T, D) of these blocks, counted from 1, in every forward pass inside the context."""
    outputs: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            outputs[number] = output

        return hook

    handles = [network.blocks[number - 1].register_forward_hook(keep(number)) for number in blocks]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class FeatureExtractor:
    """The network of a view, with its block outputs."""

    def __init__(self, view: View, device: torch.device) -> None:
        """Load the network.

        Raises:
            DataError: not a weights file, or one of another network.
        """
        self.view, self.device = view, device
        network = load_network(view.checkpoint, view.model, view.codec, view.weights)
        self.network = network.to(device)

    @torch.no_grad()
    def outputs(self, z: Tensor, labels: Tensor, noise: Tensor, t: float) -> dict[int, Tensor]:
        """Block outputs (N, T, D) by block.

        Args:
            z: (N, C, h, w) scaled latents.
            labels: (N,) classes, or the null label.
            noise: of z's shape.
            t: noise level.
        """
        if self.view.model.family == "dit":
            network_t = torch.full((len(z),), round(t * (STEPS - 1)), device=z.device)
            x_t = Diffusion().to(z.device).corrupt(z, noise, network_t)
        else:
            x_t, _ = interpolate(self.view.model.interpolant, z, noise, torch.full((len(z),), t, device=z.device))
            network_t = torch.full((len(z),), self.view.network_time(t), device=z.device)
        with tapped(self.network, self.view.blocks) as found:
            self.network(x_t, network_t, labels)
        return found

    def noise(self, positions: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Posterior noise and diffusion noise of each position, the same for all noise levels and batch sizes."""
        randoms = Randoms(self.view.seed, positions)
        return randoms.normal("latent", shape), randoms.normal("noise", shape)


def normalised(tokens: Tensor, convention: str) -> Tensor:
    """Block outputs (T, D) as the authors' `main_pca.py` gives them to the PCA.

    Their script for SRA's networks normalises each token, that for the baseline each channel over the tokens.
    """
    if convention == "sra":
        return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
    low, high = tokens.amin(0), tokens.amax(0)
    return (tokens - low) / (high - low + 1e-6)


def pca_image(tokens: Tensor, grid: int) -> Array:
    """First three principal components of the tokens of one image, each scaled to [0, 1].

    Args:
        tokens: (T, D), row by row.
        grid: tokens along one axis.

    Returns:
        (grid, grid, 3) in [0, 1].
    """
    from sklearn.decomposition import PCA  # takes a second to import, and only this picture needs it

    with np.errstate(invalid="ignore"):  # equal tokens: the explained variance, unused here, is 0 / 0
        components = PCA(3, svd_solver="full").fit_transform(tokens.double().cpu().numpy())
    low, high = components.min(0), components.max(0)
    scaled: Array = (components - low) / np.where(high > low, high - low, 1)
    return scaled.reshape(grid, grid, 3)


def probe_accuracy(
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    classes: int,
    *,
    epochs: int,
    batch: int,
    lr: float,
    seed: int,
    device: torch.device,
) -> tuple[float, float]:
    """Top-1 accuracy of a batch norm and a linear layer, on its training features and on test features.

    Adam at `lr`, cosine to 0 over all steps. SRA paper: lr 1e-3, batch 4096, 80 epochs; its optimizer is not printed.

    Args:
        train: (N, D) training features and (N,) classes.
        test: test features and classes.
        classes: number of classes.
        epochs: passes over `train`.
        batch: samples per step, at most N.
        lr: first learning rate.
        seed: of initialisation and order.
        device: to compute on.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(train[0]), torch.from_numpy(train[1])
    batch = min(batch, len(x))
    linear = nn.Linear(x.shape[1], classes)
    nn.init.normal_(linear.weight, std=0.01, generator=generator)
    nn.init.zeros_(linear.bias)
    probe = nn.Sequential(nn.BatchNorm1d(x.shape[1], affine=False), linear).to(device)
    optimizer = torch.optim.Adam(probe.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(x) // batch))
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - batch + 1, batch):
            chosen = order[start : start + batch]
            loss: Any = F.cross_entropy(probe(x[chosen].to(device)), y[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return _accuracy(probe, train, device), _accuracy(probe, test, device)


@torch.no_grad()
def _accuracy(probe: nn.Module, data: tuple[Array, Array], device: torch.device) -> float:
    probe.eval()
    right = 0
    for start in range(0, len(data[1]), 4096):
        features = torch.from_numpy(data[0][start : start + 4096]).to(device)
        right += int((probe(features).argmax(1).cpu().numpy() == data[1][start : start + 4096]).sum())
    return right / len(data[1])
