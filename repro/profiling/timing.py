"""The time of work on a device, until the device has done it."""

import time
from collections.abc import Callable

import torch

WARM_UP = 2
"""Calls before anything is timed: the first ones compile, choose algorithms and take memory."""


def seconds(function: Callable[[], object], calls: int, device: torch.device) -> float:
    """Time of so many calls, until the device has done them."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    for _ in range(calls):
        function()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000
