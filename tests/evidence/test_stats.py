import itertools
import math

import numpy as np
import pytest
from scipy import stats as reference

from repro.evidence import stats


def by_seed(values: np.ndarray) -> dict[int, float]:
    return dict(enumerate(values.tolist()))


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_paired_difference_is_scipys_paired_t_test(n: int) -> None:
    generator = np.random.default_rng(n)
    baseline, arm = generator.normal(25, 3, n), generator.normal(26, 1, n)
    ours, expected = stats.paired_difference(by_seed(baseline), by_seed(arm)), reference.ttest_rel(arm, baseline)
    interval = expected.confidence_interval(0.95)
    assert ours.mean == pytest.approx(np.mean(arm - baseline))
    assert ours.p == pytest.approx(expected.pvalue)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))


def test_paired_difference_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.30265 in any printed table."""
    difference = stats.paired_difference({0: 10, 1: 10, 2: 10}, {0: 11, 1: 12, 2: 13})
    assert difference.mean == 2
    assert difference.low == pytest.approx(2 - 4.30265 / math.sqrt(3), abs=1e-4)
    assert difference.high == pytest.approx(2 + 4.30265 / math.sqrt(3), abs=1e-4)
    assert difference.verdict == "not distinguishable at n=3"


def test_mean_interval_is_scipys() -> None:
    values = np.array([28.1, 28.9, 29.3, 28.4])
    expected = reference.ttest_1samp(values, 0).confidence_interval(0.95)
    ours = stats.mean(by_seed(values))
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high))
    assert ours.n == 4


def test_interval_holds_the_truth_in_95_percent_of_cases_at_n_3() -> None:
    generator = np.random.default_rng(0)
    baseline = generator.normal(25, 2, (2000, 3))  # a hard seed is hard for both arms
    arm = baseline + 0.5 + generator.normal(0, 0.3, (2000, 3))
    differences = [stats.paired_difference(by_seed(b), by_seed(a)) for b, a in zip(baseline, arm, strict=True)]
    covered = np.mean([d.low is not None and d.high is not None and d.low <= 0.5 <= d.high for d in differences])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_only_common_seeds_enter() -> None:
    difference = stats.paired_difference({0: 1.0, 1: 2.0, 5: 99.0}, {7: -99.0, 1: 3.0, 0: 2.0})
    assert (difference.mean, difference.seeds, difference.n) == (1.0, (0, 1), 2)


def test_one_seed_has_no_interval() -> None:
    difference = stats.paired_difference({0: 1.0}, {0: 3.0})
    assert (difference.mean, difference.low, difference.high, difference.p) == (2.0, None, None, None)
    assert not difference.distinguishable
    assert difference.verdict == "no interval at n=1"
    assert stats.mean({0: 3.0}) == stats.Mean(3.0, None, None, (0,))


def test_no_common_seed() -> None:
    difference = stats.paired_difference({0: 1.0}, {1: 3.0})
    assert (difference.mean, difference.p, difference.verdict) == (None, None, "no seed in common")
    assert stats.mean({}).mean is None


def test_the_same_difference_at_every_seed() -> None:
    equal = stats.paired_difference({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0})
    assert (equal.p, equal.distinguishable) == (1.0, False)
    shifted = stats.paired_difference({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0})
    assert (shifted.p, shifted.distinguishable, shifted.verdict) == (0.0, True, "distinguishable at n=2")


def answers(*rows: str) -> dict[int, np.ndarray]:
    return {seed: np.array([letter == "1" for letter in row]) for seed, row in enumerate(rows)}


def test_mcnemar_counts_by_hand() -> None:
    """Seed 0: 3 against 1; seed 1: 2 against 0. Pooled 5 against 1: 2 * (1 + 6) / 2^6."""
    test = stats.mcnemar(answers("11101100", "11000000"), answers("00011100", "00000000"))
    assert test is not None
    assert (test.only_baseline, test.only_arm) == (5, 1)
    assert test.p == pytest.approx(2 * 7 / 64)
    assert test.p_by_seed == pytest.approx({0: 2 * 5 / 16, 1: 0.5})
    assert test.seeds == (0, 1)


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(range(0, 40, 7), 2), (0, 0), (6, 6), (180, 240)])
def test_mcnemar_p_is_the_exact_binomial(first: int, second: int) -> None:
    baseline = np.array([True] * first + [False] * second + [True] * 5)
    arm = np.array([False] * first + [True] * second + [True] * 5)
    test = stats.mcnemar({0: baseline}, {0: arm})
    assert test is not None
    total, least = first + second, min(first, second)
    literal = min(1.0, 2 * sum(math.comb(total, k) for k in range(least + 1)) / 2**total)
    assert test.p == pytest.approx(literal)
    if total:
        assert test.p == pytest.approx(reference.binomtest(first, total).pvalue)


def test_mcnemar_uses_common_seeds_only() -> None:
    ones, zeros = np.ones(4, bool), np.zeros(4, bool)
    test = stats.mcnemar({0: ones, 1: ones}, {1: zeros, 2: zeros})
    assert test is not None
    assert (test.only_baseline, test.seeds) == (4, (1,))
    assert stats.mcnemar({0: ones}, {1: ones}) is None


def test_mcnemar_refuses_other_images() -> None:
    with pytest.raises(ValueError, match="seed 2: 3 images against 4"):
        stats.mcnemar({2: np.ones(4, bool)}, {2: np.ones(3, bool)})


def test_holms_correction() -> None:
    """Holm's own example: p of 0.01, 0.04, 0.03, 0.005 of four tests, by hand 0.03, 0.06, 0.06, 0.02."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.6]) == [1.0, 1.0]
    assert stats.holm([]) == []
