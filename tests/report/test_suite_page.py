from dataclasses import replace
from pathlib import Path

import pytest

from repro import record
from repro.evidence import image_copies
from repro.evidence.comparison import comparisons
from repro.experiments.suites import Suite
from repro.report import suite_page
from tests.synthetic import file_record, make_record, stuck

COUSINS = Suite("few", "Which?", "imagenette_small", ("paper", "torchvision", "d2l"), ("baseline",), (0, 1, 2))
ONE_RECIPE = Suite("arms", "What?", "imagenette_small", ("paper",), ("baseline", "no_lrn", "no_dropout"), (0,))
ERRORS = (25.0, 26.0, 24.0)


def page(folder: Path, asked: Suite) -> str:
    return suite_page.render(asked, comparisons(record.find(folder)))


def row(text: str, arm: str) -> dict[str, str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| `{arm}` |"))
    return dict(zip(suite_page.HEADER, (cell.strip() for cell in line.strip("|").split("|")), strict=True))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed, error in enumerate(ERRORS):
        file_record(tmp_path, make_record(seed=seed, error=error))
        file_record(tmp_path, make_record(recipe="torchvision", seed=seed, error=error + 4 + 0.1 * seed))
    return tmp_path


def test_each_arm_is_compared_with_the_first_by_seed(results: Path) -> None:
    text = page(results, COUSINS)
    first, other = row(text, "paper"), row(text, "torchvision")
    assert first["top-1 error, ten crops"].startswith("25.00 [")
    assert first["difference, paired"] == first["verdict"] == ""
    assert other["difference, paired"].startswith("+4.10 [")
    assert (other["n"], other["verdict"]) == ("3", "worse at n=3")
    assert other["top-1 error, centre crop"].startswith("31.10 [")


def test_an_arm_without_records_says_so(results: Path) -> None:
    cells = row(page(results, COUSINS), "d2l")
    assert (cells["n"], cells["verdict"], cells["difference, paired"]) == ("0", "not run yet", "")


def test_a_diverged_arm_has_no_number(results: Path) -> None:
    file_record(results, make_record(recipe="d2l", error=None))
    assert row(page(results, COUSINS), "d2l")["verdict"] == "diverged (1 of 1)"


def test_sizes_are_those_of_the_full_net_and_differences_those_of_the_settings(results: Path) -> None:
    text = page(results, COUSINS)
    assert row(text, "paper")["parameters"] == "60,965,224"
    assert row(text, "torchvision")["parameters"] == "61,100,840"  # as torchvision's documentation says
    assert row(text, "paper")["what differs from the first"] == ""
    assert "`model.norm.kind=none`" in row(text, "torchvision")["what differs from the first"]


def test_sizes_of_a_setup_with_a_net_of_its_own_are_that_nets(tmp_path: Path) -> None:
    asked = Suite("lrn", "What?", "cifar10_13pct", ("paper",), ("baseline", "add_lrn"), (0,))
    run = make_record(setup="cifar10_13pct")
    file_record(tmp_path, run)
    text, classes = page(tmp_path, asked), run.data.classes
    assert "are those of the setup's net" in text
    # 5 x 5 x (3, 64) + 1 a filter; filters of their own at 6 x 6 places: 3 x 3 x (64, 32) + 1; fc10
    parameters = 64 * 76 + 64 * 1601 + 36 * 32 * 577 + 36 * 32 * 289 + classes * (36 * 32 + 1)
    assert row(text, "baseline")["parameters"] == row(text, "add_lrn")["parameters"] == f"{parameters:,}"


def test_the_arms_of_one_recipe_are_named_by_ablation(tmp_path: Path) -> None:
    for run in (make_record(), make_record("no_lrn", error=26.5)):
        file_record(tmp_path, run)
    text = page(tmp_path, ONE_RECIPE)
    assert row(text, "no_lrn")["difference, paired"] == "+1.50"
    assert row(text, "no_lrn")["verdict"] == "no interval at n=1"
    assert row(text, "no_lrn")["what differs from the first"] == "`model.norm.kind=none`"
    assert row(text, "baseline")["parameters"] == row(text, "no_dropout")["parameters"]


def test_devices_and_images_are_kept_apart(results: Path) -> None:
    file_record(results, make_record(recipe="d2l", error=20.0, device="H100", device_type="cuda"))
    sections = page(results, COUSINS).split("\n## ")[1:]
    assert [section.split(":")[0] for section in sections] == ["H100", "Xeon"]
    assert row(sections[0], "d2l")["n"] == "0"  # no run of the first arm on that device
    assert row(sections[0], "paper")["verdict"] == "not run yet"


def test_runs_of_another_budget_get_a_section_of_their_own(results: Path) -> None:
    before = page(results, COUSINS)
    file_record(results, make_record(recipe="torchvision", seed=0, error=80.0, epochs=3))
    sections = page(results, COUSINS).split("\n## ")[1:]
    assert page(results, COUSINS) != before
    (other,) = (section for section in sections if "25.00 [" not in section)
    assert row(other, "torchvision")["top-1 error, ten crops"] == "80.00"
    assert row(other, "paper")["verdict"] == "not run yet"
    (kept,) = (section for section in sections if "25.00 [" in section)
    assert row(kept, "torchvision")["n"] == "2"


def test_runs_with_a_budget_set_by_hand_compare_with_each_other(results: Path) -> None:
    for recipe, error in (("paper", 70.0), ("torchvision", 75.0)):
        short = make_record(recipe=recipe, error=error, difference={"train.epochs": [20, 1]})
        file_record(results, replace(short, ablation="epochs=1"))
    (short,) = (part for part in page(results, COUSINS).split("\n## ")[1:] if "`train.epochs=1`" in part)
    assert row(short, "torchvision")["difference, paired"] == "+5.00"


def test_runs_by_other_code_are_told(results: Path) -> None:
    for seed in range(2):
        file_record(results, make_record(recipe="d2l", seed=seed, error=27.0, commit="fed"))
    text = page(results, COUSINS)
    assert row(text, "d2l")["verdict"] == "not distinguishable at n=2; mixed code"
    assert "    python -m repro.run suite=few force=true\n" in text


def test_an_arm_that_did_not_learn_says_so(results: Path) -> None:
    for run in stuck("baseline", 2, recipe="d2l"):
        file_record(results, run)
    cells = row(page(results, COUSINS), "d2l")
    assert (cells["difference, paired"], cells["n"], cells["verdict"]) == ("", "0", "did not learn (2 of 2)")


def test_other_runs_do_not_enter(results: Path) -> None:
    before = page(results, COUSINS)
    file_record(results, make_record("no_lrn", error=50.0))
    file_record(results, make_record(setup="embedded", error=50.0))
    assert page(results, COUSINS) == before


def test_a_copy_of_the_images_is_told(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_copies, "_REMARKS", {make_record().data.content_hash: "a copy that differs"})
    assert "\na copy that differs.\n" in page(results, COUSINS)


def test_a_suite_without_records_says_so(tmp_path: Path) -> None:
    assert "No records yet." in page(tmp_path, COUSINS)


def test_a_list_of_suites_has_no_table_but_their_commands(tmp_path: Path) -> None:
    asked = Suite("all", "Which?", parts=("suite=cousins", "suite=cifar_lrn seed=0"))
    commands = "    python -m repro.run suite=cousins\n    python -m repro.run suite=cifar_lrn seed=0\n"
    assert page(tmp_path, asked).endswith(f"\n\n{commands}")
