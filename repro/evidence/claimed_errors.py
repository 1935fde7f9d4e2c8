"""Claims answered by errors on the validation images: effects of ablations, their order, and the full net's error.

Each check takes a claim and the comparisons that may answer it. A positive effect agrees with the claim.
"""

from collections.abc import Sequence
from itertools import pairwise, product

from repro.evidence import stats
from repro.evidence.claims import (
    Check,
    Claim,
    Finding,
    Quantity,
    Verdict,
    find_arm,
    of_effect,
    of_error,
    published_size,
)
from repro.evidence.comparison import CROP_WORDS, MAIN, TOP_WORDS, TOPS, Arm, Comparison, Effect, Measure, settings
from repro.evidence.published import Published, published
from repro.experiments.compose import compose
from repro.experiments.folder import BASELINE
from repro.experiments.naming import difference
from repro.experiments.registry import ablations
from repro.record import TEN_CROPS

SECTIONS = {
    "3.1": ("tanh", "sigmoid"),
    "3.2": ("one_gpu_half",),
    "3.3": ("no_lrn",),
    "3.4": ("nonoverlapping_pool",),
}
"""What takes each section's ingredient away, the nearest to the paper first."""
CIFAR_PAIR = ("cifar10", "cifar10_13pct")
"""The authors' nets with and without normalisation."""


def published_rows(claim: Claim) -> list[Published]:
    """The published effects that the claim is about."""
    return [row for row in published() if row.ablation in claim.ablations and row.data == claim.data]


def effects(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """The effect of each of the claim's ablations on each of its measures, ten crops."""
    rows = {row.ablation: row for row in published_rows(claim)}
    found = []
    for name, part, top in product(claim.ablations, parts, claim.measures):
        if not (arm := find_arm(part, name)).runs:
            continue
        effect = _without_less_with(part, arm, (TEN_CROPS, top))
        size = published_size(getattr(rows[name], f"{top}_effect")) if name in rows else None
        found.append(
            Finding(
                of_effect(effect, size),
                name,
                TOP_WORDS[top],
                effect,
                "points",
                effect.n,
                words=tuple(part.notes(arm)),
                part=part,
            )
        )
    return found


def _without_less_with(part: Comparison, arm: Arm, measure: Measure) -> stats.Difference:
    """Error without the ingredient less the error with it; the baseline is without what an ablation adds."""
    if ablations()[arm.name].kind == "add":
        return stats.paired_difference(arm.values(measure), find_arm(part, BASELINE).values(measure))
    return part.effects[arm.name].differences[measure]


def order_of_importance(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C26: the order holds where each section's effect is distinguishably above the next one's."""
    found = []
    for part in parts:
        arms = {section: _first_with_runs(part, names) for section, names in SECTIONS.items()}
        there = [arm for arm in arms.values() if arm.learned]
        if not there:
            continue
        steps = [stats.paired_difference(second.values(MAIN), first.values(MAIN)) for first, second in pairwise(there)]
        verdict = _order_verdict(steps) if len(there) == len(arms) else Verdict.not_run
        n = min((step.n for step in steps), default=0)
        sizes = tuple(_effect(part, section, arm) for section, arm in arms.items())
        found.append(Finding(verdict, measure="effects on top-1", n=n, beside=sizes, part=part))
    return found


def _first_with_runs(part: Comparison, names: Sequence[str]) -> Arm:
    arms = [find_arm(part, name) for name in names]
    return next((arm for arm in arms if arm.learned), next((arm for arm in arms if arm.runs), arms[0]))


def _effect(part: Comparison, section: str, arm: Arm) -> Quantity:
    effect, what = part.effects.get(arm.name), f"{section} `{arm.name}`"
    if effect is None:
        return Quantity(what, None, words="not run")
    if not arm.learned:
        return Quantity(what, None, words=effect.verdict)
    return Quantity(what, effect.differences[MAIN], "points")


def _order_verdict(steps: Sequence[stats.Difference]) -> Verdict:
    found = {of_effect(step) for step in steps}
    if Verdict.does_not_hold in found:
        return Verdict.does_not_hold
    return Verdict.holds if found == {Verdict.holds} else Verdict.not_distinguishable


def cifar_pair(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C9: the authors' two nets, which are setups of their own, where nothing else differs."""
    (row,) = published_rows(claim)
    normed, plain = ([part for part in parts if part.setup == setup] for setup in CIFAR_PAIR)
    found = []
    for part, other in product(normed, plain):
        if _same_but_for_the_setup(part, other):
            effect = Effect(find_arm(part, BASELINE), find_arm(other, BASELINE))
            error = effect.differences[MAIN]
            found.append(
                Finding(
                    of_effect(error, published_size(row.top1_effect)),
                    CIFAR_PAIR[1],
                    "top-1, against this setup's net",
                    error,
                    "points",
                    error.n,
                    words=("mixed code",) if effect.mixed else (),
                    part=part,
                    other=other,
                )
            )
    if normed and not found:
        found.append(
            Finding(Verdict.not_run, words=(f"needs runs of `{CIFAR_PAIR[1]}` too, the authors' net without norm",))
        )
    return found


def _same_but_for_the_setup(part: Comparison, other: Comparison) -> bool:
    """Same recipe, machine, images and settings, but for what tells the two setups apart."""
    runs = [find_arm(side, BASELINE).runs for side in (part, other)]
    places = [(side.recipe, side.device, side.data, side.numerics) for side in (part, other)]
    if not all(runs) or places[0] != places[1]:
        return False
    ours, theirs = (settings(same[0]) for same in runs)
    plain = (compose([f"setup={side.setup}", f"recipe={side.recipe}"]) for side in (part, other))
    return {key for key in ours if ours[key] != theirs[key]} <= difference(*plain).keys()


def errors_of_the_full_net(claim: Claim, parts: Sequence[Comparison]) -> list[Finding]:
    """C18, C19: the baseline's errors where a setup repeats one of the authors' runs."""
    found = []
    for part, run, top in product(parts, claim.authors, TOPS):
        baseline = find_arm(part, BASELINE)
        if run.setup == part.setup and baseline.learned:
            error = stats.mean(baseline.values((run.crops, top)))
            measure = f"{CROP_WORDS[run.crops]}, {TOP_WORDS[top]}"
            verdict = of_error(error, getattr(run, top))
            found.append(Finding(verdict, "", measure, error, "%", error.n, part=part))
    return found


CHECKS: dict[str, Check] = {
    check.__name__: check for check in (effects, order_of_importance, cifar_pair, errors_of_the_full_net)
}
