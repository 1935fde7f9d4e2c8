import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from repro.evidence.simultaneous import ERROR, Method, Simultaneous, _noncentrality, compare, critical_value

Values = dict[int, float]


def values(*numbers: float) -> Values:
    return dict(enumerate(numbers))


def drawn(rng: np.random.Generator, n: int, mean: float = 0.0, spread: float = 1.0) -> Values:
    return values(*rng.normal(mean, spread, n))


# Dunnett (1955), table 2: blood counts of animals under a control and two drugs.
BLOOD = values(7.40, 8.50, 7.20, 8.24, 9.84, 8.32)
DRUGS = {"A": values(9.76, 8.80, 7.68, 9.36), "B": values(12.80, 9.68, 12.16, 9.20, 10.55)}


def test_dunnetts_own_example() -> None:
    """His joint limits with equal coefficients: 0.65 +- 1.97 and 2.63 +- 1.85."""
    found = compare(BLOOD, DRUGS)
    assert {one.method for one in found.values()} == {Method.dunnett}
    a, b = found["A"], found["B"]
    assert [a.mean, (a.high - a.low) / 2] == pytest.approx([0.65, 1.93], abs=0.05)
    assert [b.mean, (b.high - b.low) / 2] == pytest.approx([2.63, 1.81], abs=0.05)
    assert (a.distinguishable, b.distinguishable) == (False, True)


def test_one_arm_of_equal_spread_is_students_test() -> None:
    rng = np.random.default_rng(1)
    control, arm = drawn(rng, 8), drawn(rng, 6, 1.0)
    (found,) = compare(control, {"arm": arm}).values()
    limits = scipy_stats.ttest_ind(list(arm.values()), list(control.values())).confidence_interval(0.95)
    assert [found.low, found.high] == pytest.approx([limits.low, limits.high], abs=0.02)


def test_an_arm_of_another_spread_is_compared_by_welch_at_its_share_of_the_error() -> None:
    rng = np.random.default_rng(2)
    control, wide, same = drawn(rng, 10), drawn(rng, 10, 2.0, 12.0), drawn(rng, 10)
    found = compare(control, {"wide": wide, "same": same})
    assert [found[name].method for name in ("wide", "same")] == [Method.welch, Method.dunnett]
    test = scipy_stats.ttest_ind(list(wide.values()), list(control.values()), equal_var=False)
    limits = test.confidence_interval(1 - ERROR / 2)
    assert [found["wide"].low, found["wide"].high] == pytest.approx([limits.low, limits.high])


def test_runs_of_one_trajectory_are_compared_by_pairs() -> None:
    rng = np.random.default_rng(3)
    control = drawn(rng, 5, 25.0)
    branch = {seed: value + 0.2 + 0.01 * rng.normal() for seed, value in control.items() if seed != 2}
    other = drawn(rng, 5, 25.0)
    found = compare(control, {"branch": branch, "other": other}, paired={"branch"})["branch"]
    differences = [branch[seed] - control[seed] for seed in branch]
    limits = scipy_stats.ttest_1samp(differences, 0).confidence_interval(1 - ERROR / 2)
    assert (found.method, found.n, found.distinguishable) == (Method.paired, 4, True)
    assert [found.low, found.high] == pytest.approx([limits.low, limits.high])


def test_what_has_no_spread_or_no_second_seed() -> None:
    assert compare(values(1.0), {"arm": values(1.0, 2.0)}) == {}
    assert compare(values(1.0, 2.0), {"arm": values(3.0)}) == {}
    assert compare({}, {}) == {}
    found = compare(values(1.0, 1.0), {"arm": values(3.0, 3.0)})
    assert found == {"arm": Simultaneous(2.0, 2.0, 2.0, Method.dunnett, 2, 0.0)}
    assert compare(values(1.0, 2.0), {"arm": values(3.0, 3.0, 3.0)})["arm"].method is Method.welch
    paired = compare(values(1.0, 2.0), {"arm": values(2.0, 3.0)}, paired={"arm"})["arm"]
    assert (paired.low, paired.high, paired.detectable) == (1.0, 1.0, 0.0)


def test_critical_values_are_those_of_dunnetts_table_and_of_scipy() -> None:
    """Dunnett (1964), two-sided, 5 %: by the number of arms and degrees of freedom."""
    for arms, freedom, value in ((1, 10, 2.23), (2, 10, 2.57), (3, 20, 2.54), (9, 60, 2.77)):
        assert critical_value((6,) * arms, 6, freedom, 0.95) == pytest.approx(value, abs=0.006)
    rng = np.random.default_rng(6)
    control, arms = rng.normal(size=7), [rng.normal(size=size) for size in (4, 6, 9)]
    test = scipy_stats.dunnett(*arms, control=control, rng=np.random.default_rng(0))
    limits = test.confidence_interval(0.95)
    found = compare(values(*control), {str(number): values(*arm) for number, arm in enumerate(arms)})
    for one, low, high in zip(found.values(), limits.low, limits.high, strict=True):
        assert [one.low, one.high] == pytest.approx([low, high], abs=0.02)


@pytest.mark.parametrize("n", [3, 10])
def test_the_smallest_effect_is_found_in_four_of_five_repetitions(n: int) -> None:
    """Of one arm: the power of Student's test, by 4,000 draws."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 4000, n))
    error = np.sqrt((a.var(axis=1, ddof=1) + b.var(axis=1, ddof=1)) / n)
    critical = scipy_stats.t.ppf(0.975, 2 * n - 2)
    (found,) = compare(values(*rng.normal(size=n)), {"arm": values(*rng.normal(size=n))}).values()
    standard_error = (found.high - found.low) / 2 / critical
    effect = found.detectable / standard_error * math.sqrt(2 / n)  # of a spread of 1
    assert found.method is Method.dunnett
    power = np.mean(np.abs(a.mean(axis=1) + effect - b.mean(axis=1)) > critical * error)
    assert power == pytest.approx(0.8, abs=0.02)


def test_the_noncentral_distribution_is_that_of_scipy_where_that_is_known() -> None:
    for critical, freedom in ((2.3, 8), (2.0, 60), (4.3, 2)):
        effect = _noncentrality(critical, freedom)
        power = scipy_stats.nct.sf(critical, freedom, effect) + scipy_stats.nct.cdf(-critical, freedom, effect)
        assert power == pytest.approx(0.8, abs=1e-4)


@pytest.mark.slow
def test_all_intervals_hold_at_once_in_95_of_100_draws() -> None:
    """2,000 draws of a control and three arms of one spread, n=5: between 94 and 97 % hold all three differences."""
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(2000):
        found = compare(drawn(rng, 5), {name: drawn(rng, 5, 1.0) for name in "abc"})
        held += all(one.low <= 1.0 <= one.high for one in found.values())
    assert 0.94 <= held / 2000 <= 0.97
