"""What `precision` means for products of float32 numbers: the same in training, sampling, parity and perf."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


def set_tf32(precision: str) -> None:
    """Let a GPU's float32 products and convolutions round their factors to TF32, or not; for the whole process.

    Torch itself starts with exact products and rounded convolutions. Beside fp16 and bf16, TF32 loses nothing.

    Args:
        precision: fp32, tf32, fp16 or bf16; only fp32 forbids it.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """Around a network's forward pass: half precision where that is meant.

    Args:
        precision: fp32, tf32, fp16 or bf16.
        device: torch's name of its kind.
    """
    dtype = HALF.get(precision)
    return torch.autocast(device, dtype=dtype, enabled=dtype is not None)
