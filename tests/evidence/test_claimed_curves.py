import math
from dataclasses import replace
from pathlib import Path

import pytest

from repro.evidence import claimed_curves
from repro.evidence.claims import Check, load
from repro.report.claims_page import evidence, text
from repro.report.claims_page import verdict as told
from tests.report.arms import Curve, arm, compared, curve, of_net, with_train

C = load()
GUESSING = math.log(10)  # as many classes as the synthetic runs have


def test_overfitting_is_the_gap_between_the_errors_of_the_centre_crop(tmp_path: Path) -> None:
    """The synthetic centre error is that of ten crops and 2."""
    claim = replace(C["C12"], ablations=["no_dropout"])
    plain = with_train(arm("baseline", [25.0, 26.0, 24.0]), [20.0, 20.0, 20.0])
    worse = with_train(arm("no_dropout", [25.0, 26.0, 24.0]), [10.0, 9.0, 8.0])
    (found,) = claimed_curves.overfitting(claim, compared(tmp_path, *plain, *worse))
    assert text(found).startswith("`no_dropout`, validation less training error: +11.00 [+8.52, +13.48] points, n=3")
    assert text(found).endswith("(validation error +0.00 [+0.00, +0.00])")
    assert told(found) == "holds"
    assert evidence(found) == (
        "[baseline](../runs/imagenette_small/paper/baseline), [no_dropout](../runs/imagenette_small/paper/no_dropout)"
    )


@pytest.mark.parametrize(
    ("training_errors", "verdict"),
    [
        ([14.0, 14.5, 15.0], "holds"),
        ([8.0, 8.5, 9.0], "does not hold"),
        ([8.0, 10.0, 12.0], "not distinguishable, n=3"),
        ([14.0], "not distinguishable, n=1"),
    ],
)
def test_training_error(training_errors: list[float], verdict: str, tmp_path: Path) -> None:
    changed = with_train(arm("no_lrn", [25.0] * len(training_errors)), training_errors, loss=0.5)
    parts = compared(tmp_path, *arm("baseline", [25.0] * 3), *changed)
    (found,) = claimed_curves.training_error(replace(C["C15"], ablations=["no_lrn"]), parts)
    assert told(found) == verdict
    assert "(loss in nats +0.20" in text(found)
    assert ("missing here" in text(found)) == (len(training_errors) < 3)


def test_early_loss_is_the_mean_over_the_first_tenth(tmp_path: Path) -> None:
    fast = [curve("train_loss", [1.5, 1.0, *[0.5] * 18]) for _ in range(2)]
    slow = [curve("train_loss", [2.3, 2.0 + seed / 10, *[0.5] * 18]) for seed in range(2)]
    runs = *arm("baseline", [25.0] * 2), *arm("no_lrn", [25.0] * 2)
    parts = compared(tmp_path, *runs, curves={"baseline": fast, "no_lrn": slow})
    (found,) = claimed_curves.early_loss(replace(C["C16"], ablations=["no_lrn"]), parts)
    assert "training loss in the first tenth of the run: +0.93 [" in text(found)
    assert told(found) == "holds"


def halved_after(*epochs: float) -> list[Curve]:
    """Curves whose validation loss falls by the same amount each epoch and is half that of guessing after these."""
    return [curve("val_loss", [GUESSING * (1 - 0.5 * epoch / count) for epoch in range(1, 11)]) for count in epochs]


def converged(tmp_path: Path, with_dropout: list[float], without: list[float]) -> str:
    runs = *arm("baseline", [25.0] * len(with_dropout)), *arm("no_dropout", [25.0] * len(without))
    curves = {"baseline": halved_after(*with_dropout), "no_dropout": halved_after(*without)}
    (found,) = claimed_curves.epochs_to_converge(C["C14"], compared(tmp_path, *runs, curves=curves))
    measure = "epochs to half the loss of guessing, with dropout over without"
    assert text(found).startswith(f"`no_dropout`, {measure}: ")
    return f"{told(found)}: {text(found).partition(': ')[2]}"


def test_iterations_to_converge_twice_as_many(tmp_path: Path) -> None:
    words = converged(tmp_path, [6.3, 8.0, 7.4], [3.0, 4.0, 4.0])
    assert words.startswith("holds: 1.98 [1.69, 2.32] times, n=3")


def test_iterations_to_converge_more_but_not_twice_as_many(tmp_path: Path) -> None:
    assert converged(tmp_path, [6.0, 6.1, 6.2], [5.0, 5.0, 5.0]).startswith("holds in direction: 1.22 [")


def test_iterations_to_converge_fewer(tmp_path: Path) -> None:
    assert converged(tmp_path, [3.0, 3.1, 3.2], [6.0, 6.0, 6.0]).startswith("does not hold: 0.52 [")


def test_a_run_that_never_converges_is_told(tmp_path: Path) -> None:
    words = converged(tmp_path, [4.0, 30.0], [2.0, 2.0])
    assert words.startswith("not distinguishable, n=1: 2.00 times, n=1; 1 of 2 runs with dropout")
    words = converged(tmp_path / "none", [30.0], [2.0])
    assert words.startswith("not distinguishable, n=0: no pair of runs that both get there; 1 of 1 runs with dropout")


def test_epochs_until_a_level() -> None:
    rows = [{"loss": 1.5}, {"loss": 1.6}, {"loss": 1.2}]
    assert claimed_curves.epochs_until(rows, "loss", 1.75, start=2.0) == 0.5
    assert claimed_curves.epochs_until(rows, "loss", 1.5, start=2.0) == 1.0
    assert claimed_curves.epochs_until(rows, "loss", 1.4, start=2.0) == pytest.approx(2.5)
    assert claimed_curves.epochs_until(rows, "loss", 1.0, start=2.0) is None


def test_tanh_at_the_rate_of_the_relu_net_gives_no_verdict(tmp_path: Path) -> None:
    tanh = arm("tanh", [25.0], difference={"model.activation": ["relu", "tanh"]})
    runs = of_net("cifar_local", *arm("baseline", [25.0]), *tanh)
    curves = {
        "baseline": [curve("train_top1", [50.0, 30.0, 20.0])],
        "tanh": [curve("train_top1", [70.0, 60.0, 50.0])],
    }
    parts = compared(tmp_path, *runs, curves=curves)
    (found,) = claimed_curves.epochs_to_training_error(C["C11"], parts)
    assert "ReLU 1 of 1 runs, after 2.50 epochs; tanh 0 of 1 runs; no verdict without a search" in text(found)
    assert told(found) == "not run here"


@pytest.mark.parametrize("check", claimed_curves.CHECKS.values(), ids=claimed_curves.CHECKS.keys())
def test_without_runs_of_the_ablation_nothing_is_found(check: Check, tmp_path: Path) -> None:
    parts = compared(tmp_path, *arm("baseline", [25.0]))
    claims = [claim for claim in C.values() if check.__name__ in claim.checks]
    assert claims
    assert [check(claim, parts) for claim in claims] == [[]] * len(claims)


@pytest.mark.parametrize("name", ["overfitting", "training_error", "early_loss", "epochs_to_converge"])
def test_runs_that_all_diverged_or_lack_a_baseline_are_told(name: str, tmp_path: Path) -> None:
    claim = replace(C["C14"], ablations=["no_dropout"])
    diverged = compared(tmp_path, *arm("baseline", [25.0]), *arm("no_dropout", [None]))
    (found,) = claimed_curves.CHECKS[name](claim, diverged)
    assert told(found) == "not distinguishable, n=0"
    assert "no pair" in text(found)
    assert text(found).endswith("1 of 1 runs diverged (seed 0), not in the mean")
    (found,) = claimed_curves.CHECKS[name](claim, compared(tmp_path / "alone", *arm("no_dropout", [25.0])))
    assert told(found) == "not distinguishable, n=0"
    assert text(found).endswith("seed 0 missing in the baseline")
