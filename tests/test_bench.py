import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from repro import bench
from repro.benchmarks.alternating import Measured
from repro.benchmarks.benchfile import Part
from repro.benchmarks.targets import CPU, CUDA, targets
from repro.command import exit_code
from repro.errors import RunFailure
from tests.benchmarks.parts import make_part

Answer = Callable[..., tuple[int, str, str]]


def found(part: str, peer: float) -> Measured:
    """What a part would find where ours is 1 and every peer is `peer`."""
    rounds: dict[str, list[float]] = {}
    for target in targets(CPU, part):
        rounds[target.ours] = [1.0, 1.0, 1.0]
        if target.peer:
            rounds.setdefault(target.peer, [peer] * 3)
    return Measured(rounds, f"the note of {part}")


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Answer:
    """Runs the command with these words and no real measurement; returns exit code, stdout and stderr."""

    def run(*words: str, peer: float = 0.01) -> tuple[int, str, str]:
        def race(part: str, kind: str) -> Callable[[Any], Measured]:
            return lambda device: found(part, peer)

        monkeypatch.setattr(bench, "_race", race)
        monkeypatch.setattr(bench, "_apart", lambda seconds, measure, *arguments: measure(*arguments))
        monkeypatch.setattr(sys, "argv", [bench.__file__, f"results_dir={tmp_path}", *words])
        monkeypatch.setenv("COLUMNS", "200")
        return exit_code(bench.main), *capfd.readouterr()

    return run


def content(folder: Path) -> Any:
    (path,) = (folder / "benchmarks").iterdir()
    return json.loads(path.read_text())


def test_every_target_is_printed_and_written(answer: Answer, tmp_path: Path) -> None:
    code, out, err = answer()
    assert code == 0
    for target in targets(CPU):
        assert target.name in out
    for target in targets(CUDA):
        assert f"cuda: {target.name}" in out
    assert out.count("not measured") == len(targets(CUDA))
    assert "measuring lrn (1 of 7)" in err
    parts = content(tmp_path)["parts"]
    assert set(parts) == set(bench.PARTS[CPU])
    assert parts["step"]["note"] == "the note of step"
    assert parts["step"]["machine"]["torch"] == torch.__version__
    assert [row["name"] for row in parts["step"]["rows"]] == [target.name for target in targets(CPU, "step")]


def test_a_missed_target_is_named_and_fails(answer: Answer, tmp_path: Path) -> None:
    code, out, err = answer("only=lrn", peer=0.5)
    assert code == 1
    assert err.splitlines()[-1].startswith("error: 1 target missed on ")
    assert ": LRN, fp32; other work" in err
    assert content(tmp_path)["parts"]["lrn"]["rows"][0]["met"] is False
    assert "2.00 [2.00, 2.00]" in out


def test_a_part_that_fails_is_told_in_one_line_and_the_others_are_filed(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(part: str, kind: str) -> tuple[Part, dict[str, str]]:
        if part == "step":
            raise RunFailure("an illegal memory access was encountered")
        return make_part(part), {}

    monkeypatch.setattr(bench, "measure", measure)
    code, out, err = answer("only=lrn,step,memory")
    assert code == 1
    assert "step failed: an illegal memory access was encountered\n" in err
    assert err.splitlines()[-1] == "error: step failed: an illegal memory access was encountered"
    assert content(tmp_path)["parts"].keys() == {"lrn", "memory"}
    assert "not measured: an illegal memory" in out


def test_a_candidate_that_failed_fails_the_command_and_one_left_out_does_not(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reasons = {"ours, bf16": "bf16 is emulated on this processor"}
    monkeypatch.setattr(bench, "measure", lambda part, kind: (make_part(part, reasons=reasons), {}))
    code, out, _ = answer("only=lrn")
    assert code == 0
    assert "not measured: bf16 is emulated" in out
    assert content(tmp_path)["parts"]["lrn"]["rows"][1]["reason"] == reasons["ours, bf16"]
    monkeypatch.setattr(bench, "measure", lambda part, kind: (make_part(part, reasons=reasons), reasons))
    code, _, err = answer("only=lrn")
    assert (code, err.splitlines()[-1]) == (1, f"error: lrn, ours, bf16 failed: {reasons['ours, bf16']}")


def test_each_line_is_told_when_it_is_measured(answer: Answer) -> None:
    _, _, err = answer("only=lrn,start")
    assert err.index("  LRN, fp32: ") < err.index("measuring start (2 of 2)")


def test_some_parts_leave_the_others_as_they_were(answer: Answer, tmp_path: Path) -> None:
    assert answer("only=lrn", peer=0.5)[0] == 1
    before = content(tmp_path)["parts"]["lrn"]
    code, out, _ = answer("only=start,memory")
    assert code == 0  # what an earlier call missed is shown, and does not fail this one
    assert " no " in out
    parts = content(tmp_path)["parts"]
    assert parts.keys() == {"lrn", "start", "memory"}
    assert parts["lrn"] == before


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_shows_how_it_is_called(word: str, answer: Answer, tmp_path: Path) -> None:
    code, out, _ = answer(word)
    assert code == 0
    assert "python -m repro.bench [only=lrn,step]" in out
    assert all(f"  {part}" in out for part in bench.PARTS[CPU])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("only=lrn,stap", "only=lrn,stap: stap is no part on device=cpu: there are lrn, step"),
        ("device=tpu", "device=tpu: choose one of cpu, cuda"),
        ("seed=1", "seed=1: not known here"),
    ],
)
def test_a_mistake_is_one_line(word: str, message: str, answer: Answer) -> None:
    code, out, err = answer(word)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a CUDA device")
def test_without_a_gpu_nothing_is_claimed_of_one(answer: Answer, tmp_path: Path) -> None:
    code, _, err = answer("device=cuda")
    assert code == 2
    assert "no CUDA device" in err
    assert list(tmp_path.iterdir()) == []
