from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro.config import Config
from repro.evidence.branches import shared_epochs
from repro.evidence.comparison import Comparison
from repro.experiments.naming import settings
from repro.report.mixed import mixed_code
from tests.report.arms import Curve, arm, compared, curve

IMAGES = 9469  # 74 steps of 128
PLAIN = settings(Config()) | {"train.epochs": 24, "schedule.drops": [0.75, 0.9]}
FREEZE = {"schedule.conv1_lower_at": [None, 0.736264], "schedule.conv1_freeze_at": [None, 0.791209]}


@pytest.mark.parametrize(
    ("before", "after", "epochs"),
    [
        ({}, {"schedule.conv1_lower_at": 0.736264, "schedule.conv1_freeze_at": 0.791209}, 17),
        ({}, {"augment.color_noise_off_at": 0.736264}, 17),
        ({"augment.color_noise_off_at": 0.5}, {"augment.color_noise_off_at": 0.75}, 12),
        ({}, {"schedule.drop_biases": False}, 18),
        ({}, {"schedule.divisor": 5.0}, 18),
        ({}, {"schedule.drops": [0.75]}, 21),
        ({}, {"schedule.drops": [0.5, 0.75, 0.9]}, 12),
        ({}, {"schedule.drops": []}, 18),
        ({}, {"augment.color_noise_off_at": 0.736264, "model.norm.k": 1.0}, None),
        ({}, {"optimizer.lr": 0.02}, None),
        ({"schedule.kind": "cosine"}, {"schedule.kind": "cosine", "schedule.drop_biases": False}, None),
        ({}, {}, None),
    ],
)
def test_a_late_event_shares_the_epochs_before_it(
    before: dict[str, Any], after: dict[str, Any], epochs: int | None
) -> None:
    assert shared_epochs({**PLAIN, **before}, {**PLAIN, **before, **after}, IMAGES) == epochs


def losses(shared: float, last: float) -> Curve:
    """Twenty epochs, of which the last four are after the event."""
    return curve("train_loss", [shared - 0.01 * epoch for epoch in range(16)] + [last] * 4)


def late(folder: Path, starts: list[float], **changed: Any) -> Comparison:
    """A baseline and two seeds of a change at epoch 14.7 of 20; `starts` are the changed runs' first losses."""
    runs = arm("freeze_conv1_late", [26.0, 25.5], difference=FREEZE, **changed)
    curves = {
        "baseline": [losses(2.0, 1.0), losses(2.1, 1.1)],
        "freeze_conv1_late": [losses(start, 0.9) for start in starts],
    }
    (part,) = compared(folder, *arm("baseline", [25.0, 24.0]), *runs, curves=curves)
    return part


def row(part: Comparison) -> list[str]:
    """The verdict of its change, and the notes."""
    return [part.effects["freeze_conv1_late"].verdict, *part.notes(part.arms[1])]


def test_branches_of_one_trajectory_say_so(tmp_path: Path) -> None:
    assert row(late(tmp_path, [2.0, 2.1])) == [
        "not distinguishable at n=2",
        "shares the first 14 of 20 epochs with the baseline (seeds 0, 1)",
    ]


def test_a_baseline_of_other_code_gives_no_verdict(tmp_path: Path) -> None:
    part = late(tmp_path, [2.0, 2.1000001], commit="fed")
    assert row(part) == [
        "no verdict: other code made the baseline",
        "must share the first 14 of 20 epochs with the baseline and does not (seed 1)",
        "mixed code (seeds 0, 1)",
    ]
    (words, _) = mixed_code(part, part.arms)
    assert "The curves show that it is so: `freeze_conv1_late` change nothing before late in the run" in words
    assert part.effects["freeze_conv1_late"].outcome is None


def test_runs_on_other_numbers_of_threads_are_not_asked_to_agree(tmp_path: Path) -> None:
    machine = replace(arm("baseline", [25.0])[0].machine, threads=1)
    assert row(late(tmp_path, [2.5, 2.6], machine=machine)) == [
        "not distinguishable at n=2",
        "not branches of one trajectory: other threads (seeds 0, 1)",
    ]


def test_a_run_that_changed_its_threads_on_its_way_is_not_asked_to_agree(tmp_path: Path) -> None:
    assert row(late(tmp_path, [2.5, 2.6], threads_before=[1])) == [
        "not distinguishable at n=2",
        "not branches of one trajectory: other threads (seeds 0, 1)",
    ]


def on_a_gpu(folder: Path, numerics: str | None) -> list[str]:
    """The row of two seeds of which the second does not agree with the baseline; host threads differ."""
    machine = replace(arm("baseline", [25.0])[0].machine, device_type="cuda", threads=9)
    other = replace(machine, threads=12)
    (part,) = compared(
        folder,
        *arm("baseline", [25.0, 24.0], machine=machine, numerics=numerics),
        *arm("freeze_conv1_late", [26.0, 25.5], difference=FREEZE, machine=other, numerics=numerics),
        curves={"baseline": [losses(2.0, 1.0)] * 2, "freeze_conv1_late": [losses(2.0, 0.9), losses(2.3, 0.9)]},
    )
    return row(part)


def test_a_gpu_without_a_fingerprint_proves_nothing(tmp_path: Path) -> None:
    shares = "shares the first 14 of 20 epochs with the baseline (seed 0)"
    assert on_a_gpu(tmp_path, None) == ["not distinguishable at n=2", shares]


def test_a_gpu_that_repeats_its_sums_must_agree(tmp_path: Path) -> None:
    must = "must share the first 14 of 20 epochs with the baseline and does not (seed 1)"
    assert on_a_gpu(tmp_path, "beef") == ["no verdict: other code made the baseline", must]
