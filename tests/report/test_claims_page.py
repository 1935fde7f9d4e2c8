import csv
import io
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro.config import Config
from repro.evidence import image_copies
from repro.evidence.claims import IDS
from repro.evidence.comparison import comparisons
from repro.record import Record
from repro.report import claims_page
from tests.report.arms import arm, filed, of_net

COMPUTED = {"C1", "C2", "C3", "C4", "C6", "C20", "C24", "C25", "C27"}
VERDICT = re.compile(r"holds|holds in direction|does not hold|not distinguishable, n=\d+|not run here")


def lines(files: dict[str, str]) -> list[list[str]]:
    """Cells of the board's lines."""
    table = files["claims.md"].split("| --- | --- | --- | --- | --- | --- |\n")[1].partition("\n\n")[0]
    return [[cell.strip() for cell in line[2:-2].split(" | ")] for line in table.splitlines()]


def of_claim(files: dict[str, str], name: str) -> list[list[str]]:
    """The lines of one claim: what we find, verdict, evidence."""
    found, current = defaultdict(list), ""
    for line in lines(files):
        current = line[0].partition(" ")[0] or current
        found[current].append(line[3:])
    return found[name]


def pairs(folder: Path, **changed: Any) -> list[Record]:
    runs = *arm("baseline", [25.0, 26.0, 24.0], **changed), *arm("no_lrn", [26.2, 27.4, 25.6], **changed)
    return filed(folder, *runs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Three seeds with and without norm."""
    return pairs(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def files(runs: list[Record]) -> dict[str, str]:
    """The board of those."""
    return claims_page.render(comparisons(runs))


@pytest.fixture(scope="module")
def empty() -> dict[str, str]:
    """The board without records."""
    return claims_page.render(comparisons([]))


def test_without_records_each_claim_has_one_line(empty: dict[str, str]) -> None:
    assert [row[0].partition(" ")[0] for row in lines(empty)] == list(IDS)
    for name, *_, verdict, p, evidence in lines(empty):
        assert p == ""
        computed = name.partition(" ")[0] in COMPUTED
        assert VERDICT.fullmatch(verdict)
        assert (verdict == "not run here") is not computed, name
        assert bool(evidence) is computed, name


def test_records_answer_the_claim_that_names_their_ablation(files: dict[str, str]) -> None:
    top1, top5 = of_claim(files, "C8")
    assert top1 == [
        "`imagenette_small`, `paper`, cpu: `no_lrn`, top-1: +1.40 [+0.90, +1.90] points, n=3",
        "holds",
        "0.013",  # its p and that of top-5, the smaller one doubled: 2 x 0.0067
        "[table](imagenette_small-paper-cpu.md)",
    ]
    assert top5[1] == "holds in direction"
    assert [row[1] for row in of_claim(files, "C26")] == ["not run here"]
    assert len(lines(files)) == len(IDS) + 1


def test_an_ablation_of_several_that_has_no_runs_is_told(tmp_path: Path) -> None:
    layers = Config().model.layers
    changed = {"model.layers": [layers, [name for name in layers if name != "conv4"]]}
    runs = filed(tmp_path, *arm("baseline", [25.0]), *arm("no_conv4", [26.0], difference=changed))
    found, missing = of_claim(claims_page.render(comparisons(runs)), "C5")
    assert "`no_conv4`, top-1: +1.00 points, n=1" in found[0]
    assert missing[:2] == ["needs runs of `no_conv3`, `no_conv5` beside a baseline", "not run here"]


def test_other_recipes_and_made_images_answer_nothing(runs: list[Record], empty: dict[str, str]) -> None:
    other = [replace(run, recipe="torchvision") for run in runs]
    made = [replace(run, data=replace(run.data, source="embedded")) for run in runs]
    assert claims_page.render(comparisons([*other, *made])) == empty


def test_another_network_does_not_answer_a_claim_about_this_one(tmp_path: Path) -> None:
    files = claims_page.render(comparisons(of_net("cifar_local", *pairs(tmp_path))))
    assert [row[1] for row in of_claim(files, "C8")] == ["not run here"]
    assert "`no_lrn`, top-1: +1.40" in of_claim(files, "C9")[0][0]


def test_recipes_and_devices_have_lines_of_their_own(runs: list[Record], tmp_path: Path) -> None:
    gpu = pairs(tmp_path, device="H100", device_type="cuda")
    source = [replace(run, recipe="source") for run in runs]
    places = {
        row[0].partition(":")[0] for row in of_claim(claims_page.render(comparisons([*runs, *gpu, *source])), "C8")
    }
    start = "`imagenette_small`, "
    assert places == {f"{start}`paper`, cpu", f"{start}`paper`, cuda", f"{start}`source`, cpu"}


def test_groups_of_one_setup_recipe_and_kind_of_device_are_told_apart(runs: list[Record], tmp_path: Path) -> None:
    board = claims_page.render(comparisons([*runs, *pairs(tmp_path, device="Opteron")]))
    places = [row[0].partition(": ")[0] for row in of_claim(board, "C8")]
    assert len(set(places)) == 2
    assert sum("Opteron, settings `" in place for place in places) == 2


def test_images_that_are_not_the_original_ones_bear_a_star(
    runs: list[Record], empty: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_copies, "_REMARKS", {runs[0].data.content_hash: "a small copy"})
    page = claims_page.render(comparisons(runs))["claims.md"]
    assert "`imagenette_small`*, `paper`, cpu: " in page
    assert page.endswith("A star marks images that are not the original ones: a small copy.\n")
    assert "A star" not in empty["claims.md"]


def test_a_published_effect_within_its_own_noise_is_marked(empty: dict[str, str]) -> None:
    paper = {row[0].partition(" ")[0]: row[2] for row in lines(empty)}
    assert "+0.394 / +0.300 (ILSVRC-2012 val, ten crops, n=1): **less than two standard errors**" in paper["C10"]
    assert "in top-1 (0.62) and top-5 (0.49)" in paper["C10"]
    assert [name for name, text in paper.items() if "standard errors" in text] == ["C10"]
    assert "authors: 41.0580 / 18.5100 against 40.6640 / 18.2100, " in paper["C10"]
    assert "authors: 37.4727 / 16.9987 (ILSVRC-2010 test, ten crops, n=1)" in paper["C18"]
    assert "`no_conv3`: about +2 (ILSVRC)" in paper["C5"]


def test_the_summary_lists_every_claim_under_its_verdicts(files: dict[str, str]) -> None:
    page = files["claims.md"]
    summary = {row[0]: row[1].split(", ") for row in re.findall(r"^\| (holds|not[ \w]+) \| (C[^|]*) \|$", page, re.M)}
    assert "C8 (`imagenette_small` cpu top-1)" in summary["holds"]
    assert "C1" in summary["holds"]
    assert "C5" in summary["not run here"]
    assert "not distinguishable" not in summary
    assert page.index("| holds in direction | C8 (`imagenette_small` cpu top-5) |") < page.index(
        "| does not hold | C3, C4, C6 |"
    )


def test_csv_has_a_row_a_line(files: dict[str, str]) -> None:
    rows = list(csv.DictReader(io.StringIO(files["claims.csv"])))
    assert [row["verdict"] for row in rows] == [line[4] for line in lines(files)]
    assert [row["claim"] for row in rows if row["setup"]] == ["C8", "C8", "C26"]
    assert rows[0]["statement"].startswith("The net's parameters")
    assert {row["kind"] for row in rows} == {"arithmetic", "effect", "behaviour", "figure"}


def test_the_order_of_the_records_changes_nothing(runs: list[Record], files: dict[str, str]) -> None:
    assert claims_page.render(comparisons(runs[::-1])) == files
