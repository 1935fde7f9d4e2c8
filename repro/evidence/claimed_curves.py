"""Claims answered by the curves of runs and by their errors on the training images.

Each check takes a claim and the comparisons that may answer it, and gives a finding for each ablation with runs.
Differences are paired by seed and signed so that a positive one agrees with the claim.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from repro.evidence import stats
from repro.evidence.claimed_rates import as_factor
from repro.evidence.claims import Check, Claim, Finding, Quantity, Size, Verdict, find_arm, of_effect
from repro.evidence.comparison import Arm, Comparison
from repro.experiments.folder import BASELINE
from repro.record import Record

Measure = Callable[[Record], float | None]


def overfitting(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C10, C12, C14: validation error less training error, both of the centre crop of unchanged images."""
    found = []
    for part, baseline, arm in _pairs(claim, parts):
        gap = _difference(baseline.learned, arm.learned, _gap)
        error = _difference(baseline.learned, arm.learned, lambda run: run.metrics.centre.top1)
        beside = Quantity("validation error", error)
        found.append(_finding(part, arm, "validation less training error", gap, "points", beside=(beside,)))
    return found


def _gap(run: Record) -> float | None:
    validation, training = run.metrics.centre.top1, run.metrics.train.top1
    return None if validation is None or training is None else validation - training


def training_error(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C15: error on the training images after the last step."""
    found = []
    for part, baseline, arm in _pairs(claim, parts):
        error = _difference(baseline.learned, arm.learned, lambda run: run.metrics.train.top1)
        loss = _difference(baseline.learned, arm.learned, lambda run: run.metrics.train.loss)
        beside = Quantity("loss in nats", loss)
        found.append(_finding(part, arm, "training error", error, "points", beside=(beside,)))
    return found


def early_loss(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C16: mean training loss over the first tenth of the epochs, which a run that never learns has too."""
    found = []
    for part, baseline, arm in _pairs(claim, parts):
        loss = _difference(baseline.complete, arm.complete, _early)
        found.append(_finding(part, arm, "training loss in the first tenth of the run", loss, "nats"))
    return found


def _early(run: Record) -> float:
    curve = run.curve()
    rows = curve[: math.ceil(len(curve) / 10)]
    return sum(row["train_loss"] for row in rows) / len(rows)


def epochs_to_converge(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C14: how many times as many epochs dropout takes until the validation loss is half that of guessing.

    The training loss of a curve will not do: with dropout it is the loss of the thinned nets. Factors are compared as
    logarithms to the base 2.
    """
    size = (math.log2(claim.values["ratio"]),) * 2
    measure = "epochs to half the loss of guessing, with dropout over without"
    found = []
    for part, baseline, arm in _pairs(claim, parts):
        doublings = _difference(arm.complete, baseline.complete, _doublings)
        never = []
        for words, same in (("with dropout", baseline), ("without", arm)):
            if seeds := [seed for seed, run in same.complete.items() if _doublings(run) is None]:
                never.append(f"{len(seeds)} of {len(same.complete)} runs {words} never get there")
        one = _finding(part, arm, measure, doublings, "times", size, words=tuple(never))
        found.append(replace(one, value=as_factor(doublings), p=doublings.p))
    return found


def _doublings(run: Record) -> float | None:
    guessing = math.log(run.data.classes)
    epochs = epochs_until(run.curve(), "val_loss", guessing / 2, start=guessing)
    return None if epochs is None else math.log2(epochs)


def epochs_until(curve: Sequence[Mapping[str, Any]], key: str, level: float, start: float) -> float | None:
    """Epochs until a falling value reaches `level`, along straight lines from `start`; None where it never does."""
    before = start
    for done, row in enumerate(curve):
        if row[key] <= level:
            return float(done + (before - level) / (before - row[key]))
        before = row[key]
    return None


def epochs_to_training_error(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C11: at the ReLU net's learning rate for both, which is not what the claim is about; so never a verdict."""
    level = claim.values["training_error"]
    found = []
    for part, baseline, arm in _pairs(claim, [part for part in parts if not part.given]):
        sizes = []
        for name, same in (("ReLU", baseline), (arm.name, arm)):
            epochs = _by_seed(same.complete, lambda run: epochs_until(run.curve(), "train_top1", level, start=100.0))
            what = f"{name} {len(epochs)} of {len(same.complete)} runs{', after' if epochs else ''}"
            sizes.append(Quantity(what, stats.mean(epochs) if epochs else None, "epochs"))
        found.append(
            Finding(
                Verdict.not_run,
                arm.name,
                f"{level:g} % training error at one learning rate, regularised",
                beside=tuple(sizes),
                words=(f"no verdict without {claim.needs}",),
                part=part,
                records=(BASELINE, arm.name),
            )
        )
    return found


def _pairs(claim: Claim, parts: Sequence[Comparison]) -> Iterator[tuple[Comparison, Arm, Arm]]:
    """Comparison, baseline and arm for every ablation of the claim that has runs."""
    for part in parts:
        for name in claim.ablations:
            if (arm := find_arm(part, name)).runs:
                yield part, find_arm(part, BASELINE), arm


def _by_seed(runs: Mapping[int, Record], measure: Measure) -> dict[int, float]:
    """Measures the runs; those without the value are left out."""
    values = {seed: measure(run) for seed, run in runs.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def _difference(baseline: Mapping[int, Record], arm: Mapping[int, Record], measure: Measure) -> stats.Difference:
    return stats.paired_difference(_by_seed(baseline, measure), _by_seed(arm, measure))


def _finding(
    part: Comparison,
    arm: Arm,
    measure: str,
    value: stats.Difference,
    unit: str,
    size: Size | None = None,
    beside: tuple[Quantity, ...] = (),
    words: tuple[str, ...] = (),
) -> Finding:
    """Makes the finding of a difference; a quantity beside it stands there where it was measured."""
    return Finding(
        of_effect(value, size),
        arm.name,
        measure,
        value,
        unit,
        value.n,
        tuple(one for one in beside if one.value is not None and one.value.n),
        (*words, *part.notes(arm)),
        part,
        records=(BASELINE, arm.name),
    )


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (overfitting, training_error, early_loss, epochs_to_converge, epochs_to_training_error)
}
