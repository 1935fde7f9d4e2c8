from pathlib import Path

import pytest

from repro import record
from repro.evidence import simultaneous
from repro.evidence.comparison import comparisons
from repro.evidence.simultaneous import Method
from repro.report.pairing import BEGIN, END, updated
from tests.report.arms import arm, filed

CONTROL, NO_LRN, NO_DROPOUT = [25.0, 26.0, 24.0], [28.0, 29.2, 27.1], [26.0, 25.0, 27.0]


def row(folder: Path) -> list[str]:
    arms = {"baseline": CONTROL, "no_lrn": NO_LRN, "no_dropout": NO_DROPOUT, "sigmoid": [30.0, 60.0, 90.0]}
    filed(folder / "results", *(run for name, errors in arms.items() for run in arm(name, errors)))
    (folder / "README.md").write_text(f"before\n{BEGIN}old\n{END}after\n")
    text = updated(folder / "README.md", comparisons(record.find(folder / "results")))
    assert text is not None
    assert text.startswith(f"before\n{BEGIN}\n|")
    assert text.endswith(f"{END}after\n")
    return [cell.strip() for cell in text.splitlines()[5].strip("|").split("|")]


def test_the_row_has_medians_over_the_arms_that_are_as_spread_as_the_baseline(tmp_path: Path) -> None:
    cells = row(tmp_path)
    assert cells[1:3] == ["3", "2"]  # sigmoid is thirty times as spread
    assert float(cells[3]) == pytest.approx((0.998 - 1.0) / 2, abs=0.01)
    control = dict(enumerate(CONTROL))
    arms = {"no_lrn": dict(enumerate(NO_LRN)), "no_dropout": dict(enumerate(NO_DROPOUT))}
    for cell, method in zip(cells[4:], Method, strict=True):
        widths = [(one.high - one.low) / 2 for one in simultaneous.by_method(control, arms, method).values()]
        assert float(cell) == pytest.approx(sum(widths) / 2, abs=0.006)


def test_a_page_without_a_place_for_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing\n")
    assert updated(tmp_path / "README.md", []) is None
    assert updated(tmp_path / "absent.md", []) is None
