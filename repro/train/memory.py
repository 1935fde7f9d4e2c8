"""Peak memory of a run: the GPU's, or this process's."""

import resource
import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak(device: torch.device) -> None:
    """Starts measuring anew, so that one run of a sweep does not inherit the peak of the last."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
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
