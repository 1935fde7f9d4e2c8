from pathlib import Path

from repro import record as records
from repro.evidence.comparison import comparisons
from repro.experiments import suites
from repro.report import suite_page
from tests.evidence.test_rate_search import FIG1, RELU, TANH, file_fig1


def page(results: Path) -> str:
    return suite_page.render(FIG1, comparisons(records.find(results)))


def test_the_page_shows_each_search_and_the_runs_at_its_best_value(tmp_path: Path) -> None:
    file_fig1(tmp_path, "baseline", RELU)
    file_fig1(tmp_path, "tanh", TANH)
    file_fig1(tmp_path, "sigmoid", {0.001: [None]})
    lines = page(tmp_path).splitlines()
    assert "## cpu fp32: Xeon" in lines
    rows = {line.split("`")[1]: [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if line[:3] == "| `"}
    assert rows["baseline"] == ["0.001: 9.00, 0.003: 7.00, 0.01: none", "0.003", "7.00 [5.76, 8.24]", "", "3", ""]
    assert rows["tanh"][3].startswith("3.63 [")
    assert rows["sigmoid"][-1] == "not tried yet: 0.003, 0.01"


def test_without_records_it_says_so(tmp_path: Path) -> None:
    text = suite_page.render(suites.read("fig1"), [])
    assert text.endswith("No records yet.\n")
    assert "the fewest epochs to `train.stop_at_train_error` at\nseed 0" in text
