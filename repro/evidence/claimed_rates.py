"""Claim C11, figure 1: how many times as many epochs another neuron takes, each at its own best learning rate."""

import math
from collections.abc import Mapping, Sequence

from repro.evidence import stats
from repro.evidence.claims import Check, Claim, Finding, Quantity, Verdict, of_effect
from repro.evidence.comparison import Comparison
from repro.evidence.rate_search import TunedArm, tuned_arms
from repro.experiments import suites
from repro.experiments.folder import BASELINE
from repro.record import Record

SUITE = "fig1"


def epochs_at_best_rates(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """A finding for each neuron and arithmetic whose search is whole; without a verdict where its best is at the edge.

    Factors are compared as logarithms to the base 2, paired by seed. A run that does not get there counts as if it had
    at its last epoch: the factor is at least so large.
    """
    arms = tuned_arms(suites.read(SUITE), {run.folder: run for part in parts for run in part.runs}.values())
    relu = {arm.arithmetic: arm for arm in arms if arm.ablation == BASELINE and arm.best is not None}
    others = [arm for arm in arms if arm.ablation in claim.ablations and arm.arithmetic in relu and arm.runs]
    return [_finding(claim, relu[arm.arithmetic], arm, _part_of(parts, arm)) for arm in others]


def _finding(claim: Claim, relu: TunedArm, arm: TunedArm, part: Comparison) -> Finding:
    doublings = factor_in_doublings(relu, arm)
    size = (math.log2(claim.values["ratio"]),) * 2
    inside = relu.inside and arm.inside
    beside = [Quantity(f"{name} at {own.best:g}", stats.mean(epochs(own)), "epochs") for name, own in
              (("ReLU", relu), (arm.ablation, arm))]  # fmt: skip
    never = [seed for seed, run in arm.runs.items() if run.epochs_to_train_error is None]
    words = [] if inside else ["a best rate at the edge of the grid: no verdict"]
    if never:
        words.append(f"{len(never)} of {len(arm.runs)} runs of {arm.ablation} do not get there: at least so large")
    return Finding(
        of_effect(doublings, size) if inside else Verdict.not_run,
        arm.ablation,
        f"epochs to {claim.values['training_error']:g} % training error, over those of ReLU, each at its best rate",
        as_factor(doublings),
        "times",
        doublings.n,
        tuple(beside),
        tuple(words),
        part,
        records=tuple(own.runs[min(own.runs)].ablation for own in (relu, arm)),
        p=doublings.p,
    )


def epochs(arm: TunedArm) -> dict[int, float]:
    """Epochs to the training error that ended each run, by seed; all of them where it was not reached."""
    return {seed: _epochs(run) for seed, run in arm.runs.items()}


def _epochs(run: Record) -> float:
    return float(len(run.curve())) if run.epochs_to_train_error is None else run.epochs_to_train_error


def factor_in_doublings(relu: TunedArm, arm: TunedArm) -> stats.Difference:
    """How many times as many epochs an arm takes as ReLU, as a logarithm to the base 2, paired by seed."""
    return stats.paired_difference(_logarithms(epochs(relu)), _logarithms(epochs(arm)))


def _logarithms(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: math.log2(value) for seed, value in values.items()}


def as_factor(doublings: stats.Difference) -> stats.Mean:
    """The factor whose logarithm to the base 2 this is."""
    mean, low, high = (None if value is None else 2**value for value in (doublings.mean, doublings.low, doublings.high))
    return stats.Mean(mean, low, high, doublings.seeds)


def _part_of(parts: Sequence[Comparison], arm: TunedArm) -> Comparison:
    folders = {run.folder for run in arm.runs.values()}
    return next(part for part in parts if folders & {run.folder for run in part.runs})


CHECKS: dict[str, Check] = {epochs_at_best_rates.__name__: epochs_at_best_rates}
