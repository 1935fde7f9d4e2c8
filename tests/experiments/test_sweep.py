import time

import pytest

from repro.errors import UserError
from repro.experiments import sweep
from repro.experiments.compose import compose
from repro.experiments.suites import runs


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("ablation=no_lrn", "optimizer.lr=0.02", "seed=3"),
        ("setup=cifar10", "recipe=source", "train.precision=bf16", "model.init.std.conv1=0.03"),
        ("schedule.drops=[0.5,0.8]", "data.root='/my images'", "train.epochs=1"),
        ("ablation=[no_lrn,no_dropout]", "data.classes=null"),
        ("++train.epochs=3",),
    ],
)
def test_a_sweep_composes_what_a_single_run_does(words: tuple[str, ...]) -> None:
    assert sweep.composed(words) == compose(words)


def test_runs_of_a_sweep_share_no_value() -> None:
    first = sweep.composed(("optimizer.lr=0.5",))
    assert sweep.composed(("train.epochs=2",)).optimizer.lr == compose([]).optimizer.lr
    first.train.epochs = 7
    assert sweep.composed(("optimizer.lr=0.5",)).train.epochs == compose([]).train.epochs


@pytest.mark.parametrize("word", ["train.epoch=3", "train.epochs=many", "train.epochs=-1", "ablation=no_lrm", "a=(b"])
def test_a_wrong_word_has_the_message_of_a_single_run(word: str) -> None:
    with pytest.raises(UserError) as single:
        compose([word])
    with pytest.raises(UserError) as swept:
        sweep.composed((word,))
    assert str(swept.value) == str(single.value)


def test_two_hundred_learning_rates_are_read_in_seconds() -> None:
    words = [("ablation=no_lrn", f"optimizer.lr={number / 1000}") for number in range(1, 201)]
    before = time.process_time()
    assert {sweep.composed(run).optimizer.lr for run in words} == {number / 1000 for number in range(1, 201)}
    assert time.process_time() - before < 10  # as single runs, twice that and more


def test_the_plan_counts_the_runs_and_names_what_differs() -> None:
    asked = runs(["ablation=baseline,no_lrn", "seed=0,1,2", "train.epochs=1"])
    assert sweep.told("sweep", asked) == ["sweep: 6 runs", "  ablation baseline, no_lrn", "  seed     0, 1, 2"]
    assert sweep.told("suite=x", [("seed=1",)]) == ["suite=x: 1 run"]
    many = sweep.told("sweep", [(f"seed={number}",) for number in range(2000)])
    assert many[0] == "sweep: 2,000 runs"
    assert many[1].endswith(", 23, and 1,976 more")
