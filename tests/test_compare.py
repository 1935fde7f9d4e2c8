import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from repro import compare
from repro.report import tables
from tests.synthetic import file_record, make_record

SETUP = "ilsvrc2010"  # of no suite, so that no page of one is made
PAGE = "ilsvrc2010-paper-cpu.md"
STEM = "ilsvrc2010-paper-cpu"
FILES = ["README.md", "claims.csv", "claims.md", *(f"{STEM}.{kind}" for kind in ("csv", "html", "md", "tex"))]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed in range(3):
        file_record(tmp_path, make_record("baseline", seed, 25.0 + seed, setup=SETUP))
        file_record(tmp_path, make_record("no_lrn", seed, 26.0 + 1.1 * seed, setup=SETUP))
    return tmp_path


def call(results: Path, *arguments: str) -> int:
    return compare.main([f"results_dir={results}", *arguments])


def contents(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((results / "tables").iterdir())}


def test_writes_tables_and_index(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(results) == 0
    assert list(contents(results)) == FILES
    assert "6 records, 7 files from them, 7 changed" in capsys.readouterr().out


def test_each_changed_file_is_named_and_the_findings_told(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(results)
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("made: ")] == [
        f"made: {results / 'tables' / name}" for name in FILES
    ]
    assert "ilsvrc2010, recipe paper, Xeon, fp32: top-1 error, ten crops, points\n  no_lrn  +1.10 [" in out
    call(results)
    assert "made: " not in capsys.readouterr().out
    (results / "tables" / "claims.csv").write_text("old")
    (results / "tables" / "gone-paper-cpu.md").write_text(tables.WRITTEN_BY)
    call(results)
    out = capsys.readouterr().out
    assert f"changed: {results / 'tables' / 'claims.csv'}\nremoved: {results / 'tables' / 'gone-paper-cpu.md'}\n" in out


def test_the_same_records_give_the_same_bytes(results: Path) -> None:
    call(results)
    first = contents(results)
    call(results)
    assert contents(results) == first


def test_check_passes_on_fresh_tables_and_writes_nothing(results: Path) -> None:
    assert call(results) == 0
    times = {path: path.stat().st_mtime_ns for path in (results / "tables").iterdir()}
    assert call(results, "--check") == 0
    assert {path: path.stat().st_mtime_ns for path in (results / "tables").iterdir()} == times


def test_check_names_a_stale_table(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(results)
    page = results / "tables" / PAGE
    page.write_text(page.read_text().replace("no_lrn", "no_norm"))
    assert call(results, "--check") == 1
    error = capsys.readouterr().err
    assert f"stale: {page}: run python -m repro.compare" in error
    assert error.count("\n") == 1
    assert call(results) == 0
    assert call(results, "--check") == 0


def test_check_without_tables_fails_and_makes_none(results: Path) -> None:
    assert call(results, "--check") == 1
    assert not (results / "tables").exists()


def test_new_record_makes_its_tables_stale(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(results)
    file_record(results, make_record("sigmoid", 0, 40.0))
    assert call(results, "--check") == 1
    assert all(name in capsys.readouterr().err for name in FILES[:1])


def test_table_without_records_is_stale_and_removed(results: Path) -> None:
    call(results)
    old = results / "tables" / "cifar10-paper-cpu.md"
    old.write_text(f"left from records that are gone\n{tables.WRITTEN_BY}")
    assert call(results, "--check") == 1
    assert call(results) == 0
    assert not old.exists()


def test_what_a_user_has_laid_beside_the_tables_stays(results: Path) -> None:
    call(results)
    for name in ("notes.md", "mine.csv"):
        (results / "tables" / name).write_text("mine")
    assert call(results, "--check") == 0
    assert call(results) == 0
    assert [(results / "tables" / name).read_text() for name in ("notes.md", "mine.csv")] == ["mine", "mine"]


def test_every_file_that_is_written_is_known_for_one(results: Path) -> None:
    call(results)
    written = [path for path in (results / "tables").iterdir() if path.suffix in (".md", ".csv")]
    assert written
    assert all(map(compare._is_own, written))


def test_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(tmp_path / "none") == 2
    error = capsys.readouterr().err
    assert "no records" in error
    assert "python -m repro.run" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("argument", ["results", "result_dir=x", "--chekc", "results_dir="])
def test_unknown_argument(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([argument]) == 2
    assert f"error: {argument}: not known here" in capsys.readouterr().err


def test_damaged_record_is_one_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results / "runs" / SETUP / "paper" / "no_lrn" / "seed1" / "record.json"
    path.write_text(path.read_text()[:100])
    assert call(results) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_tables_that_cannot_be_written(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(compare, "replace_file", refuse)
    assert call(results) == 1
    assert f"could not be written ({os.strerror(code)})" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--help"]) == 0
    assert "results_dir=results" in capsys.readouterr().out


def test_a_suite_has_a_page_that_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file_record(tmp_path, make_record("baseline"))
    assert call(tmp_path) == 0
    assert {"suite-cousins.md", "suite-source_differences.md"} <= contents(tmp_path).keys()
    index = contents(tmp_path)["README.md"].decode()
    links = set(re.findall(r"\]\((suite-\w+\.md)\)", index))
    assert links == {name for name in contents(tmp_path) if name.startswith("suite-")}
    capsys.readouterr()
    assert call(tmp_path, "suite=cousins") == 0
    assert capsys.readouterr().out.encode() == contents(tmp_path)["suite-cousins.md"]


def test_an_unknown_suite_is_the_users_mistake(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(results, "suite=cousin") == 2
    assert "unknown suite=cousin: there are cifar_lrn, cousins" in capsys.readouterr().err


def test_as_a_command(results: Path) -> None:
    command = [sys.executable, "-m", "repro.compare", f"results_dir={results}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_word_given_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["results_dir=a", "results_dir=b"]) == 2
    assert "results_dir= is given twice" in capsys.readouterr().err
