import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from repro import record
from repro.report import end
from tests.synthetic import CHANGES, file_record, make_record, place, stuck


def shown(run: record.Record, results: Path, *words: str) -> str:
    console = Console(width=80, file=io.StringIO(), highlight=False, soft_wrap=True)
    console.print(end.against_baseline(replace(run, folder=place(results, run)), results, words))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_end_of_a_run_with_a_baseline(tmp_path: Path) -> None:
    file_record(tmp_path, make_record("baseline", 1, 25.0))
    text = shown(make_record("no_lrn", 1, 26.25), tmp_path)
    lines = [line for line in text.splitlines() if "crop" in line]
    assert [number in lines[0] for number in ("26.25", "5.25", "25.00", "+1.25")] == [True] * 4
    assert "python" not in text


def test_end_of_a_run_without_a_baseline_gives_the_command_in_one_line(tmp_path: Path) -> None:
    text = shown(make_record("no_lrn", 1, 26.25), tmp_path)
    command = "python -m repro.run setup=imagenette_small recipe=paper ablation=baseline seed=1"
    assert f"run the baseline: {command} results_dir={tmp_path}\n" in text


SHORT = {"train.epochs": [24, 1], "train.precision": ["bf16", "fp32"]}


def short(ablation: str, label: str, **changed: Any) -> record.Record:
    """A run with the budget and precision that a user set by hand."""
    difference = {**CHANGES[ablation], **SHORT}
    return replace(make_record(ablation, epochs=1, difference=difference, **changed), ablation=label)


def test_the_baseline_of_a_short_run_is_as_short(tmp_path: Path) -> None:
    run = short("no_lrn", "no_lrn+epochs=1+precision=fp32", error=80.0)
    file_record(tmp_path, make_record("baseline", error=25.0))
    words = ("setup=imagenette_small", "ablation=no_lrn", "train.epochs=1", "train.precision=fp32", "seed=0,1")
    places = ("data.root=/my images", f"results_dir={tmp_path}", "force=true")
    text = shown(run, tmp_path, *words, *places)
    assert "25.00" not in text
    assert (
        "run the baseline: python -m repro.run setup=imagenette_small recipe=paper ablation=baseline train.epochs=1"
        f" train.precision=fp32 seed=0 'data.root=/my images' results_dir={tmp_path}\n" in text
    )
    file_record(tmp_path, short("baseline", "epochs=1+precision=fp32", error=75.0))
    assert "+5.00" in shown(run, tmp_path, *words, *places)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"device": "other Xeon"}, "was made on other Xeon"),
        ({"content_hash": "beef" * 16}, "was made on other images"),
        ({"epochs": 3}, "was made with other settings"),
        ({"error": None}, "is diverged"),
        ({"numerics": "beef"}, "was made by code that may compute other bits"),
        ({"commit": "fed"}, "was made by code that may compute other bits"),
    ],
)
def test_end_of_a_run_with_a_baseline_that_does_not_compare(
    tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    file_record(tmp_path, make_record("baseline", 0, **changed))
    text = shown(make_record("no_lrn", 0, 26.0), tmp_path)
    assert f"the baseline's record {reason}; to compare, replace it: python -m repro.run" in text
    assert "force=true" in text


def test_end_of_a_baseline_and_of_a_diverged_run(tmp_path: Path) -> None:
    assert "python" not in shown(make_record("baseline", 0, 26.0), tmp_path)
    assert shown(make_record("baseline", 0, None), tmp_path).count("diverged") == 4


def test_end_of_a_run_that_did_not_learn(tmp_path: Path) -> None:
    file_record(tmp_path, make_record("baseline"))
    (run,) = stuck("sigmoid", 1)
    text = shown(run, tmp_path)
    assert "did not learn: the loss is still that of guessing, ln(10)" in text
    assert "+" not in text
    file_record(tmp_path, *stuck("baseline", 1))
    assert "the baseline did not learn: there is nothing to compare with" in shown(make_record("no_lrn"), tmp_path)
