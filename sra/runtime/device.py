"""Precision and data transfer of a device, shared by training, sampling, parity and perf."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from sra.runtime.speed import Speed

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


def set_tf32(precision: str) -> None:
    """Allow or forbid TF32 in float32 matrix products and convolutions of this process.

    Torch's own default is exact products and TF32 convolutions. Beside fp16 and bf16, TF32 loses nothing.

    Args:
        precision: fp32, tf32, fp16 or bf16; only fp32 forbids TF32.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """Context for a network's forward pass: half precision for fp16 and bf16, no change for fp32 and tf32.

    Args:
        precision: fp32, tf32, fp16 or bf16.
        device: torch device type, `cuda` or `cpu`.
    """
    dtype = HALF.get(precision)
    return torch.autocast(device, dtype=dtype, enabled=dtype is not None)


def to_device(tensor: Tensor, device: torch.device, speed: Speed) -> Tensor:
    """Copy a batch to the device; from pinned memory the copy does not block the host."""
    if speed.transfer == "pinned" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
