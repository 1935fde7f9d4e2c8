"""The time that runs take on this device, by those made before and by a run's own steps, and the time there is."""

import json
import math
import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.distributed import from_environment
from repro.environment import device_name

if TYPE_CHECKING:
    from repro.request import Run

CALL = uuid.uuid4().hex  # a process number repeats, in containers at every start
"""This call, whose guesses count for itself alone."""
FILE = "suite_seconds.jsonl"  # in the results folder's raw/
KEYS = {"device", "setup", "config_hash", "seconds", "epochs", "guess_of"}
"""Of each line of the file."""
LOOKS_SKIPPED = 2
"""Looks at a run's first steps that tell nothing about the others: kernels are compiled and chosen in them."""
SECONDS_WATCHED = 5.0
"""Steps of fewer seconds tell nothing either: a neighbour may just have begun."""
EPOCHS_OF_END = 2
"""Ten crops of all validation images and the centres of the training images take about as long as so many epochs."""


@dataclass(frozen=True)
class Clock:
    """The moment at which all must be done, on `time.monotonic`'s clock."""

    deadline: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()


class Pace:
    """The speed of a run's steps, by looks at how many are done."""

    def __init__(self) -> None:
        self._looks, self._first = 0, (0.0, 0)

    def look(self, done: int) -> float | None:
        """Seconds that a step takes, the validations among them included; None while too few have been seen."""
        now = time.monotonic()
        self._looks += 1
        if self._looks <= LOOKS_SKIPPED:
            self._first = (now, done)
            return None
        seconds = now - self._first[0]
        return None if seconds < SECONDS_WATCHED else seconds / (done - self._first[1])


@dataclass(frozen=True)
class Timings:
    """The seconds that runs took, start and end included: a file to which every process adds a line a run.

    What a run would take, by its first steps, counts for the process that saw them only: another call looks again.
    """

    path: Path
    device: str

    def add(self, run: "Run", seconds: float, guess: bool = False, epochs: int | None = None) -> None:
        """Appends what a whole run took, or would have; `epochs` where it ended before its last."""
        config = run.config
        same = {"device": self.device, "setup": config.setup, "config_hash": run.config_hash}
        epochs = epochs or config.train.epochs
        line = same | {"seconds": seconds, "epochs": epochs, "guess_of": CALL if guess else None}
        with suppress(OSError), self.path.open("a", encoding="utf-8") as file:  # no result depends on it
            file.write(json.dumps(line) + "\n")

    def estimate(self, run: "Run") -> float | None:
        """Seconds that a whole run takes: as its latest seed did, else at the pace of the setup's other runs."""
        same = (self.device, run.config.setup)
        lines = [line for line in self._read() if (line["device"], line["setup"]) == same]
        latest = {line["config_hash"]: line for line in lines if line["guess_of"] in (None, CALL)}
        if run.config_hash in latest:
            return float(latest[run.config_hash]["seconds"])
        paces = [line["seconds"] / line["epochs"] for line in latest.values()]
        return statistics.median(paces) * run.config.train.epochs if paces else None

    def _read(self) -> Iterator[dict[str, Any]]:
        with suppress(OSError):
            state = self.path.stat()
            yield from _lines(self.path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)
def _lines(path: Path, changed: int, size: int) -> list[dict[str, Any]]:
    """Reads the lines of a file in that state once; a sweep asks for each of its runs."""
    lines: list[dict[str, Any]] = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):  # a kill cut it off
                lines.append(json.loads(line))
    return [line for line in lines if _is_whole(line)]


def _is_whole(line: object) -> bool:
    """Tells whether a line of the file is as `Timings.add` writes it."""
    if not isinstance(line, dict) or not line.keys() >= KEYS:
        return False
    numbers = line["seconds"], line["epochs"]
    return isinstance(line["config_hash"], str) and all(
        isinstance(number, int | float) and 0 < number < math.inf for number in numbers
    )


def timings_of(run: "Run") -> Timings:
    """Returns the timings of the device that a run computes on."""
    return Timings(Path(run.config.results_dir) / "raw" / FILE, _device(run.config.train.device))


@cache
def _device(name: str) -> str:
    from repro.train.device import choose_device

    return device_name(str(choose_device(name, from_environment())))


def seconds_left(run: "Run") -> float | None:
    """Seconds that a run takes from its last checkpoint on, by what was measured here; None where nothing was."""
    from repro.train import checkpoint

    whole = timings_of(run).estimate(run)
    return None if whole is None else whole * (1 - checkpoint.epochs(run.raw) / run.config.train.epochs)


def span(seconds: float) -> str:
    """Says a number of seconds in words."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} second{'' if round(seconds) <= 1 else 's'}"
    return f"about {seconds / 3600:.1f} hours" if seconds >= 5400 else f"about {round(seconds / 60)} minutes"
