import io

import pytest
from rich.console import Console

from repro import record
from repro.evidence.comparison import Comparison, comparisons
from repro.report.effect_bars import CELLS, bar, tables
from tests.report.arms import arm, filed
from tests.synthetic import stuck


@pytest.fixture(name="part", scope="module")
def _part(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("results")
    runs = [*arm("baseline", [25.0, 25.4, 24.6]), *arm("no_lrn", [28.0, 28.4]), *arm("no_dropout", [60.0, 60.4, 59.7])]
    filed(folder, *runs, *stuck("sigmoid", 3))
    (part,) = comparisons(record.find(folder))
    return part


def shown(part: Comparison, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    for one in tables([part], width):
        console.print(one)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    return lines


def test_a_bar_is_a_point_on_its_interval_on_an_axis_with_0_in_the_middle(part: Comparison) -> None:
    drawn = bar(part.effects["no_lrn"])
    middle, place = CELLS // 2, CELLS // 2 + 2  # +3.2 points of 10 on each side
    assert drawn[place] == "●"
    assert drawn[middle] == "│"
    assert drawn[place + 1 :] == "─"
    assert bar(part.effects["no_dropout"])[-1] == "▶"
    assert bar(part.effects["sigmoid"]) == ""


def test_a_wide_terminal_has_bars_and_a_narrow_one_has_none(part: Comparison) -> None:
    wide, narrow = shown(part, 80), shown(part, 72)
    (row,) = [line for line in wide if line.strip().startswith("no_lrn")]
    assert "+3.20 [" in row
    assert "●" in row
    assert "worse at n=2" in row
    assert not any("●" in line for line in narrow)
    assert sum("worse at n=2" in line for line in narrow) == 1


def test_what_is_missing_and_its_cost_is_told(part: Comparison) -> None:
    """The synthetic runs take 6, 7 and 8 minutes, by seed."""
    assert shown(part, 110)[-1] == "1 run missing, about 7 minutes on such a machine: the commands stand in the table"
