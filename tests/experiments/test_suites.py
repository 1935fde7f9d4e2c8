import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from repro.errors import UserError
from repro.evidence.ledger import recipe_differences
from repro.experiments import folder, suites
from repro.experiments.compose import compose
from repro.experiments.folder import choices
from repro.experiments.naming import changes
from repro.experiments.suites import Suite, expand, read, runs, usable
from repro.experiments.words import chosen_ablations, normalise_arguments


@pytest.mark.parametrize("name", choices("suite"))
def test_every_run_of_a_suite_composes_and_differs_from_the_others(name: str) -> None:
    assert read(name).question.endswith("?")
    wanted = runs([f"suite={name}"], best=lambda search: sorted(search)[1])
    arms: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for *words, seed in wanted:
        arms[tuple(words)].add(seed)
    for words, seeds in arms.items():
        assert len(seeds) >= 3 or (name in ("fig1", "gpu") and "train.stop_at_train_error=25" in words)  # of a search
        (ablation,) = chosen_ablations(words)
        config = compose(words)
        assert ablation == "baseline" or changes(ablation, config.recipe, config.setup)


def test_runs_are_in_order_of_wanting_and_no_arm_waits_for_the_seeds_of_another() -> None:
    wanted = runs(["suite=cifar_lrn", "seed=4,5", "train.epochs=1"])
    start = ("setup=cifar10_13pct", "recipe=paper")
    assert list(wanted) == [
        (*start, f"ablation={ablation}", f"seed={seed}", "train.epochs=1")
        for seed in (4, 5)
        for ablation in ("baseline", "add_lrn")
    ]


def test_arms_branch_from_the_run_that_differs_by_the_ablation_alone() -> None:
    found = runs(["suite=source_differences", "ablation=baseline,freeze_conv1_late", "seed=0"])
    baseline, arm = found
    assert list(found.values()) == [None, baseline]
    assert set(baseline) ^ set(arm) == {"ablation=baseline", "ablation=freeze_conv1_late"}
    assert set(runs(["suite=cousins"]).values()) == {None}


def test_parts_come_one_after_another_and_no_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    both = Suite("both", "Which?", parts=("suite=cifar_lrn seed=0", "setup=embedded seed=0,1", "suite=cifar_lrn"))
    monkeypatch.setattr(suites, "read", lambda name: both if name == "both" else read(name))
    whole = [(dict(word.split("=") for word in run), run[-1]) for run in runs(["suite=both"])]
    assert [(run["setup"], run.get("ablation"), run["seed"]) for run, _ in whole] == [
        ("cifar10_13pct", "baseline", "0"),
        ("cifar10_13pct", "add_lrn", "0"),
        ("embedded", None, "0"),
        ("embedded", None, "1"),
        *(("cifar10_13pct", ablation, seed) for seed in "12" for ablation in ("baseline", "add_lrn")),
    ]
    assert len(runs(["suite=both", "seed=7", "setup=embedded"])) == 3  # two arms, and embedded's own words
    with pytest.raises(UserError, match=r"give its parts one by one: python -m repro.run suite=cifar_lrn seed=0; "):
        expand(["suite=both", "hydra/launcher=submitit_slurm"])


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
    with pytest.raises(UserError, match=message):
        suites.runs(words)


def test_a_suite_takes_lists_only() -> None:
    with pytest.raises(UserError, match=r"ablation=glob\(no_\*\): a suite takes lists"):
        runs(["suite=cousins", "ablation=glob(no_*)"])


WHOLE = "question: Which?\nsetup: embedded\nrecipe: [paper]\nablation: [baseline]\nseed: [0]\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{WHOLE}seeds: [0]\n", "line 6: seeds: unknown key: did you mean seed? there are ablation, branch_from,"),
        (WHOLE.replace("seed: [0]\n", ""), "has no seed"),
        (WHOLE.replace("[paper]", "[3]"), "line 3: recipe: 3 is not a text"),
        (WHOLE.replace("[0]", "['0']"), "line 5: seed: '0' is not a whole number"),
        (WHOLE.replace("embedded", "imagenet"), "line 2: setup: unknown setup imagenet"),
        (f"{WHOLE}branch_from: nothing\n", "line 4: ablation: unknown ablation nothing"),
        (WHOLE.replace("[baseline]", "[]"), "has no ablation, and no parts"),
        ("question: Which?\nparts: []\n", "has no setup, and no parts"),
        (
            "question: Which?\nparts: [suite=cousins]\n",
            "line 2: parts: suite=cousins: a suite cannot be",
        ),
        ("question: Which?\nparts: [suite=nope]\n", "line 2: parts: unknown suite=nope: there are "),
        ('question: Which?\nparts: ["suite=gpu \'x"]\n', "line 2: parts: suite=gpu 'x: no closing quotation"),
        ("question: Which?\nparts: [suite=gpu minutes=3]\n", "line 2: parts: minutes=3 is for the command line"),
        ("- a\n", "holds no keys"),
        (f"{WHOLE}seed: [1]\n", "line 6: found duplicate key seed"),
    ],
)
def test_a_wrong_file_is_named_and_the_other_suites_are_there(
    content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "experiments"
    shutil.copytree(folder.EXPERIMENTS, place)
    (place / "suite" / "cousins.yaml").write_text(content)
    monkeypatch.setattr(folder, "EXPERIMENTS", place)
    with pytest.raises(UserError, match=re.escape(f"suite/cousins.yaml: {message}")):
        read("cousins")
    assert [suite.name for suite in usable()] == [name for name in choices("suite") if name != "cousins"]
    assert capsys.readouterr().err.startswith("warning: suite/cousins.yaml: ")


def test_suites_that_are_parts_of_each_other_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "experiments"
    shutil.copytree(folder.EXPERIMENTS, place)
    for name, other in (("one", "two"), ("two", "one")):
        (place / "suite" / f"{name}.yaml").write_text(f"question: Which?\nparts: [suite={other}]\n")
    monkeypatch.setattr(folder, "EXPERIMENTS", place)
    with pytest.raises(UserError, match=r"suite/one\.yaml: parts: it is a part of itself, by one and two"):
        runs(["suite=one"])


def test_one_value_stands_for_a_list_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "experiments"
    shutil.copytree(folder.EXPERIMENTS, place)
    (place / "suite" / "own.yaml").write_text(WHOLE.replace("[paper]", "paper").replace("[0]", "0"))
    monkeypatch.setattr(folder, "EXPERIMENTS", place)
    assert read("own").recipe == ("paper",)
    assert len(runs(["suite=own"])) == 1


@pytest.mark.parametrize("word", ["++seed=1", "+seed=1", "~seed"])
def test_a_word_that_adds_or_removes_a_key_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=r"a suite has every key already: write seed"):
        suites.runs(["suite=cifar_lrn", word])


# ---- suites that tune a key ------------------------------------------------------------------------------------------

TUNED = Suite(
    "tuned",
    "Which?",
    "cifar10",
    ("paper",),
    ("baseline", "no_lrn"),
    (3, 4),
    given=("train.epochs=2",),
    tune={"optimizer.lr": [0.01, 0.001, 0.1]},
)


@pytest.fixture(name="tuned")
def _tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "read", lambda name: TUNED)


@pytest.mark.usefixtures("tuned")
def test_each_arm_is_searched_at_the_first_seed_on_images_that_are_held_out() -> None:
    found = [dict(word.split("=") for word in run) for run in runs(["suite=tuned"])]
    assert [(run["ablation"], run["optimizer.lr"]) for run in found] == [
        (ablation, rate) for ablation in ("baseline", "no_lrn") for rate in ("0.01", "0.001", "0.1")
    ]
    assert {(run["seed"], run["data.minival"], run["train.epochs"]) for run in found} == {("3", "0.1", "2")}


@pytest.mark.usefixtures("tuned")
def test_once_the_best_value_of_an_arm_is_known_all_its_seeds_are_run_there() -> None:
    def best(search: suites.Search) -> float | None:
        return 0.001 if "ablation=no_lrn" in search[0.01] else None

    found = [dict(word.split("=") for word in run) for run in runs(["suite=tuned"], best=best)]
    assert [(run["ablation"], run["optimizer.lr"], run["seed"]) for run in found[6:]] == [
        ("no_lrn", "0.001", "3"),
        ("no_lrn", "0.001", "4"),
    ]
    assert all("data.minival" not in run for run in found[6:])


@pytest.mark.usefixtures("tuned")
def test_a_value_that_is_given_is_not_sought() -> None:
    found = runs(["suite=tuned", "optimizer.lr=0.5"])
    assert len(found) == 4
    assert suites.tuned_key(["suite=tuned", "optimizer.lr=0.5"]) is None
    assert suites.tuned_key(["suite=tuned"]) == "optimizer.lr"


@pytest.mark.parametrize(
    ("tune", "answer"),
    [
        ("optimizer.lr: [0.1, 0.2]", "line 6: tune: give three values at least"),
        ("{optimizer.lr: [1, 2, 3], optimizer.momentum: [0, 0.5, 0.9]}", "tune: one key, in a suite without parts"),
        ("model.nrom.k: [1, 2, 3]", "tune: model.nrom.k is no key with numbers"),
        ("[0.1]", "is not a mapping to a list of which each is a number"),
    ],
)
def test_a_search_that_cannot_find_an_optimum_is_refused(
    tune: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder.EXPERIMENTS, tmp_path / "experiments")
    monkeypatch.setattr(folder, "EXPERIMENTS", tmp_path / "experiments")
    lines = ["question: Which?", "setup: cifar10", "recipe: paper", "ablation: baseline", "seed: [0]"]
    lines.append(f"tune: {tune}" if tune[0] in "{[" else f"tune:\n  {tune}")
    (tmp_path / "experiments" / "suite" / "mine.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match=re.escape(answer)):
        read("mine")


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("train.epochs", "write key=value"),
        ("nope=1", "write key=value"),
        ("seed=1", "a key that is none of the suite's own"),
        ("train.epochs=1,2", "all runs have it, so give one value"),
        ("optimizer.lr=[", "cannot read 'optimizer.lr=['"),
    ],
)
def test_what_all_runs_have_is_one_value_of_one_key(
    word: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder.EXPERIMENTS, tmp_path / "experiments")
    monkeypatch.setattr(folder, "EXPERIMENTS", tmp_path / "experiments")
    text = "question: Which?\nsetup: cifar10\nrecipe: paper\nablation: baseline\nseed: [0]\n"
    (tmp_path / "experiments" / "suite" / "mine.yaml").write_text(f"{text}given: ['{word}']\n")
    with pytest.raises(UserError, match=re.escape(answer)):
        read("mine")
    with pytest.raises(UserError, match="cannot read"):
        runs(["ablation=baseline,[no_lrn"])
