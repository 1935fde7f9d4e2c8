from pathlib import Path

import pytest

from repro import compare
from repro.errors import UserError
from repro.report.speed import BEGIN, END, updated
from repro.speed.benchfile import merge, path_of
from repro.speed.targets import CPU, CUDA, targets
from tests.report.test_readme import fill
from tests.speed.parts import make_part
from tests.synthetic import adopt

PAGE = f"# Title\n\n{BEGIN}\nbefore this\n{END}\nthe rest\n"
TABLE = [
    {"batch": 512, "images_per_second": 9876.5, "flops_share": 0.4, "bandwidth_share": 0.62, "bound": 12345.0,
     "bound_by": "memory"},
]  # fmt: skip


def rows(text: str, name: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if f"| {name} |" in line
    ]


def test_only_what_lies_between_the_marks_changes(tmp_path: Path) -> None:
    text = updated(PAGE, tmp_path)
    assert text.startswith(f"# Title\n\n{BEGIN}")
    assert text.endswith(f"{END}\nthe rest\n")
    assert "before this" not in text
    assert updated("no marks\n", tmp_path) == "no marks\n"


def test_figures_are_ratios_and_carry_the_devices_name(tmp_path: Path) -> None:
    merge(path_of(tmp_path, "A cpu"), {"step": make_part("step"), "start": make_part("start")})
    text = updated(PAGE, tmp_path)
    assert "A cpu, 2 threads, torch 2.15.0, 2026-11-21:" in text
    (step, *_) = rows(text, "training step, fp32")
    assert step == ["training step, fp32", "plain PyTorch, fp32", "10.00 [10.00, 10.00]", "at least 2", "yes"]
    (start,) = rows(text, "`repro.run --help`")
    assert start == ["`repro.run --help`", "", "1 s", "at most 1.5 s", "yes"]


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    merge(path_of(tmp_path, "A cpu"), {"step": make_part("step")})
    text = updated(PAGE, tmp_path)
    assert "No CUDA device was measured." in text
    missing = len(targets(CUDA)) + len(targets(CPU)) - len(targets(CPU, "step"))
    assert text.count("| not measured |") == missing


def test_a_gpu_has_its_own_tables(tmp_path: Path) -> None:
    merge(path_of(tmp_path, "A cuda"), {"throughput": make_part("throughput", CUDA, table=TABLE)})
    text = updated(PAGE, tmp_path)
    assert "No CPU device was measured." in text
    assert rows(text, "512") == [["512", "9,876", "40 %", "62 %", "12,345", "memory"]]


def test_the_command_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, page = fill(tmp_path), tmp_path / "README.md"
    adopt(tmp_path, monkeypatch)
    page.write_text(page.read_text() + PAGE)
    merge(path_of(results, "A cpu"), {"step": make_part("step")})
    assert compare.main([f"results_dir={results}"]) == 0
    assert "A cpu, 2 threads" in page.read_text()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = path_of(tmp_path, "A cpu")
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(UserError, match=r"a-cpu\.json"):
        updated(PAGE, tmp_path)
