import re
from dataclasses import replace
from pathlib import Path

import pytest

from repro import compare, record
from repro.evidence.comparison import comparisons
from repro.report.readme import BEGIN, END, updated
from tests.synthetic import adopt, file_record, make_record, stuck

PAGE = f"# Title\n\n{BEGIN}\nold\n{END}\nthe rest\n"


def fill(folder: Path) -> Path:
    """Three pairs under results/, and a README beside it."""
    results = folder / "results"
    for seed in range(3):
        file_record(results, make_record("baseline", seed, 25.0 + seed))
        file_record(results, make_record("no_lrn", seed, 29.0 + seed + 0.1 * seed))
    (folder / "README.md").write_text(PAGE)
    return results


def test_only_what_lies_between_the_marks_changes(tmp_path: Path) -> None:
    results = fill(tmp_path)
    text = updated(tmp_path / "README.md", comparisons(record.find(results)))
    assert text is not None
    assert text.startswith(f"# Title\n\n{BEGIN}")
    assert text.endswith(f"{END}\nthe rest\n")
    assert "old" not in text


def test_a_row_has_error_difference_n_and_verdict(tmp_path: Path) -> None:
    text = updated(tmp_path / "README.md", comparisons(record.find(fill(tmp_path)))) or ""
    (row,) = [line for line in text.splitlines() if line.startswith("| `no_lrn`")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1].startswith("30.10 [")
    assert cells[2].startswith("+4.10 [")
    assert cells[3:5] == ["3", "worse at n=3"]


def test_images_made_by_the_package_are_no_real_results(tmp_path: Path) -> None:
    runs = record.find(fill(tmp_path))
    embedded = [replace(run, data=replace(run.data, source="embedded")) for run in runs]
    assert "validation images" in (updated(tmp_path / "README.md", comparisons(runs)) or "")
    assert "validation images" not in (updated(tmp_path / "README.md", comparisons(embedded)) or "")


def test_a_baseline_alone_is_no_comparison(tmp_path: Path) -> None:
    runs = [run for run in record.find(fill(tmp_path)) if run.ablation == "baseline"]
    assert "validation images" not in (updated(tmp_path / "README.md", comparisons(runs)) or "")


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    assert updated(page, []) is None
    page.write_text(f"only the first mark\n{BEGIN}")
    assert updated(page, []) is None


def test_sections_and_rows_of_few_seeds_are_left_out(tmp_path: Path) -> None:
    results = fill(tmp_path)
    file_record(results, make_record("sigmoid", 0, 60.0))
    file_record(results, make_record("no_dropout", 0, 27.0, setup="imagenette"))
    file_record(results, make_record("baseline", 0, 25.0, setup="imagenette"))
    text = updated(tmp_path / "README.md", comparisons(record.find(results))) or ""
    assert "| `no_lrn`" in text
    assert "sigmoid" not in text
    assert "[All 2 changes](results/tables/imagenette_small-paper-cpu.md)" in text
    assert "Other tables" not in text


def test_the_headline_has_the_most_seeds_and_few_rows(tmp_path: Path) -> None:
    """What the authors published stands before larger effects."""
    results = fill(tmp_path)
    for seed in range(4):
        file_record(results, make_record("baseline", seed, 20.0 + seed, setup="cifar10"))
        file_record(results, make_record("no_lrn", seed, 20.1 + 1.1 * seed, setup="cifar10"))
        for momentum in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
            by_hand = {"optimizer.momentum": [0.9, momentum]}
            error = 30.0 - 10 * momentum + 1.1 * seed
            file_record(results, make_record(f"m{momentum}", seed, error, setup="cifar10", difference=by_hand))
    text = updated(tmp_path / "README.md", comparisons(record.find(results))) or ""
    names = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert names == ["baseline", "momentum=0.1", "momentum=0.2", "momentum=0.3", "momentum=0.4", "no_lrn"]
    assert "[All 7 changes](results/tables/cifar10-paper-cpu.md)" in text
    assert "three seeds or more: [imagenette_small, paper, Xeon](results/tables/imagenette_small-paper-cpu.md)." in text


def test_own_images_and_keys_set_by_hand_are_not_the_projects_results(tmp_path: Path) -> None:
    runs = record.find(fill(tmp_path))
    own = [replace(run, data=replace(run.data, source="imagefolder")) for run in runs]
    assert "validation images" not in (updated(tmp_path / "README.md", comparisons(own)) or "")
    short = [replace(run, difference={**run.difference, "train.epochs": [24, 1]}) for run in runs]
    assert "validation images" not in (updated(tmp_path / "README.md", comparisons(short)) or "")


def test_an_arm_that_did_not_learn_has_no_points_to_show(tmp_path: Path) -> None:
    results = fill(tmp_path)
    for run in stuck("sigmoid", 3):
        file_record(results, run)
    text = updated(tmp_path / "README.md", comparisons(record.find(results))) or ""
    assert "sigmoid" not in text


def test_the_command_writes_it_and_check_notices_a_hand_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, page = fill(tmp_path), tmp_path / "README.md"
    adopt(tmp_path, monkeypatch)
    assert compare.main([f"results_dir={results}"]) == 0
    assert compare.main([f"results_dir={results}", "--check"]) == 0
    page.write_text(page.read_text().replace("30.10", "29.10"))
    assert compare.main([f"results_dir={results}", "--check"]) == 1


def test_the_command_leaves_pages_beside_other_results_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt(tmp_path / "project", monkeypatch)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text(PAGE)
    results = fill(tmp_path)
    assert compare.main([f"results_dir={results}"]) == 0
    assert (results / "tables" / "claims.md").exists()
    assert (tmp_path / "README.md").read_text() == PAGE
    assert (tmp_path / "project" / "README.md").read_text() == PAGE
    assert not (tmp_path / "project" / "experiments.md").exists()
