import re
import subprocess
import sys
from pathlib import Path

import pytest

from repro.errors import UserError
from repro.experiments.folder import choices
from repro.terminal import help as pages
from tests.synthetic import file_record, make_record
from tests.tiny import run_command

ROOT = Path(__file__).parents[2]


def explained(*words: str) -> str:
    text = pages.text(words, None)
    assert text is not None
    return text


def test_one_ablation_is_explained_in_its_recipe_and_setup(tmp_path: Path) -> None:
    for seed, error in enumerate((25.0, 25.2, 25.1)):
        file_record(tmp_path, make_record("baseline", seed, error))
        file_record(tmp_path, make_record("no_lrn", seed, error + 2))
    text = explained("ablation=no_lrn", f"results_dir={tmp_path}")
    for line in (
        "no_lrn     Does response normalisation lower the error?",
        "kind       remove",
        "expects    worse than the baseline",
        "claim      C8: Response normalisation lowers the error",
        "in         recipe paper, setup embedded",
        "changes    model.norm.kind: lrn -> none",
        "here       +2.00 [+2.00, +2.00] pp, worse at n=3 (imagenette_small, recipe paper, cpu)",
    ):
        assert line in text.splitlines()
    assert "published  +1.370 / +1.152 (ILSVRC-2012 val, ten crops, n=1): layer-params-148.cfg" in text


def test_values_before_are_those_of_the_recipe_and_setup_given(tmp_path: Path) -> None:
    words = ("ablation=one_gpu_half", f"results_dir={tmp_path}")
    assert "model.sizes.conv1: 96 -> 48" in explained(*words, "setup=imagenette")
    text = explained(*words, "setup=cifar10")
    assert "but            ablation=one_gpu_half" in text.replace("but           ", "but            ")
    assert "it applies to" in text
    assert f"no record in {tmp_path} tells its effect" in text


def test_a_damaged_record_does_not_hide_the_explanation(tmp_path: Path) -> None:
    (file_record(tmp_path, make_record("no_lrn")) / "record.json").write_text("{")
    text = explained("ablation=no_lrn", f"results_dir={tmp_path}")
    assert "model.norm.kind: lrn -> none" in text
    assert "no effect can be told" in text


@pytest.mark.parametrize(
    ("topic", "group"), [("ablations", "ablation"), ("recipes", "recipe"), ("setups", "setup"), ("suites", "suite")]
)
def test_each_kind_is_listed_with_its_questions(topic: str, group: str) -> None:
    found = pages.listed(topic)
    assert sorted(found) == choices(group)
    assert all(found.values())


def test_claims_are_listed() -> None:
    assert list(pages.listed("claims")) == [f"C{number}" for number in range(1, 28)]


def test_lines_fit_a_terminal_and_are_whole_elsewhere() -> None:
    narrow, whole = pages.text(["recipes"], 60), pages.text(["recipes"], None)
    assert narrow is not None
    assert whole is not None
    assert max(map(len, narrow.splitlines())) <= 60
    assert len(whole.splitlines()) == len(choices("recipe"))
    assert narrow.split() == whole.split()


def test_an_unknown_ablation_is_named() -> None:
    with pytest.raises(UserError, match="unknown ablation=no_lrm: did you mean no_lrn"):
        pages.text(["ablation=no_lrm"], None)


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("no_lrn", "write --help ablation=no_lrn"),
        ("gpu", "write --help suite=gpu"),
        ("claim", "did you mean claims?"),
        ("claim=C8", "did you mean claims?"),
        ("everything", "there is --help ablations, recipes,"),
    ],
)
def test_a_word_that_is_no_topic_is_told(word: str, advice: str) -> None:
    with pytest.raises(UserError, match=f"no help on {word}: {re.escape(advice)}"):
        pages.text([word], None)


def test_a_list_takes_no_other_words() -> None:
    with pytest.raises(UserError, match="--help suites lists all there are: leave out setup=cifar10"):
        pages.text(["suites", "setup=cifar10"], None)


def test_a_suite_is_explained_by_its_question_and_its_runs() -> None:
    lines = [line.split(maxsplit=1) for line in explained("suite=headline_small", "seed=0,1").splitlines()]
    assert lines[0][0] == "headline_small"
    assert lines[0][1].endswith("?")
    assert ["seed", "0, 1"] in lines
    arms = dict(lines)["ablation"].split(", ")
    assert "no_lrn" in arms
    assert ["runs", str(2 * len(arms))] in lines


def test_a_recipe_and_a_setup_are_explained_by_their_files() -> None:
    text = explained("setup=cifar10", "recipe=source")
    assert text.startswith("cifar10  The four-layer CIFAR-10 net")
    assert "\nsource   " in text
    with pytest.raises(UserError, match="unknown setup=cifar"):
        pages.text(["setup=cifar"], None)


def test_help_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("--help", "suites") == 0
    assert capsys.readouterr().out.startswith("cifar_lrn ")
    assert run_command("train.epochs=3", "--help") == 0
    assert "--help ablation=no_lrn" in capsys.readouterr().out


def test_help_needs_no_torch() -> None:
    code = """
import runpy, sys
sys.argv[1:] = ["--help", "ablation=no_lrn"]
try:
    runpy.run_module("repro.run", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
