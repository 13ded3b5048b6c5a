"""Sizes that follow from settings: parameters and evaluations. Torch-free; work is counted in `sra.model.flops`."""

from __future__ import annotations

from sra.config import CodecConfig, ModelConfig, SampleConfig
from sra.model.flops import SINUSOIDS


def parameters(model: ModelConfig, codec: CodecConfig, *, head: bool = False) -> int:
    """Trained parameters (the fixed positions are none).

    Args:
        model: the network.
        codec: for the latent's channels.
        head: with SRA's training head, Linear(D, 2D) and Linear(2D, D).
    """
    d, depth = model.dimensions.width, model.dimensions.depth
    area = model.patch**2
    block = 18 * d * d + 15 * d
    outputs = area * model.output_channels(codec)
    final = 2 * d * d + 2 * d + (d + 1) * outputs
    embeddings = d * (area * codec.channels + 1) + d * (SINUSOIDS + 1) + d * (d + 1) + d * (model.classes + 1)
    return depth * block + final + embeddings + (4 * d * d + 3 * d if head else 0)


def evaluations(sample: SampleConfig) -> int:
    """Network evaluations for one image; guidance doubles those of the steps that start inside its interval."""
    guided = [_is_guided(sample, t) for t in _starts(sample)]
    each = [2 if g else 1 for g in guided]
    if sample.sampler == "heun":
        # The correction of every step but the last, with its step's guidance.
        return sum(each) + sum(each[:-1])
    return sum(each)


def _starts(sample: SampleConfig) -> list[float]:
    """Times at which the steps start, from noise (1) to data."""
    n = sample.steps
    if sample.sampler == "euler-maruyama":
        return [1 - (1 - sample.last_step) * k / max(n - 1, 1) for k in range(n)]
    return [1 - k / n for k in range(n)]


def _is_guided(sample: SampleConfig, t: float) -> bool:
    low, high = sample.guidance_interval
    return sample.cfg > 1 and low <= t <= high
