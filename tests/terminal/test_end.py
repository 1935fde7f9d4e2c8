import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from repro import record
from repro.request import Run
from repro.terminal import end
from tests.synthetic import CHANGES, file_for, file_record, make_record, place, requested, stuck


def shown(run: record.Record, results: Path, *words: str) -> str:
    file_record(results, run)
    console = Console(width=60, file=io.StringIO(), highlight=False)
    title, table, lines = end.of_run(replace(run, folder=place(results, run)), results, words)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join([title, text, *lines, ""])


def test_end_of_a_run_with_a_baseline(tmp_path: Path) -> None:
    file_record(tmp_path, make_record("baseline", 1, 25.0))
    text = shown(make_record("no_lrn", 1, 26.25), tmp_path)
    lines = [line for line in text.splitlines() if "crop" in line]
    assert [number in lines[0] for number in ("26.25", "5.25", "25.00", "+1.25 pp")] == [True] * 4
    assert "verdict: no interval at n=1; McNemar's test on these two nets: p = 0." in text
    folder = place(tmp_path, make_record("no_lrn", 1))
    assert f"record: {folder}\n" in text
    assert "weights" not in text  # of which there are none
    assert "python" not in text


def test_the_verdict_is_over_all_seeds_and_the_weights_are_named(tmp_path: Path) -> None:
    for seed, better in enumerate((25.0, 25.2, 25.1)):
        file_record(tmp_path, make_record("baseline", seed, better))
        file_record(tmp_path, make_record("no_lrn", seed, better + 2))
    weights = tmp_path / "raw/imagenette_small/paper/no_lrn/seed1/weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    text = shown(make_record("no_lrn", 1, 27.2), tmp_path)
    assert "verdict: worse at n=3\n" in text
    assert f"weights: {weights}\n" in text


def test_a_damaged_neighbour_costs_the_verdict_alone(tmp_path: Path) -> None:
    file_record(tmp_path, make_record("baseline", 0))
    (file_record(tmp_path, make_record("no_lrn", 2)) / "record.json").write_text("{")
    text = shown(make_record("no_lrn", 0, 26.0), tmp_path)
    assert "+1.00 pp" in text
    assert "verdict: none: " in text


def test_a_damaged_baseline_costs_the_difference_alone(tmp_path: Path) -> None:
    (file_record(tmp_path, make_record("baseline", 0)) / "record.json").write_text("{")
    text = shown(make_record("no_lrn", 0, 26.0), tmp_path)
    assert "26.00" in text
    assert "the baseline's record is damaged: " in text
    assert "record.json" in text
    assert "record: " in text


def asked(results: Path, *words: str) -> Run:
    """A run that these words of a command line ask for, on a setup whose precision is not left open."""
    return requested(results, "setup=cifar10", "train.precision=fp32", *words)


def made(results: Path, error: float | None, *words: str, **changed: Any) -> Run:
    """The same, with its record, of so large an error."""
    run = asked(results, *words)
    file_for(run, error, **changed)
    return run


def table(*runs: Run, width: int = 60) -> list[str]:
    """The lines of the table of a sweep."""
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(end.of_sweep(runs))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line for line in text.splitlines() if line.strip()]
    assert all(len(line) <= width for line in lines)
    return lines


def test_a_damaged_record_costs_a_sweep_its_line_alone(tmp_path: Path) -> None:
    whole, damaged = (made(tmp_path, 25.0, f"seed={seed}") for seed in (0, 1))
    (damaged.folder / "record.json").write_text("{")
    rows = [line.split() for line in table(whole, damaged)]
    assert ["baseline", "0", "25.00", "%"] in rows
    assert ["baseline", "1", "damaged"] in rows


def test_a_record_of_an_older_configuration_is_none_of_the_sweep(tmp_path: Path) -> None:
    run = made(tmp_path, 25.0, "train.epochs=3")
    path = run.folder / "record.json"
    path.write_text(path.read_text().replace('"epochs": 3', '"epochs": 4'))
    assert table(run, width=100)[2].split() == ["baseline", "0", "older", "settings"]


def test_a_seed_that_is_not_done_does_not_cost_the_verdict(tmp_path: Path) -> None:
    runs = [asked(tmp_path, "ablation=no_lrn", "seed=0")]
    for seed, error in enumerate((25.0, 25.2, 25.1), 1):
        made(tmp_path, error, f"seed={seed}")
        runs.append(made(tmp_path, error + 2, "ablation=no_lrn", f"seed={seed}"))
    assert "\n".join(table(*runs, width=100)).count("worse at n=3") == 1


def test_the_table_of_a_sweep(tmp_path: Path) -> None:
    words = [("ablation=baseline", f"seed={seed}") for seed in (0, 1)]
    runs = [made(tmp_path, 25.0, *own) for own in words]
    runs += [made(tmp_path, error, "ablation=no_lrn", f"seed={seed}") for seed, error in ((0, 26.5), (1, None))]
    rows = [line.split() for line in table(*runs, asked(tmp_path, "ablation=sigmoid"))]
    assert ["baseline", "0", "25.00", "%"] in rows
    assert ["no_lrn", "0", "26.50", "%", "+1.50", "pp"] in [row[:6] for row in rows]
    assert ["no_lrn", "1", "diverged"] in rows
    assert ["sigmoid", "0", "not", "done"] in rows


def test_the_table_of_a_sweep_says_why_there_is_no_verdict(tmp_path: Path) -> None:
    def verdict(seed: int) -> str:
        run = made(tmp_path / str(seed), 26.5, "ablation=no_lrn", f"seed={seed}")
        return " ".join(" ".join(table(run, width=100)).split())

    assert verdict(0).endswith("for the difference, run the baseline")
    made(tmp_path / "1", 25.0, "seed=1", device="another one")
    assert verdict(1).endswith("the baseline's record was made on another one")


def test_the_table_of_a_sweep_names_what_differs_in_it(tmp_path: Path) -> None:
    short = [asked(tmp_path, f"ablation={name}", "train.epochs=1") for name in ("baseline", "no_lrn")]
    text = "\n".join(table(*short))
    assert "epochs" not in text
    assert "baseline" in text
    budgets = [asked(tmp_path, "ablation=no_lrn", f"train.epochs={epochs}") for epochs in (1, 2)]
    assert [line.split()[0] for line in table(*budgets, width=90)[2:]] == ["no_lrn+epochs=1", "no_lrn+epochs=2"]
    recipes = [asked(tmp_path, f"recipe={recipe}") for recipe in ("paper", "source")]
    assert [line.split()[0] for line in table(*recipes, width=90)[2:]] == [
        "cifar10/paper/baseline",
        "cifar10/source/baseline",
    ]


def test_a_key_set_by_hand_is_the_arm_where_no_ablation_was_asked_for(tmp_path: Path) -> None:
    made(tmp_path, 25.0)
    rows = [line.split() for line in table(made(tmp_path, 26.0, "optimizer.lr=0.02"), width=100)]
    assert ["lr=0.02", "0", "26.00", "%", "+1.00", "pp"] in [row[:6] for row in rows]
    rows = [line.split() for line in table(made(tmp_path, 26.0, "ablation=baseline", "optimizer.lr=0.02"))]
    assert ["baseline", "0", "26.00", "%"] in rows


def test_few_classes_have_no_top5_error(tmp_path: Path) -> None:
    run = make_record("baseline")
    few = record.read(file_record(tmp_path, replace(run, data=replace(run.data, classes=5))))
    text = shown(few, tmp_path)
    assert text.count("not measured") == 2


def test_end_of_a_run_without_a_baseline_gives_the_command_in_one_line(tmp_path: Path) -> None:
    text = shown(make_record("no_lrn", 1, 26.25), tmp_path)
    command = "python -m repro.run setup=imagenette_small recipe=paper ablation=baseline seed=1"
    assert f"run the baseline: {command} results_dir={tmp_path}\n" in text


@pytest.mark.parametrize("name", ["[/]", "[x]", "[bold]"])
def test_a_folder_with_brackets_is_shown_as_it_is(name: str, tmp_path: Path) -> None:
    text = shown(make_record("no_lrn", 1, 26.25), tmp_path / name)
    assert f"results_dir={tmp_path / name}'" in text


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
        ({"numerics": "beef"}, "was made by other code"),
        ({"commit": "fed"}, "was made by other code"),
    ],
)
def test_end_of_a_run_with_a_baseline_that_does_not_compare(
    tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    file_record(tmp_path, make_record("baseline", 0, **changed))
    text = shown(make_record("no_lrn", 0, 26.0), tmp_path)
    assert f"the baseline's record {reason}; to compare, replace it: python -m repro.run" in text
    assert "force=true" in text


@pytest.mark.parametrize(
    ("chosen", "words"), [(["no_lrn"], "ablation=baseline schedule.kind=cosine"), (None, "ablation=baseline")]
)
def test_the_baseline_of_a_chosen_ablation_has_what_was_set_by_hand(
    tmp_path: Path, chosen: list[str] | None, words: str
) -> None:
    cosine = {"schedule.kind": ["step", "cosine"]}
    run = make_record("no_lrn", difference=CHANGES["no_lrn"] | cosine, chosen=chosen, error=33.0)
    run = replace(run, ablation="cosine+no_lrn")
    assert f"run the baseline: python -m repro.run setup=imagenette_small recipe=paper {words} seed=0" in shown(
        run, tmp_path
    )
    file_record(tmp_path, make_record("cosine", difference=cosine, chosen=["baseline"], error=31.0))
    assert ("+2.00" in shown(run, tmp_path)) is (chosen is not None)


def test_a_run_older_than_its_baseline_is_the_one_to_be_made_again(tmp_path: Path) -> None:
    file_record(tmp_path, make_record("baseline", numerics="cafe", finished="2026-11-23T12:00:00+00:00"))
    text = shown(make_record("no_lrn", numerics="beef", finished="2026-11-22T12:00:00+00:00"), tmp_path)
    command = "python -m repro.run setup=imagenette_small recipe=paper ablation=no_lrn seed=0"
    words = "this run was made by other code than the baseline, which is newer; to compare, make it again"
    assert f"{words}: {command} results_dir={tmp_path} force=true\n" in text


def test_end_of_a_baseline_and_of_a_diverged_run(tmp_path: Path) -> None:
    assert "python" not in shown(make_record("baseline", 0, 26.0), tmp_path)
    assert shown(make_record("baseline", 0, None), tmp_path).count("diverged") == 4


def test_end_of_a_run_that_did_not_learn(tmp_path: Path) -> None:
    file_record(tmp_path, make_record("baseline"))
    (run,) = stuck("sigmoid", 1)
    text = shown(run, tmp_path)
    assert "did not learn: its loss is no better than guessing among 10 classes" in text
    assert "+" not in text
    collapsed = replace(run, metrics=replace(run.metrics, answers=1))
    assert "did not learn: one answer to every validation image" in shown(collapsed, tmp_path)
    file_record(tmp_path, *stuck("baseline", 1))
    assert "the baseline did not learn: there is nothing to compare with" in shown(make_record("no_lrn"), tmp_path)
