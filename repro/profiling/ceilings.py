"""The measured ceilings of a device: bytes of a copy and operations of a matrix product, each a second."""

from collections.abc import Callable

import torch

from repro.config import Precision
from repro.profiling.timing import WARM_UP, seconds
from repro.train.precision import set_precision

COPIED = {"cpu": 2**28, "cuda": 2**30}
"""Bytes: more than the caches hold."""
SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices."""
ROUNDS = 7


def copy_bandwidth(device: torch.device) -> float:
    """Bytes/s through memory, those read and those written."""
    source = torch.ones(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _least_seconds(lambda: target.copy_(source), device)


def matmul_rate(device: torch.device, precision: Precision) -> float:
    """FLOP/s, a multiply-add counted as two. Sets the process-wide precision."""
    set_precision(precision)
    side = SIDE[device.type]
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / _least_seconds(lambda: torch.mm(a, b, out=out), device)


def _least_seconds(function: Callable[[], object], device: torch.device) -> float:
    """Returns the least seconds of one call: a ceiling is what an undisturbed machine does."""
    for _ in range(WARM_UP):
        function()
    return min(seconds(function, 1, device) for _ in range(ROUNDS))
