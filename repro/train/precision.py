"""Arithmetic of a forward pass: fp32, tf32 or bf16; weights and updates are fp32 in all three."""

import torch

from repro.config import Precision


def arithmetic(device: torch.device, precision: Precision) -> torch.autocast:
    """Context of a forward pass on a device. bf16 is PyTorch's autocast."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is Precision.bf16)


def set_precision(precision: Precision, benchmark: bool = False) -> None:
    """Sets the process-wide switches, so that one run of a sweep leaves nothing to the next.

    cuDNN takes algorithms that give the same sum each time; `benchmark` lets it try which of these is the fastest.
    """
    tf32 = precision is Precision.tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32  # the newer switches of each operator make torch.export fail (2.15)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = benchmark
