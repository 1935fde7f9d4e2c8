"""The file of how long runs took, as anything may have left it."""

import json
from pathlib import Path
from typing import Any

import pytest

from repro import pace
from repro.command import warn
from repro.experiments.compose import compose
from repro.pace import Timings
from repro.request import Run, request

LINE = {"device": "here", "setup": "embedded", "config_hash": "c0ffee", "seconds": 20.0, "epochs": 10, "guess_of": None}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Of twenty epochs."""
    words = ["setup=embedded", "train.epochs=20", "train.device=cpu", f"results_dir={tmp_path}"]
    return request(compose(words), words, ["run.py", *words], warn)


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        None,
        3,
        [LINE],
        LINE | {"seconds": "20"},
        LINE | {"seconds": float("nan")},
        LINE | {"epochs": 0},
        LINE | {"config_hash": []},
        {key: value for key, value in LINE.items() if key != "guess_of"},
    ],
)
def test_lines_that_are_no_timings_are_passed_over(damaged: Any, run: Run, tmp_path: Path) -> None:
    timings = Timings(tmp_path / pace.FILE, "here")
    lines = [LINE, damaged, '{"device": "he']
    timings.path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    assert timings.estimate(run) == 40


def test_bytes_that_are_no_text_are_passed_over(run: Run, tmp_path: Path) -> None:
    timings = Timings(tmp_path / pace.FILE, "here")
    timings.path.write_bytes(b"\xff\n" + json.dumps(LINE).encode() + b"\n\xff{")
    assert timings.estimate(run) == 40


def test_a_folder_in_its_place_tells_nothing(run: Run, tmp_path: Path) -> None:
    timings = Timings(tmp_path, "here")
    timings.add(run, 3.0)
    assert timings.estimate(run) is None
