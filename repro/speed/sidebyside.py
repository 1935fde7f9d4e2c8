"""Rates measured in turn: a b, b a, a b, ... so that a drift of the machine meets every candidate alike.

What is compared is the ratio within a round, see `repro.speed.targets.judge`.
"""

import math
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch

from repro.errors import RunFailure
from repro.profiling.timing import WARM_UP, seconds

Rounds = dict[str, list[float]]
"""Candidate -> its value in each round: a rate (units of work a second) or a cost."""
LEAST_SECONDS = 0.2
"""One value is taken over at least so long."""


@dataclass(frozen=True)
class Measured:
    """What a part of the benchmark found: the rounds, what they were measured on, and a table where it makes one."""

    rounds: Rounds
    note: str
    table: list[dict[str, Any]] = field(default_factory=list)


def in_turn(measures: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """The value of each measure in each round; the order turns round every other time."""
    values: Rounds = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: -1 if number % 2 else 1]:
            values[name].append(measures[name]())
    return values


@contextmanager
def apart(make: Callable[..., Callable[[], float]], *arguments: Any) -> Iterator[Callable[[], float]]:
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


def _serve(there: Connection, make: Callable[..., Callable[[], float]], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent this
    measure = make(*arguments)
    there.send(0.0)
    with suppress(EOFError):
        while True:
            there.recv()
            there.send(measure())


def rate(
    function: Callable[[], object], work: float, device: torch.device, least: float = LEAST_SECONDS
) -> Callable[[], float]:
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
