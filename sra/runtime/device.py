"""Precision and attention kernels of a device, shared by training, sampling, parity and perf."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F

from sra.config import ModelConfig

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


def set_tf32(precision: str) -> None:
    """Allow or forbid TF32 in float32 matrix products and convolutions of this process.

    Torch's own default is exact products and TF32 convolutions. Beside fp16 and bf16, TF32 loses nothing.

    Args:
        precision: fp32, tf32, fp16 or bf16; only fp32 forbids TF32.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def facts_of(device: torch.device, precision: str) -> dict[str, str]:
    """Device, and in which precision it computes what `precision` asks for.

    TF32 exists on NVIDIA GPUs of compute capability 8.0 and later; elsewhere, float32 products are exact.
    """
    gpu = device.type == "cuda"
    if precision == "tf32" and not (gpu and torch.cuda.get_device_capability(device) >= (8, 0)):
        precision = "fp32"
    name = torch.cuda.get_device_name(device) if gpu else "CPU"
    return {"device": device.type, "device_name": name, "precision": precision}


def record_of(device: torch.device, precision: str, model: ModelConfig) -> dict[str, str]:
    """What a job's record says of its device, precision and attention kernel; after `use_attention`."""
    size = model.dimensions
    kernel = attention_kernel(device, precision, size.width // size.heads)
    return {**facts_of(device, precision), "attention_kernel": kernel}


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """Context for a network's forward pass: half precision for fp16 and bf16, no change for fp32 and tf32.

    Args:
        precision: fp32, tf32, fp16 or bf16.
        device: torch device type, `cuda` or `cpu`.
    """
    dtype = HALF.get(precision)
    return torch.autocast(device, dtype=dtype, enabled=dtype is not None)


def use_attention(kernel: str) -> None:
    """Let attention of this process run in one kernel only: the switch `attention`.

    The others that are slower stay allowed for the number formats that this one cannot take (float32 in flash and
    cuDNN). `torch` changes nothing.
    """
    if kernel == "torch":
        return
    torch.backends.cuda.enable_cudnn_sdp(kernel == "cudnn")
    torch.backends.cuda.enable_flash_sdp(kernel == "flash")
    torch.backends.cuda.enable_mem_efficient_sdp(kernel != "math")


def attention_kernel(device: torch.device, precision: str, head: int = 72) -> str:
    """Name of the kernel that attention runs in here: cudnn, flash, flashforcpu, efficient or math.

    Args:
        device: where it runs.
        precision: fp32, tf32, fp16 or bf16.
        head: width of one head; by default that of the published XL networks.
    """
    dtype = HALF.get(precision, torch.float32)
    q = torch.zeros(1, 16, 256, head, dtype=dtype, device=device, requires_grad=True)
    # The choice shows in the operation that autograd records.
    node = F.scaled_dot_product_attention(q, q, q).grad_fn
    assert node is not None
    found = re.fullmatch(r"ScaledDotProduct(\w+?)(Attention)?(ForCpu)?Backward\d*", node.name())
    return "math" if found is None else f"{found[1]}{found[3] or ''}".lower()
