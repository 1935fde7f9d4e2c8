import math
from dataclasses import replace
from pathlib import Path

import pytest

from repro import record as records
from repro.errors import UserError
from repro.evidence.rate_search import at_edge, check_inside, chosen, measure, tuned_arms
from repro.experiments import suites
from repro.record import TrainErrors
from tests.synthetic import file_for, make_record, requested

FIG1 = suites.read("fig1")


def file_fig1(results: Path, ablation: str, reached: dict[float, list[float | None]]) -> None:
    """Files runs of the suite: by rate, the epochs of the seeds from 0 on; None for one that does not get there."""
    run = (f"setup={FIG1.setup}", *FIG1.given, "recipe=paper", f"ablation={ablation}")
    for rate, epochs in reached.items():
        for seed, count in enumerate(epochs):
            length = 40 if count is None else math.ceil(count)
            curve = [
                {**dict.fromkeys(records.CURVE, 1.5), "epoch": n, "step": n, "events": ""} for n in range(1, length + 1)
            ]
            asked = requested(results, *suites.at(FIG1, run, rate), f"seed={seed}")
            file_for(asked, 25.0, curve, epochs_to_train_error=count)


RELU = {0.001: [9.0], 0.003: [7.0, 7.5, 6.5], 0.01: [None]}
TANH = {0.001: [35.0], 0.003: [21.0, 30.0, 26.0], 0.01: [28.0]}


def test_each_arm_stands_at_the_best_value_of_its_search_with_all_its_seeds(tmp_path: Path) -> None:
    file_fig1(tmp_path, "baseline", RELU)
    file_fig1(tmp_path, "tanh", TANH)
    relu, tanh, sigmoid = tuned_arms(FIG1, records.find(tmp_path))
    assert (relu.ablation, relu.best, relu.inside, relu.arithmetic) == ("baseline", 0.003, True, "cpu fp32")
    assert (sigmoid.best, sigmoid.search) == (None, {})
    assert relu.measures == {0.001: 9.0, 0.003: 7.0, 0.01: math.inf}
    assert {seed: run.epochs_to_train_error for seed, run in tanh.runs.items()} == {0: 21.0, 1: 30.0, 2: 26.0}


def test_before_the_search_is_whole_nothing_is_chosen(tmp_path: Path) -> None:
    file_fig1(tmp_path, "baseline", {rate: RELU[rate] for rate in (0.001, 0.003)})
    relu, *others = tuned_arms(FIG1, records.find(tmp_path))
    assert (relu.best, relu.inside, relu.runs) == (None, False, {})
    assert set(relu.measures) == {0.001, 0.003}
    assert [arm.search for arm in others] == [{}, {}]


def test_runs_of_other_settings_are_none_of_it(tmp_path: Path) -> None:
    run = (f"setup={FIG1.setup}", *FIG1.given, "recipe=paper", "ablation=baseline", "seed=0", "optimizer.lr=0.003")
    words = [word for word in run if not word.startswith("optimizer.weight_decay")]
    file_for(requested(tmp_path, *words), 25.0)
    assert tuned_arms(FIG1, records.find(tmp_path)) == []


def test_what_is_minimised() -> None:
    stopped = make_record(keys={"train.stop_at_train_error": 25.0})
    assert measure(stopped) == math.inf
    assert measure(make_record(keys={"train.stop_at_train_error": 25.0}, epochs_to_train_error=3.5)) == 3.5
    plain = make_record()
    assert measure(plain) == math.inf  # nothing was held out
    assert measure(replace(plain, metrics=replace(plain.metrics, minival=TrainErrors(30.0, 5.0, 1.0)))) == 30.0


def test_the_smallest_of_equal_values_is_chosen_and_none_of_none() -> None:
    assert chosen({0.1: 5.0, 0.01: 5.0, 1.0: 9.0}) == 0.01
    assert chosen({0.1: math.inf, 0.2: math.inf}) is None
    assert [at_edge(value, (1.0, 3.0, 2.0)) for value in (1.0, 2.0, 3.0)] == [True, False, True]


@pytest.mark.parametrize(("best", "side"), [(0.001, "smaller"), (0.01, "larger")])
def test_a_best_value_at_the_edge_is_refused_with_what_to_do(best: float, side: str) -> None:
    check_inside("ablation=tanh", 0.003, (0.001, 0.003, 0.01))
    with pytest.raises(UserError, match=f"ablation=tanh: of the values searched, {best:g} is best, .*add a {side} one"):
        check_inside("ablation=tanh", best, (0.001, 0.003, 0.01))
