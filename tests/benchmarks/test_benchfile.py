import json
from dataclasses import replace
from pathlib import Path

import pytest

from repro.benchmarks.benchfile import merge, path_of, read
from repro.errors import UserError
from tests.benchmarks.parts import make_part


def test_a_file_is_named_after_the_device() -> None:
    assert path_of(Path("results"), "NVIDIA H200") == Path("results/benchmarks/nvidia-h200.json")


def test_parts_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = path_of(tmp_path, "Xeon")
    parts = {"lrn": make_part("lrn"), "throughput": make_part("throughput", table=[{"batch": 128}])}
    assert merge(path, parts) == parts
    assert read(path) == parts
    assert [file.name for file in path.parent.iterdir()] == ["xeon.json"]


def test_a_part_measured_again_replaces_its_own_and_no_other(tmp_path: Path) -> None:
    path = path_of(tmp_path, "Xeon")
    old, new = make_part("lrn"), replace(make_part("lrn"), date="2026-12-01T00:00:00+00:00")
    merge(path, {"lrn": old, "step": make_part("step")})
    assert merge(path, {"lrn": new}) == {"lrn": new, "step": make_part("step")}


def test_each_target_says_what_was_compared(tmp_path: Path) -> None:
    merge(path_of(tmp_path, "Xeon"), {"step": make_part("step")})
    content = json.loads(path_of(tmp_path, "Xeon").read_text())
    row = content["parts"]["step"]["rows"][0]
    assert {"name", "ours", "peer", "ratio", "target", "met"} <= row.keys()


def test_no_file_has_no_parts(tmp_path: Path) -> None:
    assert read(tmp_path / "none.json") == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "parts": {"lrn": {"date": ""}}}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "xeon.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"xeon\.json: not a file of python -m repro\.bench"):
        read(path)
