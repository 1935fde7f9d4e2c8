"""One control and many arms: intervals that hold for all arms at once, with 95 % confidence.

Arms whose spread agrees with the control's are compared by Dunnett's test (1955), which pools the variance over all of
them; the others by Welch's, which pools nothing; and arms whose runs go on from the control's own checkpoints by the
paired test, for their seeds share a trajectory. The allowed 5 % of error are shared out among the arms (Bonferroni), so
that the three kinds together keep it.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

import numpy as np

from repro.evidence.stats import CONFIDENCE

ERROR = 1 - CONFIDENCE
SAME_SPREAD = 0.05
"""Spreads agree where two tests of an arm against the control have at least this p: that of Brown and Forsythe, and the
two-sided F test of the variances. With three seeds a side the former cannot reach it, however wide the arm, and one
wild arm would widen the intervals of all; the latter can."""
POWER = 0.8
"""Chance with which the smallest effect that is told would have been found."""
NODES = 200
"""Of the quadrature over the standard error; twice as many change the fifth digit."""
NODES_OF_MEAN = 80
"""The same over the control's mean."""
LARGEST = 1e4
"""Standard errors within which a critical value is sought."""


class Method(Enum):
    """How an arm is compared with the control."""

    dunnett = "Dunnett"
    welch = "Welch"
    paired = "paired"


@dataclass(frozen=True)
class Simultaneous:
    """Mean of an arm less mean of the control, with its interval, in the unit of the values."""

    mean: float
    low: float
    high: float
    method: Method
    n: int
    """Seeds of the arm or of the control, whichever are fewer; pairs where it is paired."""
    detectable: float
    """The smallest effect that such an interval leaves out 0 for in 80 of 100 repetitions, if this is the spread."""

    @property
    def distinguishable(self) -> bool:
        """Tells whether the interval excludes 0."""
        return not self.low <= 0 <= self.high


def compare(
    control: Mapping[int, float], arms: Mapping[str, Mapping[int, float]], paired: Collection[str] = ()
) -> dict[str, Simultaneous]:
    """Compares each arm with the control; both map a seed to a value. `paired` names the arms that share trajectories.

    Arms of fewer than two seeds (pairs) are left out; without two of the control, all.
    """
    pairs = {name: _differences(control, arms[name]) for name in arms if name in paired}
    pairs = {name: differences for name, differences in pairs.items() if len(differences) > 1}
    own = np.array(list(control.values()))
    apart = {name: np.array(list(arm.values())) for name, arm in arms.items() if name not in paired}
    apart = {name: values for name, values in apart.items() if len(values) > 1 and len(own) > 1}
    pooled = {name: values for name, values in apart.items() if _same_spread(own, values)}
    share = ERROR / max(1, len(pairs) + len(apart))
    found = _dunnett(own, pooled, share * len(pooled))
    found |= {name: _welch(own, values, share) for name, values in apart.items() if name not in pooled}
    return found | {name: _paired(differences, share) for name, differences in pairs.items()}


def by_method(
    control: Mapping[int, float], arms: Mapping[str, Mapping[int, float]], method: Method
) -> dict[str, Simultaneous]:
    """Compares all arms with the control by one method, to tell what each costs; every arm has two seeds at least."""
    own, share = np.array(list(control.values())), ERROR / len(arms)
    values = {name: np.array(list(arm.values())) for name, arm in arms.items()}
    if method is Method.dunnett:
        return _dunnett(own, values, ERROR)
    if method is Method.welch:
        return {name: _welch(own, one, share) for name, one in values.items()}
    return {name: _paired(_differences(control, arm), share) for name, arm in arms.items()}


def _differences(control: Mapping[int, float], arm: Mapping[int, float]) -> np.ndarray:
    return np.array([arm[seed] - control[seed] for seed in sorted(arm.keys() & control.keys())])


def same_spread(control: Mapping[int, float], arm: Mapping[int, float]) -> bool:
    """Tells whether the spreads of an arm and the control agree, by the Brown-Forsythe test."""
    return _same_spread(np.array(list(control.values())), np.array(list(arm.values())))


def _same_spread(control: np.ndarray, arm: np.ndarray) -> bool:
    from scipy import stats

    if control.std() == 0 or arm.std() == 0:  # the test is not defined
        return bool(control.std() == arm.std())
    ratio = arm.var(ddof=1) / control.var(ddof=1)
    one_side = stats.f.sf(max(ratio, 1 / ratio), *(len(arm) - 1, len(control) - 1)[:: 1 if ratio > 1 else -1])
    tests = [2 * one_side]
    if min(len(control), len(arm)) > 2:  # with two values, both lie as far from their median
        tests.append(stats.levene(control, arm, center="median").pvalue)
    return bool(min(tests) >= SAME_SPREAD)


def _dunnett(control: np.ndarray, arms: Mapping[str, np.ndarray], error: float) -> dict[str, Simultaneous]:
    if not arms:
        return {}
    freedom = len(control) - 1 + sum(len(values) - 1 for values in arms.values())
    squares = sum((len(values) - 1) * values.var(ddof=1) for values in (control, *arms.values()))
    if squares == 0:
        return {
            name: _exact(values.mean() - control.mean(), Method.dunnett, min(len(values), len(control)))
            for name, values in arms.items()
        }
    sizes = [len(values) for values in arms.values()]
    critical = critical_value(tuple(sizes), len(control), freedom, 1 - error)
    found = {}
    for name, values in arms.items():
        standard_error = math.sqrt(squares / freedom * (1 / len(values) + 1 / len(control)))
        mean = float(values.mean() - control.mean())
        found[name] = _around(mean, standard_error, critical, freedom, Method.dunnett, min(len(values), len(control)))
    return found


@cache
def critical_value(sizes: tuple[int, ...], control: int, freedom: float, confidence: float) -> float:
    """Dunnett's two-sided critical value, in standard errors, for arms of these sizes and a control of its own.

    Given the pooled standard deviation and the control's mean the arms are independent, so that their joint probability
    is an integral over these two, here by Gauss's quadratures. `scipy.stats.dunnett` draws it at random, and does not
    always find the limits.
    """
    from scipy.optimize import brentq
    from scipy.special import chdtri, ndtr

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    spreads = np.sqrt(chdtri(freedom, (1 - nodes) / 2) / freedom)[:, None]
    points, of_points = np.polynomial.hermite_e.hermegauss(NODES_OF_MEAN)
    of_points = of_points / of_points.sum()

    def missing(critical: float) -> float:
        joint = np.ones((NODES, NODES_OF_MEAN))
        for size, count in Counter(sizes).items():
            share = size / (size + control)  # the correlation of two arms of this size
            centre = math.sqrt(share) * points
            within = ndtr((centre + critical * spreads) / math.sqrt(1 - share))
            joint *= (within - ndtr((centre - critical * spreads) / math.sqrt(1 - share))) ** count
        return float(weights / 2 @ joint @ of_points) - confidence

    return float(brentq(missing, 0.0, LARGEST))


def _welch(control: np.ndarray, arm: np.ndarray, error: float) -> Simultaneous:
    own, other = (values.var(ddof=1) / len(values) for values in (arm, control))
    freedom = (own + other) ** 2 / (own**2 / (len(arm) - 1) + other**2 / (len(control) - 1))
    return _by_t(
        float(arm.mean() - control.mean()),
        math.sqrt(own + other),
        freedom,
        error,
        Method.welch,
        min(len(arm), len(control)),
    )


def _paired(differences: np.ndarray, error: float) -> Simultaneous:
    n = len(differences)
    standard_error = float(differences.std(ddof=1)) / math.sqrt(n)
    if standard_error == 0:
        return _exact(differences.mean(), Method.paired, n)
    return _by_t(float(differences.mean()), standard_error, n - 1, error, Method.paired, n)


def _by_t(mean: float, standard_error: float, freedom: float, error: float, method: Method, n: int) -> Simultaneous:
    from scipy.special import stdtrit

    return _around(mean, standard_error, float(stdtrit(freedom, 1 - error / 2)), freedom, method, n)


def _around(
    mean: float, standard_error: float, critical: float, freedom: float, method: Method, n: int
) -> Simultaneous:
    half, detectable = critical * standard_error, _noncentrality(critical, freedom) * standard_error
    return Simultaneous(mean, mean - half, mean + half, method, n, detectable)


def _exact(mean: float, method: Method, n: int) -> Simultaneous:
    """The comparison of values that do not vary."""
    return Simultaneous(float(mean), float(mean), float(mean), method, n, 0.0)


@cache
def _noncentrality(critical: float, freedom: float) -> float:
    """The effect in standard errors that a two-sided t-test at this critical value finds with the chance `POWER`.

    Over the nodes of a quadrature for the estimated standard error; `scipy.stats.nct` is NaN for some arguments.
    """
    from scipy.optimize import brentq
    from scipy.special import chdtri, ndtr

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    estimates = critical * np.sqrt(chdtri(freedom, (1 - nodes) / 2) / freedom)

    def missing(effect: float) -> float:
        return POWER - 1 + float(weights / 2 @ (ndtr(estimates - effect) - ndtr(-estimates - effect)))

    return float(brentq(missing, 0.0, estimates.max() + 10))
