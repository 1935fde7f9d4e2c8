"""Rates measured in turn: a b, b a, a b, ... so that a drift of the machine meets every candidate alike.

What is compared is the ratio within a round, see `repro.speed.targets.judge`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

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


def rate(
    function: Callable[[], object], work: float, device: torch.device, least: float = LEAST_SECONDS
) -> Callable[[], float]:
    """A measure of units of work a second; a call of `function` does `work` of them. Warms up at once."""
    for _ in range(WARM_UP):
        function()
    calls = max(1, math.ceil(least / max(seconds(function, 1, device), 1e-6)))
    return lambda: calls * work / seconds(function, calls, device)
