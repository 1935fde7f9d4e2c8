import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from repro import record
from repro.evidence.comparison import Comparison, comparisons
from repro.report import paper_tables
from repro.report.paper_tables import frame
from tests.report.arms import arm, filed
from tests.synthetic import stuck

STEM = "imagenette_small-paper-cpu"


@pytest.fixture(name="parts", scope="module")
def _parts(tmp_path_factory: pytest.TempPathFactory) -> list[Comparison]:
    folder = tmp_path_factory.mktemp("results")
    runs = [*arm("baseline", [25.0, 25.4, 24.6]), *arm("no_lrn", [28.0, 28.4, 27.5])]
    filed(folder, *runs, *stuck("sigmoid", 3))
    return comparisons(record.find(folder))


def test_the_frame_has_a_row_an_arm_and_the_notes_by_letters(parts: list[Comparison]) -> None:
    table, notes = frame(parts[0])
    assert table["change"].tolist() == ["baseline", "no_lrn", "sigmoid"]
    row = table.set_index("change").loc["no_lrn"]
    assert row["difference, points"].startswith("+2.97 [")
    assert (row["method"], row["n"], row["verdict"], row["notes"]) == ("Dunnett", "3", "worse at n=3", "")
    assert table["notes"].tolist() == ["", "", "a"]
    assert len(notes) == 1
    assert notes[0].startswith("3 of 3 runs did not learn")


def test_columns_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    filed(tmp_path, *arm("baseline", [25.0, 25.4, 24.6]), *arm("no_lrn", [28.0, 28.4, 27.5]))
    (part,) = comparisons(record.find(tmp_path))
    assert "notes" not in frame(part)[0].columns


def test_latex_is_of_booktabs_and_escaped(parts: list[Comparison]) -> None:
    text = paper_tables.render(parts)[f"{STEM}.tex"]
    assert text.startswith("% Written by `python -m repro.compare`")
    for word in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"no\_lrn & ",
        r"top-1 error, \% & ",
        r"setup=imagenette\_small",
    ):
        assert word in text
    assert r"\textsuperscript{a} 3 of 3 runs did not learn" in text
    assert not re.search(r"(?<!\\)[_%]", text.partition("\n")[2])


def test_html_is_a_table_with_a_caption_and_heads_of_columns(parts: list[Comparison]) -> None:
    text = paper_tables.render(parts)[f"{STEM}.html"]
    tree = ET.fromstring(f"<main>{text}</main>")
    caption = tree.find("table/caption")
    assert caption is not None
    assert (caption.text or "").startswith("setup=imagenette_small recipe=paper: ten crops")
    heads = tree.findall("table/thead/tr/th")
    assert {head.get("scope") for head in heads} == {"col"}
    assert [len(row) for row in tree.findall("table/tbody/tr")] == [len(heads)] * 3
    assert [(note.text or "")[:6] for note in tree.findall("ol/li")] == ["3 of 3"]


def test_a_comparison_of_too_few_seeds_has_none(tmp_path: Path) -> None:
    filed(tmp_path, *arm("baseline", [25.0, 25.4]), *arm("no_lrn", [28.0, 28.4]))
    assert paper_tables.render(comparisons(record.find(tmp_path))) == {}
