import math
import os
import time
import weakref
from collections.abc import Callable
from functools import partial

import pytest
import torch

from repro.benchmarks import alternating
from repro.benchmarks.alternating import apart, in_turn, one_after_the_other, rate
from repro.errors import RunFailure

CPU = torch.device("cpu")


def test_candidates_take_turns_and_the_order_turns_round() -> None:
    calls: list[str] = []

    def measure(name: str) -> Callable[[], float]:
        def value() -> float:
            calls.append(name)
            return float(len(calls))

        return value

    rounds = in_turn({"a": measure("a"), "b": measure("b")}, 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert rounds == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


def test_no_round_begins_when_time_is_up() -> None:
    assert in_turn({"a": lambda: 1.0, "b": lambda: 2.0}, 3, until=time.perf_counter()) == {"a": [1.0], "b": [2.0]}


def test_one_candidate_is_gone_before_the_next_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    class Net:
        def rate(self) -> float:
            return 1234.5

    alive: list[weakref.ref[Net]] = []

    def make() -> Callable[[], float]:
        assert all(reference() is None for reference in alive)
        net = Net()
        net.itself = net  # type: ignore[attr-defined]  # a cycle, as an optimizer with hooks is one
        alive.append(weakref.ref(net))
        return net.rate

    def broken() -> Callable[[], float]:
        make()
        raise RuntimeError("CUDA error: misaligned address\nfor debugging")

    failed: dict[str, str] = {}
    rounds = one_after_the_other({"a": make, "b": broken, "c": make}, 2, failed)
    assert rounds == {"a": [1234.5, 1234.5], "c": [1234.5, 1234.5]}
    assert failed["b"].startswith("CUDA error: misaligned address (test_alternating.py:")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["  a: 1,234 images/s", f"  b: failed: {failed['b']}", "  c: 1,234 images/s"]


@pytest.mark.parametrize(("least", "timed"), [(1.0, 1 + 4), (0.2, 1)])
def test_a_rate_counts_work_and_leaves_the_first_calls_out(
    least: float, timed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call takes a quarter second: four make the value after one more, or one alone does."""
    clock, calls = [0.0], [0]

    def work() -> None:
        calls[0] += 1
        clock[0] += 10.0 if calls[0] <= alternating.WARM_UP else 0.25

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    measure = rate(work, 8, CPU, least)
    assert calls[0] == alternating.WARM_UP + 1
    assert measure() == pytest.approx(8 / 0.25)
    assert calls[0] == alternating.WARM_UP + 1 + timed


@pytest.mark.cuda
def test_a_rate_on_a_gpu_waits_for_the_device() -> None:
    x = torch.randn(4096, 4096, device="cuda")
    per_second = rate(lambda: x @ x, 2 * 4096**3, torch.device("cuda"))()
    assert per_second < 2e15  # launching alone would look faster than any device


def test_a_candidate_apart_is_measured_as_often_as_asked() -> None:
    with apart(partial, math.hypot, 3.0, 4.0) as measure:
        assert [measure(), measure()] == [5.0, 5.0]


def test_a_candidate_that_dies_is_told_of() -> None:
    with (
        apart(partial, os._exit, 3) as measure,
        pytest.raises(RunFailure, match="ended before it was measured"),
    ):
        measure()


def test_a_candidate_that_cannot_start_is_told_of() -> None:
    with (
        pytest.raises(RunFailure, match="ended before it was measured"),
        apart(os._exit, 3),
    ):
        pass
