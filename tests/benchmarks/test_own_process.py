import atexit
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from repro.benchmarks import own_process
from repro.benchmarks.own_process import within
from repro.errors import RunFailure
from repro.experiments.compose import compose


def take_leave(trace: Path) -> float:
    """Answers, and then takes its time; leaves a trace where it is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: trace.write_text("terminated"))
    atexit.register(time.sleep, 1)
    return 5.0


def test_the_answer_of_another_process_comes_back_and_it_ends_by_itself(tmp_path: Path) -> None:
    assert within(60, take_leave, tmp_path / "trace") == 5.0
    assert not (tmp_path / "trace").exists()
    assert within(60, os.getpid) != os.getpid()


def test_an_error_there_is_one_line_here() -> None:
    with pytest.raises(RunFailure, match=r"^invalid literal for int\(\) with base 10: 'four' \(own_process\.py:\d+\)$"):
        within(60, int, "four")
    with pytest.raises(RunFailure, match=r"^unknown ablation=no_lnr: did you mean no_lrn\?"):
        within(60, compose, ["ablation=no_lnr"])


def test_a_process_that_dies_or_takes_too_long_is_told_of() -> None:
    with pytest.raises(RunFailure, match=r"^its process died \(exit code 3\)$"):
        within(60, os._exit, 3)
    start = time.monotonic()
    with pytest.raises(RunFailure, match=r"^it was stopped after 1 s$"):
        within(1, time.sleep, 60)
    assert time.monotonic() - start < 30
    with pytest.raises(RunFailure, match=r"^no time was left$"):
        within(-1, time.sleep, 60)


def linger(trace: Path) -> None:
    """Works for long, and cleans up behind itself."""
    try:
        trace.write_text("begun")
        time.sleep(60)
    finally:
        trace.write_text("ended")


def test_a_process_that_is_stopped_cleans_up(tmp_path: Path) -> None:
    context, trace = multiprocessing.get_context("spawn"), tmp_path / "trace"
    _, there = context.Pipe(duplex=False)
    process = context.Process(target=own_process._answer, args=(there, linger, (trace,)))
    process.start()
    while not trace.exists() or trace.read_text() != "begun":
        assert process.is_alive()
        time.sleep(0.05)
    own_process._end(process)
    assert trace.read_text() == "ended"
