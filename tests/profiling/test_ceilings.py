import pytest
import torch

from repro.config import Precision
from repro.profiling import ceilings


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "COPIED", {"cpu": 2**16})
    monkeypatch.setattr(ceilings, "SIDE", {"cpu": 64})
    monkeypatch.setattr(ceilings, "seconds", lambda function, calls, device: function() is None or 0.5)


def test_a_copy_counts_what_is_read_and_what_is_written() -> None:
    assert ceilings.copy_bandwidth(torch.device("cpu")) == 2 * 2**16 / 0.5


@pytest.mark.parametrize("precision", Precision)
def test_a_multiply_add_counts_twice(precision: Precision) -> None:
    assert ceilings.matmul_rate(torch.device("cpu"), precision) == 2 * 64**3 / 0.5


def test_an_undisturbed_call_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([3.0, 0.25, *[9.0] * 20])
    monkeypatch.setattr(ceilings, "seconds", lambda function, calls, device: next(times))
    assert ceilings.copy_bandwidth(torch.device("cpu")) == 2 * 2**16 / 0.25
