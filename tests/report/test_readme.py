from dataclasses import replace
from pathlib import Path

import pytest

from repro import compare, record
from repro.report.readme import BEGIN, END, updated
from tests.synthetic import file_record, make_record

PAGE = f"# Title\n\n{BEGIN}\nold\n{END}\nthe rest\n"


def fill(folder: Path) -> Path:
    """Three pairs under results/, and a README beside it."""
    results = folder / "results"
    for seed in range(3):
        file_record(results, make_record("baseline", seed, 25.0 + seed))
        file_record(results, make_record("no_lrn", seed, 27.0 + seed + 0.1 * seed))
    (folder / "README.md").write_text(PAGE)
    return results


def test_only_what_lies_between_the_marks_changes(tmp_path: Path) -> None:
    results = fill(tmp_path)
    text = updated(tmp_path / "README.md", record.find(results))
    assert text is not None
    assert text.startswith(f"# Title\n\n{BEGIN}")
    assert text.endswith(f"{END}\nthe rest\n")
    assert "old" not in text


def test_a_row_has_error_difference_n_and_verdict(tmp_path: Path) -> None:
    text = updated(tmp_path / "README.md", record.find(fill(tmp_path))) or ""
    (row,) = [line for line in text.splitlines() if line.startswith("| `no_lrn`")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1].startswith("28.10 [")
    assert cells[2].startswith("+2.10 [")
    assert cells[3:5] == ["3", "worse at n=3"]


def test_images_made_by_the_package_are_no_real_results(tmp_path: Path) -> None:
    runs = record.find(fill(tmp_path))
    embedded = [replace(run, data=replace(run.data, source="embedded")) for run in runs]
    assert "validation images" in (updated(tmp_path / "README.md", runs) or "")
    assert "validation images" not in (updated(tmp_path / "README.md", embedded) or "")


def test_a_baseline_alone_is_no_comparison(tmp_path: Path) -> None:
    runs = [run for run in record.find(fill(tmp_path)) if run.ablation == "baseline"]
    assert "validation images" not in (updated(tmp_path / "README.md", runs) or "")


@pytest.mark.parametrize(
    ("ablation", "errors", "surprising"),
    [
        ("no_lrn", (27.0, 28.1, 29.2), False),  # expected to be worse, and is
        ("no_lrn", (25.0, 26.1, 27.0), True),  # not distinguishable
        ("no_lrn", (23.0, 24.1, 25.2), True),  # better
        ("input_227", (23.0, 24.1, 25.2), True),  # expected to be the same
    ],
)
def test_what_was_not_expected_is_shown(
    ablation: str, errors: tuple[float, ...], surprising: bool, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text(PAGE)
    change = {} if ablation == "no_lrn" else {"model.conv1_input": ["zero_right_bottom", "real_pixels"]}
    for seed, error in enumerate(errors):
        file_record(tmp_path, make_record(seed=seed, error=25.0 + seed))
        file_record(tmp_path, make_record(ablation, seed, error, **({"difference": change} if change else {})))
    text = updated(tmp_path / "README.md", record.find(tmp_path)) or ""
    assert (f"| `{ablation}` | imagenette_small, paper |" in text) == surprising
    assert ("most surprising" in text) == surprising


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    assert updated(page, []) is None
    page.write_text(f"only the first mark\n{BEGIN}")
    assert updated(page, []) is None


def test_the_command_writes_it_and_check_notices_a_hand_in_it(tmp_path: Path) -> None:
    results, page = fill(tmp_path), tmp_path / "README.md"
    assert compare.main([f"results_dir={results}"]) == 0
    assert compare.main([f"results_dir={results}", "--check"]) == 0
    page.write_text(page.read_text().replace("28.10", "27.10"))
    assert compare.main([f"results_dir={results}", "--check"]) == 1
