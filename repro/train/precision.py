"""Arithmetic of a forward pass: fp32, tf32 or bf16; weights and updates are fp32 in all three.

bf16 pays only where the hardware has it. Elsewhere PyTorch computes it all the same, many times slower than fp32, so
`auto` stands for what the device or processor has.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F

from repro.config import Config, Precision

_AMPERE = (8, 0)
"""The first CUDA compute capability with bf16, and with TF32 (CUDA C++ Programming Guide, "Compute Capabilities")."""
_MEASURED = (4, 64, 16, 16)  # (N, C, H, W): a tenth of a second even where bf16 is emulated
_ROUNDS = 3


def arithmetic(device: torch.device, precision: Precision) -> torch.autocast:
    """Context of a forward pass on a device. bf16 is PyTorch's autocast."""
    bf16 = resolve(precision, device) is Precision.bf16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def set_precision(precision: Precision, benchmark: bool = False) -> None:
    """Sets the process-wide switches, so that one run of a sweep leaves nothing to the next.

    cuDNN takes algorithms that give the same sum each time; `benchmark` lets it try which of these is the fastest.
    """
    tf32 = precision is Precision.tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32  # the newer switches of each operator make torch.export fail (2.15)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = benchmark


def resolve(precision: Precision, device: torch.device) -> Precision:
    """Resolves a precision on a device: `auto` is bf16 where the hardware has it, else fp32.

    It is never tf32, for GPUs with TF32 have bf16 too.
    """
    if precision is not Precision.auto:
        return precision
    return Precision.bf16 if has_bf16(device) else Precision.fp32


def resolved(config: Config, device: torch.device, warn: Callable[[str], object]) -> Config:
    """The configuration with what its precision means on the device; warns where bf16 was asked for and is emulated."""
    precision = resolve(config.train.precision, device)
    if precision is Precision.bf16 and not has_bf16(device):
        warn(
            f"train.precision=bf16: this {'GPU' if device.type == 'cuda' else 'processor'} has no bf16 and emulates it,"
            f" {bf16_slowdown(device):.0f} times slower than fp32 in a small convolution: leave train.precision out"
        )
    return replace(config, train=replace(config.train, precision=precision))


@cache
def has_bf16(device: torch.device) -> bool:
    """Tells whether the hardware multiplies in bf16: a GPU from Ampere on, a processor with AMX or AVX512-BF16.

    oneDNN makes the products of a CPU, and has the last word: `ONEDNN_MAX_CPU_ISA` forbids it newer instructions.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@cache
def bf16_slowdown(device: torch.device) -> float:
    """Measures now how many times longer a small convolution takes in bf16 than in fp32, forward and backward."""
    times = {dtype: _convolution(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    return times[torch.bfloat16] / times[torch.float32]


def _convolution(device: torch.device, dtype: torch.dtype) -> float:
    """Seconds of a 3x3 convolution with as many maps out as in, and of its gradients."""
    maps = _MEASURED[1]
    x, weight = (torch.ones(shape, dtype=dtype, device=device) for shape in (_MEASURED, (maps, maps, 3, 3)))
    x, weight = (t.contiguous(memory_format=torch.channels_last).requires_grad_() for t in (x, weight))

    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        out = F.conv2d(x, weight, padding=1)
        gradient, _ = torch.autograd.grad(out, (x, weight), torch.ones_like(out))
        gradient[0, 0, 0, 0].item()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times)  # the first one chooses algorithms and takes memory
