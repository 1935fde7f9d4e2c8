import os
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
