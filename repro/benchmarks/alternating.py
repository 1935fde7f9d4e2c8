"""Rates measured in turn: a b, b a, a b, ... so that a drift of the machine meets every candidate alike.

What is compared is the ratio within a round, see `repro.benchmarks.targets.judge`. A GPU that nobody shares hardly
drifts, but its memory is small: there one candidate follows the other, and each finds all of it free.
"""

import gc
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import torch

from repro.benchmarks.cells import tell
from repro.benchmarks.own_process import in_one_line
from repro.errors import RunFailure
from repro.profiling.timing import WARM_UP, seconds

Rounds = dict[str, list[float]]
"""Candidate -> its value in each round: a rate (units of work a second) or a cost."""
LEAST_SECONDS = 0.2
"""One value is taken over at least so long."""


Measure = Callable[[], float]
Reasons = dict[str, str]
"""Candidate -> why it was not measured."""


@dataclass(frozen=True)
class Measured:
    """The findings of a part of the benchmark: its rounds, what they were measured on, and a table where it makes one.

    `left_out` are candidates that this machine is not for, `failed` those that it should have run.
    """

    rounds: Rounds
    note: str
    table: list[dict[str, Any]] = field(default_factory=list)
    left_out: Reasons = field(default_factory=dict)
    failed: Reasons = field(default_factory=dict)


def in_turn(measures: Mapping[str, Measure], rounds: int, until: float = math.inf) -> Rounds:
    """The value of each measure in each round; the order turns round every other time.

    Begins no round when `time.perf_counter()` is past `until`, but makes one.
    """
    values: Rounds = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            values[name].append(measures[name]())
        if time.perf_counter() > until:
            break
    return values


def one_after_the_other(makers: Mapping[str, Callable[[], Measure]], rounds: int, failed: Reasons) -> Rounds:
    """So many rates of each candidate on a GPU, told as they come; its memory is free again before the next is made.

    A candidate that fails is told and entered in `failed`, and the others are measured.
    """
    values: Rounds = {}
    for name, make in makers.items():
        try:
            free_memory()
            values[name] = _values(make, rounds)
            tell(name, f"{median(values[name]):,.0f} images/s")
        except Exception as error:  # whatever a candidate dies of, the others shall be measured
            failed[name] = in_one_line(error)
            tell(name, f"failed: {failed[name]}")
    return values


def _values(make: Callable[[], Measure], rounds: int) -> list[float]:
    measure = make()
    return [measure() for _ in range(rounds)]


def free_memory() -> None:
    """Gives a GPU's memory that nothing holds any more back to the device, cycles of references included."""
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def apart(make: Callable[..., Measure], *arguments: Any) -> Iterator[Measure]:
    """The measure `make(*arguments)` in a process of its own, which waits while others are measured.

    So each candidate has memory and switches as its user would. RunFailure where the process ends too early.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, arguments), daemon=True)
    process.start()
    there.close()

    def answer() -> float:
        try:
            return float(here.recv())
        except EOFError:
            raise RunFailure("a candidate ended before it was measured; is there too little memory?") from None

    def measure() -> float:
        with suppress(BrokenPipeError):  # `answer` tells
            here.send(None)
        return answer()

    try:
        answer()
        yield measure
    finally:
        here.close()
        process.join()


def _serve(there: Connection, make: Callable[..., Measure], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent this
    measure = make(*arguments)
    with suppress(EOFError, BrokenPipeError):  # the parent has ended
        there.send(0.0)
        while True:
            there.recv()
            there.send(measure())


def rate(function: Callable[[], object], work: float, device: torch.device, least: float = LEAST_SECONDS) -> Measure:
    """A measure of units of work a second; a call of `function` does `work` of them.

    Warms up at once, and by one call before each value of several calls: the others have had the caches in between.
    """
    for _ in range(WARM_UP):
        function()
    calls = max(1, math.ceil(least / max(seconds(function, 1, device), 1e-6)))

    def measure() -> float:
        if calls > 1:  # one long call fills them itself
            function()
        return calls * work / seconds(function, calls, device)

    return measure
