"""Memory of a run: its peak, the GPU's or this process's; and what a CPU's steps free stays for the next."""

import ctypes
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from repro.threads import limits

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def keep_freed(device: torch.device) -> None:
    """Keeps what a step frees with the process, for the next one; for a CPU and GNU's C library, else nothing.

    By default hundreds of MiB would go back to the system each step, and come anew from it page by page.
    """
    if device.type == "cpu":
        _glibc("mallopt", _MMAP_MAX, 0)
        _glibc("mallopt", _TRIM_THRESHOLD, -1)


def give_back() -> None:
    """Returns to the system what `keep_freed` has kept."""
    _glibc("malloc_trim", 0)


def reset_peak(device: torch.device) -> None:
    """Starts measuring anew, so that one run of a sweep does not inherit the peak of the last."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    give_back()
    try:
        _CLEAR.write_text("5")  # Linux: resets the high-water mark, proc(5)
    except OSError:
        return


def peak_mib(device: torch.device) -> float:
    """MiB: allocated by torch on a GPU; on a CPU the resident set of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATUS.exists():
        mark = next((line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")), None)
        if mark:
            return int(mark.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def size_of(device: torch.device) -> int:
    """Bytes of memory in all: the GPU's, or the machine's; less where a container or a batch system allows less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *(int(limit) for limit in limits("memory.max") if limit != "max")])


def _glibc(function: str, *numbers: int) -> None:
    """Calls a function that GNU's C library alone has; elsewhere nothing."""
    with suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), function)(*numbers)
