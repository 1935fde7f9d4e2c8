from itertools import product

import pytest

from repro import suites
from repro.errors import UserError
from repro.experiments import choices, compose, normalise_arguments
from repro.naming import changes
from repro.report.ledger import recipe_differences
from repro.suites import expand, read


@pytest.mark.parametrize("name", choices("suite"))
def test_every_arm_of_a_suite_composes_and_differs_from_the_others(name: str) -> None:
    suite = read(name)
    assert suite.question.endswith("?")
    assert len(suite.seed) == len(set(suite.seed)) >= 3
    for recipe in suite.recipe:
        compose([f"setup={suite.setup}", f"recipe={recipe}"])
    for recipe, ablation in product(suite.recipe, suite.ablation):
        assert ablation == "baseline" or changes(ablation, recipe, suite.setup)


def test_each_difference_between_the_exact_recipes_is_an_arm_of_its_suite() -> None:
    suite = read("source_differences")
    covered = {key for name in suite.ablation for key in changes(name, "paper", suite.setup)}
    of_a_budget = {"train.epochs"}
    assert recipe_differences().keys() - of_a_budget <= covered
    assert "source" in read("cousins").recipe


def test_the_cousins_are_all_the_recipes() -> None:
    assert sorted(read("cousins").recipe) == choices("recipe")
    assert read("cousins").recipe[0] == "paper"  # the first arm is what the others are compared with


def test_a_suite_stands_for_its_sweep() -> None:
    words = normalise_arguments(expand(["suite=source_differences"]))
    assert words[0] == "-m"
    assert "setup=imagenette_small" in words
    assert "recipe=paper" in words
    assert "seed=0,1,2" in words


def test_other_words_go_before_the_suites_own() -> None:
    words = expand(["-m", "suite=cousins", "seed=7", "setup=embedded", "train.epochs=1"])
    assert [word for word in words if word.startswith("seed=")] == ["seed=7"]
    assert [word for word in words if word.startswith("setup=")] == ["setup=embedded"]
    assert words[-1] == "train.epochs=1"


def test_without_a_suite_nothing_changes() -> None:
    assert expand(["ablation=no_lrn", "seed=1"]) == ["ablation=no_lrn", "seed=1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["suite=cousin"], "unknown suite=cousin: there are cifar_lrn, cousins"),
        (["suite=cousins", "suite=source_differences"], "suite= is given twice"),
    ],
)
def test_bad_suites_are_the_users_mistake(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        suites.expand(words)
