"""Claims answered by the curves of runs and by their errors on the training images.

Each check takes a claim and the comparisons that may answer it, and gives a finding for each ablation with runs.
Differences are paired by seed and signed so that a positive one agrees with the claim.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from repro.evidence import stats
from repro.evidence.claims import NOT_RUN, Check, Claim, Finding, Size, amount, find_arm, of_effect, records_link
from repro.evidence.comparison import Arm, Comparison
from repro.experiments.folder import BASELINE
from repro.record import Record
from repro.report.tables import interval

Measure = Callable[[Record], float | None]


def overfitting(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C10, C12, C14: validation error less training error, both of the centre crop of unchanged images."""
    found = []
    for part, baseline, arm in _pairs(claim, parts):
        gap = _difference(baseline.learned, arm.learned, _gap)
        error = _difference(baseline.learned, arm.learned, lambda run: run.metrics.centre.top1)
        text = f"validation less training error {amount(gap, 'points')}{_beside('validation error', error)}"
        found.append(_finding(part, arm, gap, text))
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
        text = f"training error {amount(error, 'points')}{_beside('loss in nats', loss)}"
        found.append(_finding(part, arm, error, text))
    return found


def early_loss(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C16: mean training loss over the first tenth of the epochs, which a run that never learns has too."""
    found = []
    for part, baseline, arm in _pairs(claim, parts):
        loss = _difference(baseline.complete, arm.complete, _early)
        found.append(_finding(part, arm, loss, f"training loss in the first tenth of the run {amount(loss, 'nats')}"))
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
    found = []
    for part, baseline, arm in _pairs(claim, parts):
        factor = _difference(arm.complete, baseline.complete, _doublings)
        text = f"with dropout, half the validation loss of guessing after {_factor(factor)}"
        for words, same in (("with dropout", baseline), ("without", arm)):
            if never := [seed for seed, run in same.complete.items() if _doublings(run) is None]:
                text += f"; {len(never)} of {len(same.complete)} runs {words} never get there"
        found.append(_finding(part, arm, factor, text, size))
    return found


def _doublings(run: Record) -> float | None:
    guessing = math.log(run.data.classes)
    epochs = epochs_until(run.curve(), "val_loss", guessing / 2, start=guessing)
    return None if epochs is None else math.log2(epochs)


def _factor(factor: stats.Difference) -> str:
    if factor.mean is None:
        return "no pair of runs that both get there"
    bounds = "" if factor.low is None or factor.high is None else f" [{2**factor.low:.2f}, {2**factor.high:.2f}]"
    return f"{2**factor.mean:.2f}{bounds} times the epochs without it, n={factor.n}"


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
    for part, baseline, arm in _pairs(claim, parts):
        texts = []
        for name, same in (("ReLU", baseline), (arm.name, arm)):
            epochs = _by_seed(same.complete, lambda run: epochs_until(run.curve(), "train_top1", level, start=100.0))
            mean = f", after {interval(stats.mean(epochs))} epochs" if epochs else ""
            texts.append(f"{name} {len(epochs)} of {len(same.complete)} runs{mean}")
        text = f"{level:g} % training error at one learning rate, regularised: {'; '.join(texts)}; no verdict without "
        text += claim.needs
        found.append(Finding(text, NOT_RUN, records_link(part, BASELINE, arm.name), part))
    return found


def _pairs(claim: Claim, parts: Sequence[Comparison]) -> Iterator[tuple[Comparison, Arm, Arm]]:
    """Comparison, baseline and arm for every ablation of the claim that has runs."""
    for part in parts:
        for name in claim.ablations:
            if (arm := find_arm(part, name)).runs:
                yield part, find_arm(part, BASELINE), arm


def _by_seed(runs: Mapping[int, Record], measure: Measure) -> dict[int, float]:
    """What the runs measure; those without the value are left out."""
    values = {seed: measure(run) for seed, run in runs.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def _difference(baseline: Mapping[int, Record], arm: Mapping[int, Record], measure: Measure) -> stats.Difference:
    return stats.paired_difference(_by_seed(baseline, measure), _by_seed(arm, measure))


def _beside(name: str, difference: stats.Difference) -> str:
    return f" ({name} {interval(difference, '+')})" if difference.n else ""


def _finding(part: Comparison, arm: Arm, value: stats.Difference, text: str, size: Size | None = None) -> Finding:
    text = "; ".join([f"`{arm.name}`: {text}", *part.notes(arm)])
    return Finding(text, of_effect(value, size), records_link(part, BASELINE, arm.name), part)


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (overfitting, training_error, early_loss, epochs_to_converge, epochs_to_training_error)
}
