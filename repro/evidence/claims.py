"""A claim of the paper, what was found about it, and the rules of the verdict; `experiments/claims.yaml` lists them."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from repro.errors import UserError
from repro.evidence import stats
from repro.evidence.comparison import TOPS, Arm, Comparison
from repro.experiments.folder import EXPERIMENTS
from repro.report.tables import interval, stem

CLAIMS = EXPERIMENTS / "claims.yaml"
IDS = tuple(f"C{number}" for number in range(1, 28))

HOLDS, IN_DIRECTION, DOES_NOT_HOLD, NOT_RUN = "holds", "holds in direction", "does not hold", "not run here"
NOT_DISTINGUISHABLE = "not distinguishable"  # n follows


class Kind(Enum):
    """What sort of answer a claim has."""

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


@dataclass(frozen=True)
class Finding:
    """One answer."""

    text: str
    verdict: str
    evidence: str = ""
    part: Comparison | None = None
    """The runs behind it, where there are any."""
    measure: str = ""
    """What tells it from the answers of the same runs, such as `top-5`."""


Check = Callable[[Claim, Sequence[Comparison]], list[Finding]]
"""Answers a claim from the comparisons that may: a finding for each that does."""


@cache
def load(path: Path = CLAIMS) -> dict[str, Claim]:
    """The claims by id, in order. Raises UserError for an unknown key, a wrong type, a missing or unknown id."""
    try:
        raw = cast(DictConfig, OmegaConf.load(path))
        claims = {str(name): _claim(value) for name, value in raw.items()}
    except (OmegaConfBaseException, YAMLError, KeyError) as error:
        raise UserError(f"{path.name}: {' '.join(str(error).split())}") from error
    if wrong := claims.keys() ^ set(IDS):
        raise UserError(f"{path.name}: unknown or missing: {', '.join(sorted(wrong))}: the claims are C1 to C27")
    return {name: claims[name] for name in IDS}


def _claim(raw: Any) -> Claim:
    claim = cast(Claim, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Claim), raw)))
    claim.paper = claim.paper.format(**claim.values)
    return claim


Size = tuple[float, float]
"""The effects, lowest and highest, that agree with a published one."""


def published_size(words: str) -> Size | None:
    """`+1.370` and `about +2` allow that effect alone, `over +1` all from there on; None where no number is given."""
    number = re.search(r"[+-]?\d+(\.\d+)?", words)
    if number is None:
        return None
    size = float(number[0])
    return size, math.inf if words.startswith(("over", "above")) else size


def of_effect(effect: stats.Difference, published: Size | None = None) -> str:
    """Verdict on an effect that the claim says is above 0."""
    if not effect.distinguishable or effect.mean is None or effect.low is None or effect.high is None:
        return not_distinguishable(effect.n)
    if effect.mean < 0:
        return DOES_NOT_HOLD
    if published and not (effect.low <= published[1] and published[0] <= effect.high):
        return IN_DIRECTION
    return HOLDS


def of_error(error: stats.Mean, published: float) -> str:
    """Verdict on a published error; one that is clearly lower does better than claimed."""
    if error.low is None or error.high is None:
        return not_distinguishable(error.n)
    if error.low <= published <= error.high:
        return HOLDS
    return IN_DIRECTION if error.high < published else DOES_NOT_HOLD


def not_distinguishable(n: int) -> str:
    """Verdict where there is no interval, or it holds 0."""
    return f"{NOT_DISTINGUISHABLE}, n={n}"


def standard_errors(changed: AuthorsRun, plain: AuthorsRun) -> dict[str, float]:
    """Of the difference between two errors, in points, as if each net saw images of its own; by top1 and top5.

    Only the sampling of the images is in it: what another seed would change comes on top.
    """
    return {top: math.sqrt(sum(_variance(getattr(run, top), run.images) for run in (changed, plain))) for top in TOPS}


def _variance(error: float, images: int) -> float:
    return error * (100 - error) / images


# ---- what every finding says -----------------------------------------------------------------------------------------


def find_arm(part: Comparison, name: str) -> Arm:
    """An arm of a comparison; one without runs where it has none of this name."""
    return next((arm for arm in part.arms if arm.name == name), Arm(name, []))


def amount(difference: stats.Difference, unit: str) -> str:
    """`+2.10 [+1.70, +2.50] points, n=3`."""
    if difference.n == 0:
        return "no pair of complete runs"
    return f"{interval(difference, '+')} {unit}, n={difference.n}"


def table_link(part: Comparison) -> str:
    """A link to the comparison's table, from the file beside it."""
    return f"[table]({stem(part)}.md)"


def records_link(part: Comparison, *names: str) -> str:
    """Links to the folders of these arms."""
    return ", ".join(f"[{name}](../runs/{part.setup}/{part.recipe}/{name})" for name in names)
