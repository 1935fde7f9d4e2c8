import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from repro import record as records
from repro.evidence.board import eligible
from repro.evidence.claimed_rates import epochs_at_best_rates
from repro.evidence.claims import Finding, load
from repro.evidence.comparison import comparisons
from repro.report.claims_page import evidence, text
from repro.report.claims_page import verdict as told
from tests.evidence.test_rate_search import RELU, TANH, file_fig1

C11 = load()["C11"]


def found(results: Path) -> list[Finding]:
    return epochs_at_best_rates(C11, eligible(comparisons(records.find(results))))


def test_the_factor_is_paired_by_seed_on_a_logarithmic_scale(tmp_path: Path) -> None:
    file_fig1(tmp_path, "baseline", RELU)
    file_fig1(tmp_path, "tanh", TANH)
    (finding,) = found(tmp_path)
    factors = np.array([21 / 7, 30 / 7.5, 26 / 6.5])
    low, high = scipy_stats.t.interval(0.95, 2, np.log(factors).mean(), scipy_stats.sem(np.log(factors)))
    assert finding.value is not None
    assert [finding.value.mean, finding.value.low, finding.value.high] == pytest.approx(
        [float(np.exp(np.log(factors).mean())), math.exp(low), math.exp(high)]
    )
    assert told(finding) == "holds in direction"  # six times is not within
    assert "ReLU at 0.003 7.00" in text(finding)
    assert "../runs/cifar10_19pct/paper/no_weight_decay+tanh+lr=0.003+" in evidence(finding)


def test_six_times_holds(tmp_path: Path) -> None:
    file_fig1(tmp_path, "baseline", RELU)
    file_fig1(tmp_path, "tanh", TANH | {0.003: [34.0, 39.0, 38.0], 0.01: [39.0], 0.001: [None]})
    (finding,) = found(tmp_path)
    assert told(finding) == "holds"


def test_runs_that_do_not_get_there_and_an_edge_are_told(tmp_path: Path) -> None:
    file_fig1(tmp_path, "baseline", RELU)
    file_fig1(tmp_path, "tanh", {0.001: [None], 0.003: [39.5], 0.01: [38.0, None]})
    (finding,) = found(tmp_path)
    assert "1 of 2 runs of tanh do not get there: at least so large" in text(finding)
    assert "at the edge of the grid: no verdict" in text(finding)
    assert told(finding) == "not run here"


def test_without_a_whole_search_nothing_is_found(tmp_path: Path) -> None:
    file_fig1(tmp_path, "baseline", RELU)
    file_fig1(tmp_path, "tanh", {0.003: [21.0]})
    assert found(tmp_path) == []
