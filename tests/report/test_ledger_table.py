import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from repro import record
from repro.config import Config
from repro.evidence import image_copies
from repro.evidence.comparison import comparisons
from repro.evidence.ledger import Row, read, recipe_differences
from repro.experiments.folder import choices
from repro.experiments.naming import changes, settings
from repro.experiments.registry import ablations
from repro.report import ledger_table
from repro.report.ledger_table import HEADER, NOT_MEASURED
from tests.synthetic import file_record, make_record, stuck


def cells(title: str, results: Path) -> dict[str, str]:
    rows = (dict(zip(HEADER, row, strict=True)) for row in ledger_table.rows(comparisons(record.find(results))))
    return next(row for row in rows if row["what"] == title)


def test_the_ledger_holds_every_difference_of_the_recipes_once_and_no_other() -> None:
    keys = [key for row in read() for key in row.keys]
    assert sorted(keys) == sorted(recipe_differences())


def test_every_ambiguity_and_difference_of_the_authors_code_has_a_row() -> None:
    assert len(read()) >= 16
    assert len({row.title for row in read()}) == len(read())
    assert any(row.inference for row in read())


@pytest.mark.parametrize("row", read(), ids=lambda row: row.title)
def test_a_row_says_it_all(row: Row) -> None:
    assert all((row.paper, row.source, row.ours, row.why))
    assert re.search(r"\((\d|abstract)[^)]*\)", row.paper), "no section"
    assert set(row.ablations) <= set(choices("ablation"))
    if row.keys and row.keys != ("train.epochs",):  # a budget, which a setup sets
        assert row.ablations
    for key in row.keys:
        assert key in settings(Config())
        moved = [name for name in ablations() if changes(name, "paper", "ilsvrc2012").get(key) is not None]
        assert key == "train.epochs" or set(moved) & set(row.ablations), f"no ablation of this row changes {key}"


def test_an_effect_that_was_not_measured_says_so(tmp_path: Path) -> None:
    assert cells("Order in layer 1", tmp_path)["measured effect"] == f"`lrn_before_relu`: {NOT_MEASURED}"


def test_effects_come_from_the_records_with_n_and_place(tmp_path: Path) -> None:
    change = {"model.order1": ["relu_lrn_pool", "lrn_pool_relu"]}
    for seed, error in enumerate((25.0, 26.0, 24.0)):
        file_record(tmp_path, make_record(seed=seed, error=error))
        file_record(tmp_path, make_record("lrn_before_relu", seed, error + 1, difference=change))
    effect = cells("Order in layer 1", tmp_path)["measured effect"]
    assert effect == "`lrn_before_relu`: +1.00 [+1.00, +1.00] (n=3, imagenette_small, recipe paper, cpu)"


@pytest.mark.parametrize(
    ("seeds", "changed"), [(2, {}), (3, {"data": replace(make_record().data, source="imagefolder")})]
)
def test_too_few_seeds_and_a_users_own_images_are_no_measurement(
    seeds: int, changed: dict[str, Any], tmp_path: Path
) -> None:
    for name, seed in product(("baseline", "lrn_before_relu"), range(seeds)):
        change = {} if name == "baseline" else {"model.order1": ["relu_lrn_pool", "lrn_pool_relu"]}
        file_record(tmp_path, make_record(name, seed, 25.0 + seed, difference=change, **changed))
    assert cells("Order in layer 1", tmp_path)["measured effect"] == f"`lrn_before_relu`: {NOT_MEASURED}"


def test_an_arm_that_did_not_learn_or_of_other_code_says_so(tmp_path: Path) -> None:
    change = {"model.order1": ["relu_lrn_pool", "lrn_pool_relu"]}
    for run in [*(make_record(seed=seed) for seed in range(3)), *stuck("lrn_before_relu", 3, difference=change)]:
        file_record(tmp_path, run)
    effect = cells("Order in layer 1", tmp_path)["measured effect"]
    assert effect == "`lrn_before_relu`: did not learn (3 of 3) (imagenette_small, recipe paper, cpu)"
    for seed, error in enumerate((25.0, 26.0, 25.5)):
        file_record(tmp_path, make_record("lrn_before_relu", seed, error, difference=change, commit="fed"))
    assert cells("Order in layer 1", tmp_path)["measured effect"].endswith("paper, cpu, mixed code)")


def test_both_values_of_a_key_are_shown(tmp_path: Path) -> None:
    words = cells("Coefficient of the LRN sum", tmp_path)["`recipe=paper`; `recipe=source`"]
    assert words.endswith("(`model.norm.alpha_over_n=false`; `true`)")


def test_what_is_inferred_is_marked(tmp_path: Path) -> None:
    assert cells("Scale of the colour noise", tmp_path)["the authors' code"].endswith("*(inferred)*")
    assert "inferred" not in cells("Third norm", tmp_path)["the authors' code"]


def test_an_effect_on_a_copy_is_starred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_record(name, seed, 25.0 + seed) for name in ("baseline", "no_lrn") for seed in range(3)]
    monkeypatch.setattr(image_copies, "_REMARKS", {runs[0].data.content_hash: "a copy"})
    for run in runs:
        file_record(tmp_path, run)
    assert (
        "(n=3, imagenette_small*, recipe paper, cpu)" in cells("Four-layer CIFAR-10 net", tmp_path)["measured effect"]
    )
