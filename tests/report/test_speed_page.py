from pathlib import Path

import pytest

from repro import compare
from repro.benchmarks.benchfile import merge, path_of
from repro.benchmarks.targets import CPU, CUDA, targets
from repro.errors import UserError
from repro.report.speed_page import PAGE, render
from tests.benchmarks.parts import make_part
from tests.report.test_readme import fill

TABLE = [
    {"batch": 512, "images_per_second": 9876.5, "flops_share": 0.4, "bandwidth_share": 0.62, "bound": 12345.0,
     "bound_by": "memory"},
]  # fmt: skip


def rows(text: str, name: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if f"| {name} |" in line
    ]


def test_without_figures_there_is_no_page(tmp_path: Path) -> None:
    assert render(tmp_path) == {}


def test_figures_are_ratios_and_carry_the_devices_name(tmp_path: Path) -> None:
    merge(path_of(tmp_path, "A cpu"), {"step": make_part("step"), "start": make_part("start")})
    text = render(tmp_path)[PAGE]
    assert "A cpu, 2 threads, torch 2.15.0, 2026-11-21:" in text
    (step, *_) = rows(text, "training step, fp32")
    assert step == ["training step, fp32", "plain PyTorch, fp32", "10.00 [10.00, 10.00]", "at least 2", "yes"]
    (start,) = rows(text, "`repro.run --help`")
    assert start == ["`repro.run --help`", "", "1 s", "at most 1.5 s", "yes"]


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    merge(path_of(tmp_path, "A cpu"), {"step": make_part("step")})
    text = render(tmp_path)[PAGE]
    assert "No CUDA device was measured." in text
    missing = len(targets(CUDA)) + len(targets(CPU)) - len(targets(CPU, "step"))
    assert text.count("| not measured |") == missing


def test_a_gpu_has_its_own_tables(tmp_path: Path) -> None:
    merge(path_of(tmp_path, "A cuda"), {"throughput": make_part("throughput", CUDA, table=TABLE)})
    text = render(tmp_path)[PAGE]
    assert "No CPU device was measured." in text
    assert rows(text, "512") == [["512", "9,876", "40 %", "62 %", "12,345", "memory"]]


def test_the_command_writes_it(tmp_path: Path) -> None:
    results = fill(tmp_path)
    merge(path_of(results, "A cpu"), {"step": make_part("step")})
    assert compare.main([f"results_dir={results}"]) == 0
    assert "A cpu, 2 threads" in (results / "tables" / PAGE).read_text()
    assert "[Speed](speed.md)" in (results / "tables" / "README.md").read_text()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = path_of(tmp_path, "A cpu")
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(UserError, match=r"a-cpu\.json"):
        render(tmp_path)
