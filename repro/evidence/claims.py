"""A claim of the paper, what was found about it, and the rules of the verdict; `experiments/claims.yaml` lists them."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from repro.errors import UserError
from repro.evidence import stats
from repro.evidence.comparison import TOPS, Arm, Comparison
from repro.experiments import typed_yaml
from repro.experiments.folder import EXPERIMENTS

CLAIMS = EXPERIMENTS / "claims.yaml"
IDS = tuple(f"C{number}" for number in range(1, 28))


class Kind(Enum):
    """The sort of answer that a claim has."""

    arithmetic = "arithmetic"
    behaviour = "behaviour"
    effect = "effect"
    figure = "figure"


@dataclass
class AuthorsRun:
    """Errors of one of the authors' nets in %, un-rounded; `crops` is a crop mode of the records."""

    data: str
    images: int
    crops: str
    n: int
    top1: float
    top5: float
    source: str
    what: str = ""
    """What tells its net from the paper's, where nothing else does."""
    setup: str | None = None
    """The setup whose baseline repeats it."""


@dataclass
class Claim:
    """One claim; `experiments/claims.yaml` explains the fields."""

    section: str
    statement: str
    kind: Kind
    paper: str
    values: dict[str, float] = field(default_factory=dict)
    ablations: list[str] = field(default_factory=list)
    measures: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)
    data: str = ""
    nets: list[str] = field(default_factory=list)
    authors: list[AuthorsRun] = field(default_factory=list)
    needs: str = ""
    note: str = ""


class Verdict(Enum):
    """The answer of the records to a claim."""

    holds = "holds"
    in_direction = "holds in direction"
    does_not_hold = "does not hold"
    not_distinguishable = "not distinguishable"
    not_run = "not run here"


@dataclass(frozen=True)
class Quantity:
    """A number beside another one; or `words` why there is none."""

    what: str
    value: stats.Mean | None
    unit: str = ""
    words: str = ""


@dataclass(frozen=True)
class Finding:
    """One answer to a claim, as data: what was measured on which arm, its value and the verdict on it."""

    verdict: Verdict
    arm: str = ""
    """The ablation or setup that was set against a baseline."""
    measure: str = ""
    value: stats.Mean | None = None
    """On which the verdict is; a difference is signed so that a positive one agrees with the claim."""
    unit: str = ""
    n: int | None = None
    """How many pairs or runs are behind the verdict; None where it needs none."""
    beside: tuple[Quantity, ...] = ()
    words: tuple[str, ...] = ()
    """What the numbers do not say, a clause each."""
    part: Comparison | None = None
    """Whose runs these are; the evidence is its table, or the records of the arms in `records`."""
    other: Comparison | None = None
    """The second comparison, where the baselines of two are set against each other."""
    records: tuple[str, ...] = ()
    checked_by: tuple[str, ...] = ()
    """Functions and tests that show it, where no records do."""
    p: float | None = None
    """Two-sided, of the test behind the verdict, where `value` is no difference and does not hold it."""

    @property
    def tested(self) -> float | None:
        """The p-value of the test behind the verdict; None where there was none."""
        return self.value.p if isinstance(self.value, stats.Difference) else self.p


Check = Callable[[Claim, Sequence[Comparison]], list[Finding]]
"""Answers a claim from the comparisons that may: a finding for each that does."""


@cache
def load(path: Path = CLAIMS) -> dict[str, Claim]:
    """The claims by id, in order. Raises UserError for an unknown key, a wrong type, a missing or unknown id."""
    tree = typed_yaml.load(path)
    if wrong := tree.keys() ^ set(IDS):
        raise UserError(f"{path.name}: unknown or missing: {', '.join(sorted(wrong))}: the claims are C1 to C27")
    return {name: _claim(path, name, tree[name]) for name in IDS}


def _claim(path: Path, name: str, tree: Any) -> Claim:
    claim = typed_yaml.build(path, tree, Claim, f"{name}.")
    try:
        return replace(claim, paper=claim.paper.format(**claim.values))
    except (KeyError, ValueError) as error:  # a number that is not among the values
        raise UserError(f"{typed_yaml.at(path, f'{name}.paper')}: {error} is not among its values") from error


Size = tuple[float, float]
"""The effects, lowest and highest, that agree with a published one."""


def published_size(words: str) -> Size | None:
    """`+1.370` and `about +2` allow that effect alone, `over +1` all from there on; None where no number is given."""
    number = re.search(r"[+-]?\d+(\.\d+)?", words)
    if number is None:
        return None
    size = float(number[0])
    return size, math.inf if words.startswith(("over", "above")) else size


def of_effect(effect: stats.Difference, published: Size | None = None) -> Verdict:
    """Verdict on an effect that the claim says is above 0."""
    if not effect.distinguishable or effect.mean is None or effect.low is None or effect.high is None:
        return Verdict.not_distinguishable
    if effect.mean < 0:
        return Verdict.does_not_hold
    if published and not (effect.low <= published[1] and published[0] <= effect.high):
        return Verdict.in_direction
    return Verdict.holds


def of_error(error: stats.Mean, published: float) -> Verdict:
    """Verdict on a published error; one that is clearly lower does better than claimed."""
    if error.low is None or error.high is None:
        return Verdict.not_distinguishable
    if error.low <= published <= error.high:
        return Verdict.holds
    return Verdict.in_direction if error.high < published else Verdict.does_not_hold


def standard_errors(changed: AuthorsRun, plain: AuthorsRun) -> dict[str, float]:
    """Standard errors of a difference of errors, in points, as if each net saw images of its own; by top1 and top5.

    Only the sampling of the images is in it: what another seed would change comes on top.
    """
    return {top: math.sqrt(sum(_variance(getattr(run, top), run.images) for run in (changed, plain))) for top in TOPS}


def _variance(error: float, images: int) -> float:
    return error * (100 - error) / images


def find_arm(part: Comparison, name: str) -> Arm:
    """An arm of a comparison; one without runs where it has none of this name."""
    return next((arm for arm in part.arms if arm.name == name), Arm(name, []))
