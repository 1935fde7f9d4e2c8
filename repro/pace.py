"""How long the runs of a suite take on this device, and how long there is."""

import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from repro.environment import capture_machine
from repro.ranks import from_environment
from repro.runner import Run
from repro.train.device import choose_device

FILE = "suite_seconds.jsonl"  # in the results folder's raw/


@dataclass(frozen=True)
class Clock:
    """When all must be done, on `time.monotonic`'s clock."""

    deadline: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()


@dataclass(frozen=True)
class Timings:
    """How long runs took, start and end included: a file to which every process of a suite adds a line a run.

    What a run would take, by its first steps, counts for the process that saw them only: another call looks again.
    """

    path: Path
    device: str

    def add(self, run: Run, seconds: float, guess: bool = False) -> None:
        """Appends what a whole run took, or would have."""
        config = run.config
        same = {"device": self.device, "setup": config.setup, "config_hash": run.config_hash}
        line = same | {"seconds": seconds, "epochs": config.train.epochs, "guess_of": os.getpid() if guess else None}
        with suppress(OSError), self.path.open("a", encoding="utf-8") as file:  # no result depends on it
            file.write(json.dumps(line) + "\n")

    def estimate(self, run: Run) -> float | None:
        """Seconds that a whole run takes: as its latest seed did, else at the pace of the setup's other runs."""
        same = (self.device, run.config.setup)
        lines = [line for line in self._read() if (line["device"], line["setup"]) == same]
        latest = {line["config_hash"]: line for line in lines if line["guess_of"] in (None, os.getpid())}
        if run.config_hash in latest:
            return float(latest[run.config_hash]["seconds"])
        paces = [line["seconds"] / line["epochs"] for line in latest.values()]
        return statistics.median(paces) * run.config.train.epochs if paces else None

    def _read(self) -> Iterator[dict[str, Any]]:
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        for line in text.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue  # a kill cut it off


def timings_of(run: Run) -> Timings:
    """Those of the device that a run computes on."""
    return Timings(Path(run.config.results_dir) / "raw" / FILE, _device(run.config.train.device))


@cache
def _device(name: str) -> str:
    return capture_machine(str(choose_device(name, from_environment()))).device


def span(seconds: float) -> str:
    """In words."""
    return f"about {seconds / 3600:.1f} hours" if seconds >= 5400 else f"about {max(1, round(seconds / 60))} minutes"
