import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.train import memory

CPU = torch.device("cpu")


def hold(mib: int) -> None:
    np.ones(mib * 2**20, np.uint8)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system keeps no mark to reset")
def test_the_peak_is_that_since_the_last_reset() -> None:
    memory.reset_peak(CPU)
    start = memory.peak_mib(CPU)
    hold(200)
    assert start + 190 < memory.peak_mib(CPU) < start + 400
    memory.reset_peak(CPU)
    assert memory.peak_mib(CPU) < start + 100


def test_without_proc_the_peak_is_that_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = memory.peak_mib(CPU)
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "none" / "clear_refs")
    memory.reset_peak(CPU)
    hold(50)
    assert known * 0.5 < memory.peak_mib(CPU) < 2**20


@pytest.mark.cuda
def test_on_a_gpu_the_peak_is_what_torch_allocated() -> None:
    device = torch.device("cuda")
    memory.reset_peak(device)
    start = memory.peak_mib(device)
    torch.empty(64 * 2**20, dtype=torch.uint8, device=device)
    assert memory.peak_mib(device) == pytest.approx(start + 64, abs=2)
    memory.reset_peak(device)
    assert memory.peak_mib(device) < start + 32


def page_faults(program: str) -> int:
    """Pages that a process of its own has taken from the system for the last of twenty tensors of 64 MiB."""
    program = f"""
import resource, torch
from repro.train import memory
{program}
for _ in range(20):  # alignment leaves gaps at first
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    return int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only GNU's C library can be told to")
def test_what_is_freed_is_kept_for_the_next() -> None:
    assert page_faults("memory.keep_freed(torch.device('cpu'))") < 1000 < page_faults("")


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.keep_freed(CPU)
