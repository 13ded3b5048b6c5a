"""Sizes that follow from a network's settings: parameters, multiply-accumulates, tokens, evaluations. Torch-free."""

from __future__ import annotations

from sra.config import CodecConfig, ModelConfig, SampleConfig

SINUSOIDS = 256
"""Inputs of the timestep's MLP."""


def tokens(model: ModelConfig, codec: CodecConfig) -> int:
    """Patches of one latent."""
    return (model.resolution // codec.factor // model.patch) ** 2


def _outputs(model: ModelConfig, codec: CodecConfig) -> int:
    """Channels that the network predicts: only SiT in the convention `sra` predicts no second half."""
    single = model.family == "sit" and model.convention == "sra"
    return codec.channels * (1 if single else 2)


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
    outputs = area * _outputs(model, codec)
    final = 2 * d * d + 2 * d + (d + 1) * outputs
    embeddings = d * (area * codec.channels + 1) + d * (SINUSOIDS + 1) + d * (d + 1) + d * (model.classes + 1)
    return depth * block + final + embeddings + (4 * d * d + 3 * d if head else 0)


def macs(model: ModelConfig, codec: CodecConfig) -> int:
    """Multiply-accumulates of one forward pass for one image, attention and adaLN included.

    Per block and token 12 D^2 in the linears and 2 T D in attention, per block 6 D^2 in adaLN.
    """
    d, depth, t = model.dimensions.width, model.dimensions.depth, tokens(model, codec)
    area = model.patch**2
    block = 12 * d * d * t + 2 * d * t * t + 6 * d * d
    ends = t * d * area * (codec.channels + _outputs(model, codec))
    return depth * block + ends + d * (SINUSOIDS + d) + 2 * d * d


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
